//! Processes of every sort come and go, and each is counted exactly.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use streamhouse_tests::{Cluster, Probe, Process, poll_until};

const LIMIT: Duration = Duration::from_secs(60);
/// An interval of sweeps that no test waits for: after the first sweep only what the kernel tells is heard.
const ONE_SWEEP: [&str; 2] = ["--discover-interval", "3600s"];
/// The environment variable that gives a hooked program its id.
const ID: &str = "HOOKED_ID";

/// A program that fires as often as it is told.
struct Hooked {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Hooked {
    fn start(command: &mut Command) -> Result<Hooked> {
        let mut process = Process::start("hooked", command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (input, output) = process.pipes().context("piped")?;
        Ok(Hooked { process, input, output: BufReader::new(output) })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    /// Says a line and waits until it is done.
    fn tell(&mut self, line: &str) -> Result<()> {
        self.say(line)?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        ensure!(answer == "done\n", "{line}: answered {answer:?}");
        Ok(())
    }
}

fn hooked(path: &Path, id: &str) -> Command {
    let mut command = Command::new(path);
    command.env(ID, id);
    command
}

fn copy(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    let path = cluster.path(name);
    std::fs::copy(cluster.binaries.hooked()?, &path)?;
    Ok(path)
}

fn written(probe: &Probe, id: &str) -> Result<f64> {
    Ok(probe.scrape()?.sum("streamhouse_agent_records_written_total", &[("instance_id", id)]))
}

fn ensure_written(probe: &Probe, id: &str, expected: f64) -> Result<()> {
    let counted = written(probe, id)?;
    ensure!(counted == expected, "{counted} counted of {expected} that {id} wrote");
    Ok(())
}

/// Waits until some process of each of so many files named `name` is attached.
fn await_targets(probe: &Probe, name: &str, count: usize) -> Result<()> {
    poll_until("the targets", LIMIT, || {
        let mut targets = probe.targets()?;
        targets.retain(|target| target.path.ends_with(name));
        let attached = targets.iter().filter(|target| target.state == "attached").count();
        ensure!(attached == count && targets.len() == count, "{count} attached are not {targets:?}");
        Ok(())
    })
}

/// A library that a running program without hooks loads is found though no sweep comes.
pub(crate) fn a_library_loaded_late(cluster: &Cluster) -> Result<()> {
    let (host, library) = cluster.binaries.hooked_host()?;
    let mut command = hooked(&host, "embedded");
    let mut host = Hooked::start(command.arg(&library))?;
    let probe = cluster.start_probe(&ONE_SWEEP)?;
    ensure!(probe.targets()?.is_empty(), "a target without hooks: {:?}", probe.targets()?);
    host.tell("load")?;
    probe.await_attached(&[host.process.pid()])?;
    ensure!(probe.targets()?[0].path.ends_with("libstreamhouse_hooked.so"), "{:?}", probe.targets()?);
    host.tell("1000")?;
    ensure_written(&probe, "embedded", 1000.0)
}

/// Processes of an attached file are counted from their first event to their last, however short they live.
pub(crate) fn lives_of_milliseconds(cluster: &Cluster) -> Result<()> {
    const LIVES: u32 = 300;
    let path = cluster.binaries.hooked()?;
    let probe = cluster.start_probe(&ONE_SWEEP)?;
    let holder = Hooked::start(&mut hooked(&path, "holder"))?;
    probe.await_attached(&[holder.process.pid()])?;
    for _ in 0..LIVES {
        Process::start("hooked", hooked(&path, "short").arg("7"))?.wait_success(LIMIT)?;
    }
    ensure_written(&probe, "short", f64::from(7 * LIVES))
}

/// A replaced file is a new target while the old one lives on; with its last process a target goes.
pub(crate) fn an_upgrade_in_place(cluster: &Cluster) -> Result<()> {
    let path = copy(cluster, "service")?;
    let probe = cluster.start_probe(&ONE_SWEEP)?;
    let mut old = Hooked::start(&mut hooked(&path, "old"))?;
    await_targets(&probe, "service", 1)?;
    std::fs::rename(copy(cluster, "service.new")?, &path)?;
    let mut new = Hooked::start(&mut hooked(&path, "new"))?;
    await_targets(&probe, "service", 2)?;
    old.tell("11")?;
    new.tell("13")?;
    ensure_written(&probe, "old", 11.0)?;
    ensure_written(&probe, "new", 13.0)?;
    old.process.kill()?;
    await_targets(&probe, "service", 1)?;
    new.tell("13")?;
    ensure_written(&probe, "new", 26.0)?;
    ensure_written(&probe, "old", 11.0)?;
    new.process.kill()?;
    await_targets(&probe, "service", 0)
}

/// Two containers of one image: one file through two mounts of their own, counted once.
pub(crate) fn two_overlay_mounts(cluster: &Cluster) -> Result<()> {
    const SCRIPT: &str =
        "mount -t overlay overlay -o lowerdir=lower,upperdir=$1/upper,workdir=$1/work $1/merged &&
                          exec $1/merged/image";
    std::fs::create_dir(cluster.path("lower"))?;
    copy(cluster, "lower/image")?;
    let probe = cluster.start_probe(&ONE_SWEEP)?;
    let start = |name: &str| -> Result<Hooked> {
        for part in ["upper", "work", "merged"] {
            std::fs::create_dir_all(cluster.path(name).join(part))?;
        }
        let mut command = hooked(Path::new("unshare"), name);
        command.args(["--mount", "sh", "-c", SCRIPT, "sh", name]).current_dir(&cluster.dir);
        Hooked::start(&mut command)
    };
    let mut first = start("first")?;
    probe.await_attached(&[first.process.pid()])?;
    first.tell("100")?;
    let mut second = start("second")?;
    probe.await_attached(&[second.process.pid()])?;
    for _ in 0..3 {
        first.tell("100")?;
        second.tell("10")?;
        probe.scrape()?;
    }
    ensure_written(&probe, "first", 400.0)?;
    ensure_written(&probe, "second", 30.0)?;
    // One of the two links goes, whichever it is; what is left of the file is observed all the same.
    first.process.kill()?;
    second.tell("10")?;
    ensure_written(&probe, "second", 40.0)?;
    ensure_written(&probe, "first", 400.0)
}

/// A process that knows itself by another number, as in a container.
pub(crate) fn other_pid_namespaces(cluster: &Cluster) -> Result<()> {
    let path = cluster.binaries.hooked()?;
    let probe = cluster.start_probe(&[])?;
    let mut command = hooked(Path::new("unshare"), "contained");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(&path);
    let mut contained = Hooked::start(&mut command)?;
    await_targets(&probe, "hooked", 1)?;
    contained.tell("17")?;
    ensure_written(&probe, "contained", 17.0)?;
    probe.await_process_up(("instance_id", "contained"))
}

/// Neither exec nor a number that is used again gives one process the labels of another.
pub(crate) fn exec_and_a_number_used_again(cluster: &Cluster) -> Result<()> {
    let path = cluster.binaries.hooked()?;
    let successor = cluster.path("successor");
    // The same process under another id: by way of a shell, which is a third program in it.
    std::fs::write(&successor, format!("#!/bin/sh\n{ID}=after exec {}\n", path.display()))?;
    std::fs::set_permissions(&successor, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let probe = cluster.start_probe(&ONE_SWEEP)?;
    let holder = Hooked::start(&mut hooked(&path, "holder"))?;
    probe.await_attached(&[holder.process.pid()])?;
    let mut process = Hooked::start(&mut hooked(&path, "before"))?;
    process.tell("5")?;
    process.say(&format!("exec {}", successor.display()))?;
    // What is said too early, the first program takes with it.
    poll_until("exec", LIMIT, || {
        let environment = std::fs::read(format!("/proc/{}/environ", process.process.pid()))?;
        let after = format!("{ID}=after");
        ensure!(environment.split(|byte| *byte == 0).any(|line| line == after.as_bytes()), "not yet");
        Ok(())
    })?;
    process.tell("6")?;
    ensure_written(&probe, "before", 5.0)?;
    ensure_written(&probe, "after", 6.0)?;

    let first = process.process.pid();
    process.process.kill()?;
    let mut again = start_as(first, &path, "again")?;
    again.tell("8")?;
    ensure_written(&probe, "again", 8.0)?;
    ensure_written(&probe, "before", 5.0)?;
    ensure_written(&probe, "after", 6.0)
}

/// Starts a process with a number that another one had. Whoever else starts processes meanwhile may take it first.
fn start_as(pid: u32, path: &Path, id: &str) -> Result<Hooked> {
    for _ in 0..100 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let started = Hooked::start(&mut hooked(path, id))?;
        if started.process.pid() == pid {
            return Ok(started);
        }
    }
    anyhow::bail!("the number {pid} was not given again")
}
