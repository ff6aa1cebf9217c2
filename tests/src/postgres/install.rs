//! Where PostgreSQL is installed, and as whom it runs.

use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// Where Debian keeps its versions.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The directory of PostgreSQL's programs.
pub(super) struct Programs(PathBuf);

impl Programs {
    /// The newest version that Debian's packages installed, else what PATH has.
    pub(super) fn find() -> Result<Programs> {
        let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
        let mut versions: Vec<(u32, PathBuf)> = versions
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort();
        let path = std::env::var_os("PATH").unwrap_or_default();
        versions
            .into_iter()
            .rev()
            .map(|(_, dir)| dir)
            .chain(std::env::split_paths(&path))
            .find(|dir| ["initdb", "postgres", "psql"].iter().all(|program| dir.join(program).is_file()))
            .map(Programs)
            .context("PostgreSQL is not installed here (initdb, postgres and psql); run `cargo xtask setup`")
    }

    /// One of its programs, without settings from our environment.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.0.join(program));
        let settings = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("PG"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| settings(name)) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// Whom the server runs as.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// User id.
    pub(super) uid: u32,
    /// Group id.
    pub(super) gid: u32,
}

impl Account {
    /// PostgreSQL refuses to run as root: the account its package made, or `nobody`. Who is not root runs it as himself.
    pub(super) fn for_server() -> Result<Option<Account>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd =
            std::fs::read_to_string("/etc/passwd").context("looking up an account for PostgreSQL")?;
        let account = ["postgres", "nobody"].iter().find_map(|name| Account::parse(&passwd, name));
        ensure!(
            account.is_some(),
            "there is no account `postgres` or `nobody` here that PostgreSQL could run as"
        );
        Ok(account)
    }

    /// passwd(5).
    fn parse(passwd: &str, name: &str) -> Option<Account> {
        let line = passwd.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut fields = line.split(':').skip(1);
        Some(Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:,,,:/:/bin/sh\n";
        assert_eq!(Account::parse(passwd, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(Account::parse(passwd, "nobody"), None);
    }
}
