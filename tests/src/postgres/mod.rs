//! A PostgreSQL server of our own: on a free loopback port, in a directory of its own, gone with whoever started it.

mod install;
mod shared;

pub use shared::{TEST_POSTGRES_URL, query, test_database};

use crate::process::{Process, poll_until};
use anyhow::{Context, Result, bail, ensure};
use install::{Account, Programs};
use rustix::process::Signal;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long it may take to start, also when it recovers from a crash, and to end: far longer than it does.
const LIMIT: Duration = Duration::from_secs(120);
/// The superuser; on loopback nobody is asked for a password.
const USER: &str = "postgres";
/// Enough for every test of a machine with many processors, each with a pool of its own.
const CONNECTIONS_MAX: u32 = 500;
/// Ends the server and removes what is to be removed when its standard input ends, which it does with our process,
/// however that ends: Drop does not run for statics and after SIGKILL. $1: data, $2: directory to remove, or nothing.
const GUARD: &str = r#"
trap '' HUP INT TERM
read -r _
pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null)
tries=0
while [ -n "$pid" ] && [ $tries -lt 100 ] && kill -QUIT "$pid" 2>/dev/null; do sleep 0.1; tries=$((tries + 1)); done
[ -z "$2" ] || rm -rf -- "$2"
"#;

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the server process, however it ends: enough where the machine itself does not crash.
    Process,
    /// As a server is run for real: `fsync` and all.
    Machine,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Rolls back what is under way, tells clients, writes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers from the log.
    Immediate,
}

/// A running server. Dropped, it ends.
pub struct Postgres {
    programs: Programs,
    account: Option<Account>,
    dir: PathBuf,
    /// Whether the directory goes with the server.
    scratch: bool,
    durability: Durability,
    port: u16,
    server: Option<Process>,
    /// Kept for its standard input.
    guard: Option<Child>,
}

impl Postgres {
    /// Whether PostgreSQL is installed here.
    pub fn is_installed() -> bool {
        Programs::find().is_ok()
    }

    /// A server in a new directory below the machine's one for temporary files, removed when it ends.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn scratch(durability: Durability) -> Result<Postgres> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("streamhouse-postgres-{}-{next}", std::process::id());
        Postgres::start_in(&std::env::temp_dir().join(name), durability, true)
    }

    /// A server with its data and its log (`postgres.log`) in `dir`, which is made; its owner removes it.
    ///
    /// Root's servers run as `postgres` or `nobody`, because PostgreSQL refuses root: they must be able to reach `dir`.
    ///
    /// # Errors
    ///
    /// When PostgreSQL is not installed, or does not come up; the message ends with its log.
    pub fn start(dir: &Path, durability: Durability) -> Result<Postgres> {
        Postgres::start_in(dir, durability, false)
    }

    fn start_in(dir: &Path, durability: Durability, scratch: bool) -> Result<Postgres> {
        let (programs, account) = (Programs::find()?, Account::for_server()?);
        std::fs::create_dir(dir).with_context(|| format!("making {}", dir.display()))?;
        let mut postgres = Postgres {
            programs,
            account,
            dir: dir.to_owned(),
            scratch,
            durability,
            port: 0,
            server: None,
            guard: None,
        };
        postgres.guard = Some(postgres.start_guard()?);
        postgres.initialize()?;
        // Another process may take the free port before the server does.
        let mut tries = 0;
        loop {
            postgres.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            match postgres.start_server() {
                Ok(()) => return Ok(postgres),
                Err(error) if tries == 3 || !error.to_string().contains("could not bind") => {
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
        }
    }

    /// `postgres://` address of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The loopback port it listens on; stays the same when it is restarted.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The log of the server.
    pub fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// Creates an empty database and gives its address; one of this name is dropped before.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or the name is not of `a-z`, `0-9` and `_`.
    pub fn create_database(&self, name: &str) -> Result<String> {
        shared::create_database(&self.url(USER), name)
    }

    /// Ends the server and starts it again on the same port with the same data.
    ///
    /// # Errors
    ///
    /// When it does not end, or does not come up again.
    pub fn restart(&mut self, shutdown: Shutdown) -> Result<()> {
        self.stop(shutdown)?;
        self.start_server()
    }

    /// Ends the server. Nothing happens when it does not run.
    ///
    /// # Errors
    ///
    /// When it does not end in time; it is killed when dropped.
    pub fn stop(&mut self, shutdown: Shutdown) -> Result<()> {
        let Some(server) = &mut self.server else { return Ok(()) };
        server.signal(match shutdown {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        });
        server.wait(LIMIT)?;
        self.server = None;
        Ok(())
    }

    /// Starts the server that was [stopped](Self::stop).
    ///
    /// # Errors
    ///
    /// When it does not come up; the message ends with its log.
    pub fn start_server(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let mut set = |name: &str, value: &str| {
            command.args(["-c", &format!("{name}={value}")]);
        };
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", "");
        // Shared memory as files among the data: nothing stays in /dev/shm when the server is killed.
        set("dynamic_shared_memory_type", "mmap");
        set("max_connections", &CONNECTIONS_MAX.to_string());
        if self.durability == Durability::Process {
            set("fsync", "off");
            set("full_page_writes", "off");
        }
        // An interrupt from the keyboard is for whoever started the server.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let server = self.server.insert(Process::start("postgres", &mut command)?);
        let (pid_file, pid) = (self.dir.join("data/postmaster.pid"), server.pid().to_string());
        let ready = poll_until("PostgreSQL to be ready", LIMIT, || {
            if let Some(status) = server.exited()? {
                return Ok(Some(status));
            }
            // Line 1 is the process id, line 8 its state (miscadmin.h, LOCK_FILE_LINE_PM_STATUS).
            let text = std::fs::read_to_string(&pid_file)?;
            let line = |number: usize| text.lines().nth(number - 1).unwrap_or_default().trim();
            ensure!(line(1) == pid && line(8) == "ready", "it is {:?}", line(8));
            Ok(None)
        });
        let log = self.log();
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = ready.with_context(|| format!("its log:\n{}", log()))? {
            self.server = None;
            bail!("PostgreSQL ended with {status}. Its log:\n{}", log());
        }
        Ok(())
    }

    fn initialize(&self) -> Result<()> {
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o700))?;
        if let Some(account) = &self.account {
            chown(&self.dir, Some(account.uid), Some(account.gid))?;
        }
        let mut initdb = self.command("initdb");
        initdb
            .args([
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--username",
                USER,
                "--pgdata",
            ])
            .arg(self.data());
        let output = initdb.stdin(Stdio::null()).output().context("running initdb")?;
        ensure!(
            output.status.success(),
            "initdb in {} failed: {}{}",
            self.dir.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn start_guard(&self) -> Result<Child> {
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(self.data());
        guard.arg(if self.scratch { self.dir.as_os_str() } else { "".as_ref() });
        guard.current_dir("/").process_group(0).stdin(Stdio::piped());
        guard.stdout(Stdio::null()).stderr(Stdio::null());
        guard.spawn().context("starting sh")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.programs.command(program);
        // Where we are may be closed to the server's account.
        command.current_dir("/");
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nothing to keep: a killed server would leave its children to themselves for a moment.
        let _ = self.stop(Shutdown::Immediate);
        self.server = None;
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_committed_over_a_restart_and_leaves_nothing() {
        let mut postgres = Postgres::scratch(Durability::Process).unwrap();
        let url = postgres.create_database("kept").unwrap();
        query(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").unwrap();
        for shutdown in [Shutdown::Immediate, Shutdown::Fast] {
            postgres.restart(shutdown).unwrap();
            assert_eq!(query(&url, "SELECT n FROM t").unwrap(), "7");
        }
        // Creating it again empties it.
        assert_eq!(postgres.create_database("kept").unwrap(), url);
        assert!(query(&url, "SELECT n FROM t").unwrap_err().to_string().contains("does not exist"));
        assert!(postgres.create_database("no-such; name").is_err());
        let dir = postgres.dir.clone();
        assert!(dir.join("data").is_dir());
        drop(postgres);
        assert!(!dir.exists());
        assert!(query(&url, "SELECT 1").is_err());
    }
}
