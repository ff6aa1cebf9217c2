//! Runs the built binary on a log of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

    /// Standard output of a command that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, parsed.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&output).unwrap()
    }

    /// The error of a command that must end with status 1: one line that says all of `says`.
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

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[allow(dead_code, reason = "each test file is a crate of its own, and not all of them use reports")]
pub(crate) fn report(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
