//! SQLite's errors as the caller needs them.
//!
//! Result codes: <https://www.sqlite.org/rescode.html>. The low byte of an extended code is the primary code.

use crate::error::MetadataError;
use rustix::fs::{Access, AtFlags, CWD};
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
pub(super) const IS_NO_FILE: &str =
    "is not a regular file; give the path of one, for example ./streamhouse/metadata.db";
pub(super) const IS_MISSING: &str =
    "does not exist; give the path that the agent uses, or start an agent, which creates it";
pub(super) const IS_EMPTY: &str =
    "is empty; give the path that the agent uses, or start an agent on it, which fills it";
pub(super) const IS_OLDER: &str = "was written by an earlier version of StreamHouse; start an agent of this version on it, which brings it up to date";
pub(super) const IS_FOREIGN: &str =
    "is not a StreamHouse metadata file; give another path, or move the file away";
pub(super) const IS_NEWER: &str =
    "was written by another version of StreamHouse; use a version that knows it";
pub(super) const IS_GONE: &str = "is not at its path any more: the file was removed, moved or replaced while it was in use, and nothing is written that would be \
     lost with it; stop the agent and every other process that has it open, restore the file, then start them again";
const IS_FULL: &str = "is on a disk that is full; free some space, then try again";
const IS_READ_ONLY: &str =
    "cannot be written; make the file and its directory writable for this user, or give another path";
const CANNOT_BE_OPENED: &str =
    "cannot be opened; check that its directory exists and that this user may read and write there";
const CANNOT_BE_READ: &str =
    "cannot be read; make the file readable and its directory accessible for this user, or give another path";
const CANNOT_BE_READ_ALONE: &str = "is not in use, and to read it then SQLite keeps two files beside it, ending in -wal and -shm, which this user may not \
     create (or read, if they are there); start an agent on it, or run this as a user who may write to the directory";
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

/// A file that cannot be used, found without asking the system.
pub(super) fn unusable(path: &Path, problem: &'static str) -> MetadataError {
    MetadataError::Unusable { path: path.display().to_string(), problem, said: String::new() }
}

/// A file that cannot be used, and what the system said, without what the driver adds to it.
pub(super) fn refused(path: &Path, problem: &'static str, error: &sqlx::Error) -> MetadataError {
    let said = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    MetadataError::Unusable { path: path.display().to_string(), problem, said }
}

pub(super) fn cannot_create(path: &Path, error: std::io::Error) -> MetadataError {
    let problem = match error.kind() {
        std::io::ErrorKind::StorageFull => IS_FULL,
        _ => CANNOT_BE_CREATED,
    };
    refused(path, problem, &error.into())
}

pub(super) fn cannot_read(path: &Path, error: std::io::Error) -> MetadataError {
    let problem = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => IS_MISSING,
        _ => CANNOT_BE_READ,
    };
    refused(path, problem, &error.into())
}

/// What an error of the database means, for everything but COMMIT: nothing was changed.
pub(super) fn explain(path: &Path, error: sqlx::Error) -> MetadataError {
    match code(&error) {
        Some(BUSY | LOCKED | INTERRUPT) => MetadataError::Busy(error.into()),
        Some(FULL) => refused(path, IS_FULL, &error),
        Some(READONLY | PERM) => refused(path, IS_READ_ONLY, &error),
        Some(CANTOPEN) => refused(path, CANNOT_BE_OPENED, &error),
        Some(NOTADB) => refused(path, IS_FOREIGN, &error),
        Some(CORRUPT) => {
            MetadataError::Corrupt(format!("{error} in {}; restore it from a backup", path.display()))
        }
        Some(_) => MetadataError::Unavailable(error.into()),
        None => explain_driver(path, error),
    }
}

/// The same for a file that is only read. A database with a write-ahead log cannot be read without that log's files
/// (<https://www.sqlite.org/wal.html#read_only_databases>).
pub(super) fn explain_reading(path: &Path, error: sqlx::Error) -> MetadataError {
    match code(&error) {
        Some(READONLY | PERM | CANTOPEN) => {
            let readable = rustix::fs::accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS);
            refused(path, if readable.is_ok() { CANNOT_BE_READ_ALONE } else { CANNOT_BE_READ }, &error)
        }
        _ => explain(path, error),
    }
}

/// Errors that did not come from SQLite itself.
fn explain_driver(path: &Path, error: sqlx::Error) -> MetadataError {
    use sqlx::Error::*;
    match error {
        PoolTimedOut => MetadataError::Busy(error.into()),
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
        _ => MetadataError::Unavailable(error.into()),
    }
}
