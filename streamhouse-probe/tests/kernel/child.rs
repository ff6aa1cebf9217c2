//! Processes that a trial starts: this executable again, told by an environment variable what to do.

#![expect(clippy::print_stdout, reason = "a child answers on its standard output")]

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use streamhouse_hooks::{Instance, Role, Site, Started, Write as WriteEvent};

use crate::observer::Observer;
use crate::raw::{Arguments, RawScope};

const ROLE: &str = "STREAMHOUSE_KERNEL_TEST_CHILD";
/// A child that nobody ends is gone after this.
const LIFETIME: Duration = Duration::from_secs(60);

/// Plays the role of a child, if this process is one.
pub(crate) fn run() -> bool {
    let Ok(role) = env::var(ROLE) else { return false };
    match role.as_str() {
        "probe" => probe(),
        "writer" => writer(),
        "nameless" => nameless(),
        "flood" => flood(),
        "parent" => parent(),
        _ => panic!("no such role: {role}"),
    }
    true
}

/// Attaches to the raw sites, says so, and waits to be killed.
fn probe() {
    let observer = Observer::new();
    let _link = observer.attach_raw(1);
    println!("attached");
    thread::sleep(LIFETIME);
}

/// Fires the hook `write`.
fn writer() {
    let scope = Instance::new(Role::Agent, "child", "").scope("fold", Some(3));
    fire_as_told(|| {
        let event = WriteEvent { records: 2, bytes: 10, started: Started::UNTIMED, status: 0 };
        streamhouse_hooks::write(&scope, event);
    });
}

/// Fires the hook `write`, then in children it forks; answers with how the last one ended.
fn parent() {
    let instance = Instance::new(Role::Agent, "parent", "");
    let event = |records| WriteEvent { records, bytes: 10, started: Started::UNTIMED, status: 0 };
    let scope = instance.scope("forked", None);
    fire_as_told(|| {
        streamhouse_hooks::write(&scope, event(1));
        // SAFETY: the child only calls what a child of a threaded process may: glibc keeps its allocator usable.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let scope = instance.scope("forked", None);
            (0..100).for_each(|_| streamhouse_hooks::write(&scope, event(1)));
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
        let mut status = -1;
        // SAFETY: waits for the child just made.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(status, 0, "the child has ended well");
    });
}

/// Hits the raw `write` with a scope whose labels cannot be read.
fn nameless() {
    let mut scope = RawScope::new("nameless");
    scope.head().owner = 8;
    let with = Arguments { records: 1, bytes: 1, duration_ns: 1, status: 0, particular: 0 };
    fire_as_told(|| scope.hit(Site::Write, with));
}

/// Hits the raw `write` each time with another scope.
fn flood() {
    let with = Arguments { records: 1, bytes: 1, duration_ns: 1, status: 0, particular: 0 };
    fire_as_told(|| RawScope::new("flood").hit(Site::Write, with));
}

/// Fires as often as each line of the input says, and answers each line.
fn fire_as_told(fire: impl Fn()) {
    for line in io::stdin().lines() {
        let times: u64 = line.expect("input is text").parse().expect("a number");
        (0..times).for_each(|_| fire());
        println!("done");
    }
}

/// A child, killed when dropped.
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(role: &str) -> Process {
        Process::start_from(Path::new("/proc/self/exe"), role)
    }

    /// Starts a copy of this executable.
    pub(crate) fn start_from(executable: &Path, role: &str) -> Process {
        let mut child = Command::new(executable)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this executable can be started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Process { child, output }
    }

    /// Waits for a line.
    pub(crate) fn expect(&mut self, line: &str) {
        let mut said = String::new();
        self.output.read_line(&mut said).expect("its output can be read");
        assert_eq!(said.trim_end(), line);
    }

    /// Has a child fire.
    pub(crate) fn fire(&mut self, times: u64) {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{times}").expect("it reads its input");
        self.expect("done");
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `kill` there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
