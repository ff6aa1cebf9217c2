//! Errors of a metadata store as gRPC statuses, and back.
//!
//! A status carries the error's kind in its metadata: gRPC's codes are fewer than the reactions that errors ask for, and
//! what stands between client and store (transport, proxies) has codes of its own.

use streamhouse_core::ErrorKind;
use streamhouse_metadata::MetadataError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The key of a status's metadata under which a store's error has the number of its [`ErrorKind`].
pub const ERROR_KIND_KEY: &str = "streamhouse-error-kind";

/// Longest message of a status: it travels in a header, percent-encoded, and what receives headers bounds them.
const MESSAGE_CHARS_MAX: usize = 1024;

/// The status that says this, with its kind.
pub fn status(kind: ErrorKind, message: &str) -> Status {
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let mut status = Status::new(code(kind), message);
    status.metadata_mut().insert(ERROR_KIND_KEY, MetadataValue::from(u16::from(kind.number())));
    status
}

/// A store's error as a status: its kind and its sentence.
pub fn from_error(error: &MetadataError) -> Status {
    status(error.kind(), &error.to_string())
}

/// The error that a status stands for: the store's own, or why the store could not be asked.
pub fn to_error(status: &Status) -> MetadataError {
    match store_kind(status) {
        Some(kind) => MetadataError::Remote { kind, message: status.message().to_owned() },
        None => MetadataError::Remote { kind: kind(status.code()), message: not_asked(status) },
    }
}

/// How to react to a status, whoever it is from.
pub fn error_kind(status: &Status) -> ErrorKind {
    store_kind(status).unwrap_or_else(|| kind(status.code()))
}

/// The kind of a store's error; `None` when the status is not the store's. Then another agent may give an answer.
pub fn store_kind(status: &Status) -> Option<ErrorKind> {
    let number = status.metadata().get(ERROR_KIND_KEY)?.to_str().ok()?;
    ErrorKind::from_number(number.parse().ok()?)
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Retry => Code::Aborted,
        ErrorKind::Fenced => Code::FailedPrecondition,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Unavailable => Code::Unavailable,
    }
}

/// How to react to a status that is not the store's.
fn kind(code: Code) -> ErrorKind {
    match code {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::ResourceExhausted => {
            ErrorKind::Retry
        }
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::DataLoss => ErrorKind::Corrupt,
        // What transports say when the other side is not there, or speaks something else.
        Code::Ok | Code::Unknown | Code::Internal | Code::Unavailable => ErrorKind::Unavailable,
    }
}

fn not_asked(status: &Status) -> String {
    let code = status.code();
    match (code, status.message()) {
        // The agent says what to do.
        (Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument, said)
            if !said.is_empty() =>
        {
            said.to_owned()
        }
        (Code::Unimplemented, _) => {
            "what was asked does not answer metadata requests; give the address of an agent's gRPC port, and \
             an agent of the same version"
                .to_owned()
        }
        (_, "") => format!("the agent could not be asked: {}", code.description()),
        (_, said) => format!("the agent could not be asked: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_kind_and_its_sentence() {
        for kind in ErrorKind::ALL {
            let sentence = "größe: 10 % of \"x\"\nis gone";
            let error = MetadataError::Remote { kind, message: sentence.to_owned() };
            let status = from_error(&error);
            assert_eq!(store_kind(&status), Some(kind));
            let back = to_error(&status);
            assert_eq!((back.kind(), back.to_string()), (kind, sentence.to_owned()));
        }
    }

    #[test]
    fn a_message_is_cut_to_what_fits_a_header() {
        let status = from_error(&MetadataError::Invalid("ü".repeat(100_000)));
        assert_eq!(status.message().chars().count(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn what_is_not_the_stores_says_how_to_react() {
        let cases = [
            (Status::unavailable("connection refused"), ErrorKind::Unavailable, "connection refused"),
            (Status::unknown("transport error"), ErrorKind::Unavailable, "transport error"),
            (Status::internal("h2 protocol error"), ErrorKind::Unavailable, "h2 protocol error"),
            (Status::cancelled("Timeout expired"), ErrorKind::Retry, "Timeout expired"),
            (Status::resource_exhausted(""), ErrorKind::Retry, "the agent could not be asked: "),
            (Status::unauthenticated("give a token"), ErrorKind::Invalid, "give a token"),
            (Status::unimplemented(""), ErrorKind::Invalid, "gRPC port"),
        ];
        for (status, kind, sentence) in cases {
            assert_eq!(store_kind(&status), None);
            let error = to_error(&status);
            assert_eq!(error.kind(), kind, "{status}");
            assert!(error.to_string().contains(sentence), "{error}");
        }
    }

    #[test]
    fn a_kind_that_means_nothing_is_as_none() {
        for number in ["", "0", "7", "256", "x", "-1"] {
            let mut status = Status::not_found("gone");
            status.metadata_mut().insert(ERROR_KIND_KEY, number.parse().unwrap());
            assert_eq!(store_kind(&status), None);
            assert_eq!(to_error(&status).kind(), ErrorKind::NotFound);
        }
    }
}
