//! Databases for tests: one server for all of them, a database each.

use super::install::Programs;
use super::{Durability, Postgres};
use anyhow::{Context, Result, bail, ensure};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The environment variable with the address of a server for tests (any database of it, whose user may create others).
pub const TEST_POSTGRES_URL: &str = "STREAMHOUSE_TEST_POSTGRES_URL";

/// The address of an empty database nobody else has, on the server that [`TEST_POSTGRES_URL`] names, else on one that
/// this process starts on first use and that ends with it. Blocks for up to some seconds. `name` makes it easy to
/// recognise.
///
/// # Errors
///
/// When PostgreSQL is not installed or does not answer, or `name` is not of `a-z`, `0-9` and `_`.
pub fn test_database(name: &str) -> Result<String> {
    static SERVER: Mutex<Option<Postgres>> = Mutex::new(None);
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    if let Ok(url) = std::env::var(TEST_POSTGRES_URL) {
        return create_database(&url, &name);
    }
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let server = match &mut *server {
        Some(server) => server,
        none => none.insert(Postgres::scratch(Durability::Process)?),
    };
    server.create_database(&name)
}

/// Creates an empty database on the server of `url` and gives its address; one of this name is dropped before.
pub(super) fn create_database(url: &str, name: &str) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    ensure!(
        !name.is_empty() && name.bytes().all(plain),
        "{name:?} is not a name for a database: use a-z, 0-9 and _"
    );
    query(url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
    query(url, &format!("CREATE DATABASE {name} TEMPLATE template0"))?;
    let (server, _) = url.rsplit_once('/').context("the address names no database")?;
    Ok(format!("{server}/{name}"))
}

/// What a statement answers, through `psql`: a line a row, columns divided by `|`.
///
/// # Errors
///
/// When the server does not answer or refuses the statement.
pub fn query(url: &str, sql: &str) -> Result<String> {
    let mut psql = Programs::find()?.command("psql");
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--no-align",
        "--tuples-only",
        "--set=ON_ERROR_STOP=1",
        "--command",
    ]);
    let output = psql.arg(sql).arg(url).stdin(Stdio::null()).output().context("running psql")?;
    if !output.status.success() {
        bail!("PostgreSQL at {url} refused `{sql}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_one_name_are_two() {
        let [one, other] = [(); 2].map(|()| test_database("twice").unwrap());
        query(&one, "CREATE TABLE t (n int)").unwrap();
        assert_ne!(one, other);
        assert_eq!(query(&other, "SELECT count(*) FROM pg_tables WHERE tablename = 't'").unwrap(), "0");
    }
}
