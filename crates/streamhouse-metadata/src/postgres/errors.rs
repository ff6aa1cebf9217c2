//! PostgreSQL's errors as the caller needs them.
//!
//! Codes: <https://www.postgresql.org/docs/15/errcodes-appendix.html>.

use super::PostgresUrl;
use crate::error::MetadataError;
use std::borrow::Cow;

const CANNOT_BE_REACHED: &str =
    "cannot be reached; check that PostgreSQL runs at this host and port and takes connections from here";
const NO_TLS: &str =
    "cannot be reached safely; check the server's certificate, and sslmode and sslrootcert in the URL";
const REFUSES_USER: &str =
    "refuses this user; check user name and password in the URL, and the server's pg_hba.conf";
const HAS_NO_DATABASE: &str =
    "has no such database; create it with `createdb`, or give another one in the URL";
const MAY_NOT: &str =
    "does not let this user do that; make the user the owner of the database, or grant it the rights";
const IS_FOREIGN: &str = "holds another program's tables; give StreamHouse a database of its own";
pub(super) const IS_NEWER: &str =
    "was written by another version of StreamHouse; use a version that knows it";
pub(super) const IS_OLDER: &str = "is empty or was written by an earlier version of StreamHouse; start an agent of this version on it, which \
     brings it up to date";
const IS_STANDBY: &str = "takes no writes; give the URL of the primary server";
const IS_FULL: &str = "has no space left; free some on the server, then try again";

/// The five characters that say what is wrong, when the server said so.
pub(super) fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// A database that cannot be used, and what was said, without what the driver adds to it.
pub(super) fn unusable(url: &PostgresUrl, problem: &'static str, error: &sqlx::Error) -> MetadataError {
    let said = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    MetadataError::Unusable { path: url.to_string(), problem, said }
}

pub(super) fn unreachable(url: &PostgresUrl, error: &sqlx::Error) -> MetadataError {
    unusable(url, CANNOT_BE_REACHED, error)
}

/// What an error means, for everything but a lost COMMIT: nothing was changed.
pub(super) fn explain(url: &PostgresUrl, read_only: bool, error: sqlx::Error) -> MetadataError {
    let Some(code) = sqlstate(&error) else { return explain_driver(url, error) };
    match &*code {
        "25006" if read_only => MetadataError::Invalid(format!(
            "the metadata store {url} was opened for reading only; open it for writing to change it"
        )),
        "25006" => unusable(url, IS_STANDBY, &error),
        "3D000" => unusable(url, HAS_NO_DATABASE, &error),
        "42501" => unusable(url, MAY_NOT, &error),
        "42P07" => unusable(url, IS_FOREIGN, &error),
        "53100" => unusable(url, IS_FULL, &error),
        "57P01" | "57P02" | "57P03" => unreachable(url, &error),
        "40001" | "40P01" | "55P03" | "57014" | "53300" | "25P03" | "57P05" => {
            MetadataError::Busy(error.into())
        }
        "XX001" | "XX002" => MetadataError::Corrupt(format!("{error} in {url}; restore it from a backup")),
        code if code.starts_with("28") => unusable(url, REFUSES_USER, &error),
        code if code.starts_with("08") => unreachable(url, &error),
        _ => MetadataError::Unavailable(error.into()),
    }
}

/// Errors that did not come from the server.
fn explain_driver(url: &PostgresUrl, error: sqlx::Error) -> MetadataError {
    use sqlx::Error::*;
    match error {
        PoolTimedOut => MetadataError::Busy(error.into()),
        Io(_) | Protocol(_) => unreachable(url, &error),
        Tls(_) => unusable(url, NO_TLS, &error),
        RowNotFound
        | TypeNotFound { .. }
        | ColumnIndexOutOfBounds { .. }
        | ColumnNotFound(_)
        | ColumnDecode { .. }
        | Decode(_) => MetadataError::Corrupt(format!("{error} in {url}; restore it from a backup")),
        // PoolClosed, WorkerCrashed and what can only come from a mistake in a statement.
        _ => MetadataError::Unavailable(error.into()),
    }
}
