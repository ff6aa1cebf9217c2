//! The binary as a child process.

use super::Log;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_streamhouse-agent");

/// A running agent; killed when it is dropped.
pub(crate) struct AgentProcess {
    child: Child,
    pub(crate) grpc_address: SocketAddr,
}

impl AgentProcess {
    /// Starts the binary; where it answers is in the line that says it is ready.
    pub(crate) fn start(log: &Log) -> AgentProcess {
        AgentProcess::start_as(Command::new(BINARY), log)
    }

    /// The same, with limits of open files: the one in force, and the most that it may be raised to.
    pub(crate) fn start_with_files(log: &Log, soft: u32, hard: u32) -> AgentProcess {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec {BINARY} \"$@\"");
        shell.args(["-c", &script, "sh"]);
        AgentProcess::start_as(shell, log)
    }

    fn start_as(mut command: Command, log: &Log) -> AgentProcess {
        command.args(log.flags(&[])).env("RUST_LOG", "info").stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let grpc_address = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("gRPC on ")?;
            rest.split(',').next()?.parse().ok()
        });
        // The pipe stays read, so that the agent never waits for its log.
        std::thread::spawn(move || lines.for_each(drop));
        AgentProcess { child, grpc_address: grpc_address.expect("the agent says that it is ready") }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end; its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
