//! Child processes that end with whoever started them.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A child process. Dropped, it is killed and reaped.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a command; `name` is for messages.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Process> {
        let child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Process { name: name.to_owned(), child })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // A process that has just exited by itself is what the signal wanted.
            let _ = kill_process(pid, signal);
        }
    }

    /// Its standard input and output, when the command has pipes for both; once.
    pub fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks until it is up, at most `limit`.
    ///
    /// # Errors
    ///
    /// When it ends or the limit passes before `is_up` says so; the message has the end or the last reason.
    pub fn await_up(&mut self, limit: Duration, mut is_up: impl FnMut() -> Result<()>) -> Result<()> {
        let what = format!("{} to be up", self.name);
        let ended = poll_until(&what, limit, || match self.exited()? {
            // An answer after an exit would be another's: stop asking.
            Some(status) => Ok(Some(status)),
            None => is_up().map(|()| None),
        })?;
        match ended {
            Some(status) => bail!("{} ended with {status}", self.name),
            None => Ok(()),
        }
    }

    /// Waits for its end, at most `limit`.
    ///
    /// # Errors
    ///
    /// When it runs longer; it is then killed when dropped.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} (pid {}) did not end within {limit:?}", self.name, self.pid());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// [`wait`](Self::wait), and the end must be a success.
    ///
    /// # Errors
    ///
    /// Also when it ended with another status.
    pub fn wait_success(&mut self, limit: Duration) -> Result<()> {
        let status = self.wait(limit)?;
        if !status.success() {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    ///
    /// When it does not end within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Ends it at once (SIGKILL) and reaps it.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL);
        Ok(self.child.wait()?)
    }

    /// Waits for a successful end and gives the processor time it took, as the kernel accounts it to the parent.
    ///
    /// # Errors
    ///
    /// When it fails or takes longer than `limit`.
    pub fn wait_cpu_time(mut self, limit: Duration) -> Result<Duration> {
        // Fields cutime and cstime: children that were waited for.
        let before = stat_times("self", 13)?;
        self.wait_success(limit)?;
        Ok(stat_times("self", 13)? - before)
    }

    /// Processor time so far, from `/proc/PID/stat`.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        // Fields utime and stime.
        stat_times(&self.pid().to_string(), 11)
    }

    /// A figure of `/proc/PID/status` in KiB, such as `VmHWM`, the most that was resident.
    ///
    /// # Errors
    ///
    /// When the process is gone, or has no such figure.
    pub fn memory_kib(&self, figure: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        let value = value.with_context(|| format!("no {figure}"))?;
        Ok(value.trim().trim_end_matches(" kB").parse()?)
    }
}

/// The sum of two neighbouring times of `/proc/PID/stat`, counted from the field after the command name.
fn stat_times(pid: &str, first: usize) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name may hold spaces and brackets: count fields after its last bracket (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks =
        fields.get(first..first + 2).context("short stat")?.iter().flat_map(|field| field.parse::<u64>());
    Ok(Duration::from_millis(ticks.sum::<u64>() * 1000 / rustix::param::clock_ticks_per_second()))
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the command's process be killed when the thread that starts it ends, however it ends: Drop does not run after a
/// signal. For threads that live as long as what they start, such as the main one.
pub(crate) fn bind_to_this_thread(command: &mut Command) -> &mut Command {
    // SAFETY: runs between fork and exec, where only async-signal-safe calls may be made: it makes one system call.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) }
}

/// Asks until there is an answer, at most `limit`.
///
/// # Errors
///
/// When the limit passes; the message says `what` was waited for and the last reason.
pub fn poll_until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) if start.elapsed() > limit => {
                return Err(reason.context(format!("waited {limit:?} for {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
