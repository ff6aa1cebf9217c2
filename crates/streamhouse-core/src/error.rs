//! How a caller should react to an error.

/// The reaction an error asks for. Every error type of the log has a `kind()`.
///
/// The numbers are what the wire and the hooks carry; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ErrorKind {
    /// Nothing is wrong with the request; try again after a pause.
    Retry = 1,
    /// The writer lost the partition's lease; find the holder and send it there.
    Fenced = 2,
    /// The request is wrong and stays wrong; change it.
    Invalid = 3,
    /// What it names does not exist; create it or change the name.
    NotFound = 4,
    /// Stored or received bytes failed their check; do not use them.
    Corrupt = 5,
    /// A service or resource is missing (time, memory, disk, network); an operator has to look.
    Unavailable = 6,
}

impl ErrorKind {
    /// Every kind, in the order of its number.
    pub const ALL: [ErrorKind; 6] = [
        ErrorKind::Retry,
        ErrorKind::Fenced,
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Corrupt,
        ErrorKind::Unavailable,
    ];

    /// The number on the wire and in the hooks.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind of a number; `None` for 0 and for numbers of later versions.
    pub fn from_number(number: u8) -> Option<ErrorKind> {
        ErrorKind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether trying the same request again can succeed.
    pub const fn is_retryable(self) -> bool {
        match self {
            ErrorKind::Retry | ErrorKind::Fenced | ErrorKind::Unavailable => true,
            ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Corrupt => false,
        }
    }
}
