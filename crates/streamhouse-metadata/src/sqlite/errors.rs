//! SQLite's errors as the caller needs them.
//!
//! Result codes: <https://www.sqlite.org/rescode.html>. The low byte of an extended code is the primary code.

use crate::error::MetadataError;
use std::path::Path;

const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const INTERRUPT: i32 = 9;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOTADB: i32 = 26;

pub(super) const IS_DIRECTORY: &str =
    "is a directory; give the path of a file in it, for example metadata.db";
pub(super) const IS_FOREIGN: &str =
    "is not a StreamHouse metadata file; give another path, or move the file away";
pub(super) const IS_NEWER: &str =
    "was written by another version of StreamHouse; use a version that knows it";
const IS_FULL: &str = "is on a disk that is full; free some space, then try again";
const IS_READ_ONLY: &str =
    "cannot be written; make the file and its directory writable for this user, or give another path";
const CANNOT_BE_OPENED: &str =
    "cannot be opened; check that its directory exists and that this user may read and write there";
const CANNOT_BE_CREATED: &str =
    "cannot be created; check that this user may write to its directory, or give another path";

/// The primary result code, when the database said one.
fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

/// Whether a COMMIT that failed like this has certainly not happened: the transaction was refused, or its last page did
/// not fit on the disk. After any other failure, a failed sync for one, the commit may be found after a restart.
pub(super) fn is_certain_at_commit(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED | FULL | READONLY | CONSTRAINT))
}

pub(super) fn unusable(path: &Path, problem: &'static str, source: sqlx::Error) -> MetadataError {
    MetadataError::Unusable { path: path.display().to_string(), problem, source }
}

pub(super) fn cannot_create(path: &Path, error: std::io::Error) -> MetadataError {
    let problem = match error.kind() {
        std::io::ErrorKind::StorageFull => IS_FULL,
        _ => CANNOT_BE_CREATED,
    };
    unusable(path, problem, error.into())
}

/// What an error of the database means, for everything but COMMIT: nothing was changed.
pub(super) fn explain(path: &Path, error: sqlx::Error) -> MetadataError {
    match code(&error) {
        Some(BUSY | LOCKED | INTERRUPT) => MetadataError::Busy(error),
        Some(FULL) => unusable(path, IS_FULL, error),
        Some(READONLY | PERM) => unusable(path, IS_READ_ONLY, error),
        Some(CANTOPEN) => unusable(path, CANNOT_BE_OPENED, error),
        Some(NOTADB) => unusable(path, IS_FOREIGN, error),
        Some(CORRUPT) => {
            MetadataError::Corrupt(format!("{error} in {}; restore it from a backup", path.display()))
        }
        Some(_) => MetadataError::Unavailable(error),
        None => explain_driver(path, error),
    }
}

/// Errors that did not come from SQLite itself.
fn explain_driver(path: &Path, error: sqlx::Error) -> MetadataError {
    use sqlx::Error::*;
    match error {
        PoolTimedOut => MetadataError::Busy(error),
        Io(error) => cannot_create(path, error),
        RowNotFound
        | TypeNotFound { .. }
        | ColumnIndexOutOfBounds { .. }
        | ColumnNotFound(_)
        | ColumnDecode { .. }
        | Decode(_) => {
            MetadataError::Corrupt(format!("{error} in {}; restore it from a backup", path.display()))
        }
        // PoolClosed, WorkerCrashed and what can only come from a mistake in a statement.
        _ => MetadataError::Unavailable(error),
    }
}
