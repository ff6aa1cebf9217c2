//! Runs the built binary on a log of its own.

use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A log's directory, removed at the end.
pub(crate) struct Log {
    dir: tempfile::TempDir,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A `streamhouse` command on this log.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamhouse"));
        command
            .args(arguments)
            .env("STREAMHOUSE_METADATA_PATH", self.path("metadata.db"))
            .env("STREAMHOUSE_OBJECT_STORE_PATH", self.path("objects"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The object store's directory, which an agent would make.
    #[allow(dead_code, reason = "each test file is a crate of its own, and some run an agent")]
    pub(crate) fn make_objects(&self) {
        streamhouse_storage::create_local(&self.path("objects")).unwrap();
    }

    /// Takes every write permission from the log's directory and the files in it.
    #[allow(dead_code, reason = "each test file is a crate of its own")]
    pub(crate) fn write_protect(&self) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            std::fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o400)).unwrap();
        }
        std::fs::set_permissions(self.dir.path(), Permissions::from_mode(0o500)).unwrap();
    }

    /// The outcome of a command that may not ignore permissions, as root may: also a program that root starts has no
    /// capabilities.
    #[allow(dead_code, reason = "each test file is a crate of its own")]
    pub(crate) fn without_override(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let run = move || {
            if rustix::process::geteuid().is_root() {
                let bits = CapabilitiesSecureBits::NO_ROOT;
                set_capabilities_secure_bits(bits).expect("root in a test has CAP_SETPCAP");
            }
            command.output().unwrap()
        };
        std::thread::spawn(run).join().unwrap()
    }

    /// Standard output of a command that must succeed.
    #[allow(dead_code, reason = "each test file is a crate of its own, and some name another log")]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, parsed.
    #[allow(dead_code, reason = "each test file is a crate of its own, and some name another log")]
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&output).unwrap()
    }

    /// The error of a command that must end with status 1: one line that says all of `says`.
    #[allow(dead_code, reason = "each test file is a crate of its own, and some name another log")]
    pub(crate) fn fails(&self, arguments: &[&str], says: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        let last = error.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("error: "), "{arguments:?}: {error}");
        for text in says {
            assert!(last.contains(text), "{arguments:?} does not say {text:?}: {error}");
        }
    }
}

/// Waits for a condition, long enough for a slow machine.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited 60 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[allow(dead_code, reason = "each test file is a crate of its own, and not all of them use reports")]
pub(crate) fn report(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
