//! Password hashes: bcrypt, as `htpasswd -B` makes them.

use std::fmt;

/// Fewest rounds, as a power of two: fewer protect nothing.
const COST_MIN: u32 = 4;
/// Most: 2^16 rounds take a processor several seconds, which whoever guesses could have it spend.
const COST_MAX: u32 = 16;

/// The bcrypt hash of a password. Shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(String);

/// A text is no hash that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHash {
    /// It is none at all.
    #[error("this is no bcrypt hash; make one with `htpasswd -nB USER`")]
    Malformed,
    /// It would cost too little or too much.
    #[error("the cost of a hash has to be {COST_MIN} to {COST_MAX}; make one with `htpasswd -nBC 10 USER`")]
    Cost,
}

impl Hash {
    /// Takes a hash as it is written: `$2y$10$` and 53 characters.
    ///
    /// # Errors
    ///
    /// [`BadHash`] says how to make one.
    pub fn parse(text: &str) -> Result<Hash, BadHash> {
        let parts: bcrypt::HashParts = text.parse().map_err(|_| BadHash::Malformed)?;
        if !(COST_MIN..=COST_MAX).contains(&parts.get_cost()) {
            return Err(BadHash::Cost);
        }
        Ok(Hash(text.to_owned()))
    }

    /// Whether it is this password's. Takes a processor some milliseconds to a second.
    pub fn is_of(&self, password: &[u8]) -> bool {
        bcrypt::verify(password, &self.0).unwrap_or(false)
    }

    /// The text, for what must change when it does.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}
