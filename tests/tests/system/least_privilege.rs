//! The probe in an account of its own, with four capabilities and nothing else.

use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use streamhouse_tests::{Cluster, Process};

const LIMIT: Duration = Duration::from_secs(120);
const TOPIC: &str = "privileges";
const RECORDS: &str = "20000";
/// The account that owns nothing.
const NOBODY: &str = "65534";
/// What the probe needs, as setpriv calls it.
const CAPABILITIES: [&str; 4] = ["dac_read_search", "sys_ptrace", "perfmon", "bpf"];
/// CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON and CAP_BPF, by their bits.
const NEEDED: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;

/// In an account without rights, with exactly these capabilities, it counts exactly what processes of another account do.
pub(crate) fn four_capabilities(cluster: &Cluster) -> Result<()> {
    let binary = for_everybody(cluster, &cluster.binaries.probe())?;
    let mut setpriv = as_nobody(&CAPABILITIES);
    setpriv.arg(&binary);
    let probe = cluster.start_probe_with(setpriv, &[])?;
    holds_exactly(probe.process.pid(), NOBODY)?;

    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, TOPIC, 2)?;
    let gate = cluster.path("gate");
    let mut produce = cluster.cli(&["produce", TOPIC, "--generate", RECORDS]);
    let mut producer = Process::start("produce", produce.arg("--start-gate").arg(&gate))?;
    probe.await_attached(&[agent.process.pid(), producer.pid()])?;
    std::fs::write(&gate, "")?;
    producer.wait_success(LIMIT)?;
    let page = probe.scrape()?;
    for metric in ["streamhouse_producer_records_sent_total", "streamhouse_agent_records_written_total"] {
        let counted = page.sum(metric, &[("topic", TOPIC)]);
        ensure!(counted.to_string() == RECORDS, "{metric}: {counted} instead of {RECORDS}");
    }
    probe.await_process_up(("role", "agent"))
}

/// Started with every capability, it keeps the four.
pub(crate) fn root_is_given_up(cluster: &Cluster) -> Result<()> {
    let probe = cluster.start_probe(&[])?;
    holds_exactly(probe.process.pid(), "0")
}

/// Without one of the four it says which, and serves the state of the processes that it can look into.
pub(crate) fn one_capability_missing(cluster: &Cluster) -> Result<()> {
    let binary = for_everybody(cluster, &cluster.binaries.probe())?;
    let hooked = for_everybody(cluster, &cluster.binaries.hooked()?)?;
    let mut command = as_nobody(&[]);
    command.arg(&hooked).env("HOOKED_ID", "seen").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start("hooked", &mut command)?;
    let (mut input, _output) = process.pipes().context("piped")?;
    writeln!(input, "1")?;
    for missing in CAPABILITIES {
        let others: Vec<&str> = CAPABILITIES.into_iter().filter(|name| *name != missing).collect();
        let name = format!("CAP_{}", missing.to_uppercase());
        let check = as_nobody(&others).arg(&binary).arg("check").output()?;
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        let named = said.lines().any(|line| line.starts_with("FAIL") && line.contains(&name));
        ensure!(check.status.code() == Some(1) && named, "check does not name {name}:\n{said}");
        let mut run = as_nobody(&others);
        run.arg(&binary);
        let probe = cluster.start_probe_with(run, &[])?;
        probe.await_process_up(("instance_id", "seen")).with_context(|| format!("without {name}"))?;
        let log = std::fs::read_to_string(cluster.path("probe.log"))?;
        ensure!(log.contains(&format!("{name} is missing")), "the log does not name {name}:\n{log}");
    }
    Ok(())
}

/// Nothing is written anywhere: a root that cannot be written to is enough.
pub(crate) fn a_read_only_root(cluster: &Cluster) -> Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "sh",
        "-c",
        "mount -o remount,bind,ro / && ! touch /x 2>&1 && exec \"$@\"",
        "sh",
    ]);
    unshare.arg(cluster.binaries.probe());
    let probe = cluster.start_probe_with(unshare, &[])?;
    let agent = cluster.start_agent()?;
    probe.await_attached(&[agent.process.pid()])
}

/// In a container's pid namespace the kernel's numbers are not those of `/proc`: nothing is attached, and state is served.
pub(crate) fn another_pid_namespace(cluster: &Cluster) -> Result<()> {
    const SCRIPT: &str = "(echo 1; sleep 600) | HOOKED_ID=inside \"$1\" & shift; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT, "sh"]);
    unshare.arg(cluster.binaries.hooked()?).arg(cluster.binaries.probe());
    let probe = cluster.start_probe_with(unshare, &[])?;
    probe.await_process_up(("instance_id", "inside"))?;
    ensure!(probe.targets()?.iter().all(|target| target.state == "refused"), "{:?}", probe.targets()?);
    let log = std::fs::read_to_string(cluster.path("probe.log"))?;
    ensure!(log.contains("hostPID"), "the log does not say what to do:\n{log}");
    Ok(())
}

/// A copy that every account gets to, wherever this one was built.
fn for_everybody(cluster: &Cluster, binary: &Path) -> Result<PathBuf> {
    std::fs::set_permissions(&cluster.dir, std::fs::Permissions::from_mode(0o755))?;
    let copy = cluster.dir.join(binary.file_name().context("a name")?);
    std::fs::copy(binary, &copy)?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// The beginning of a command in an account without rights that has only these capabilities.
fn as_nobody(capabilities: &[&str]) -> Command {
    let given: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"]);
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        setpriv.arg(format!("{set}=-all{given}"));
    }
    setpriv
}

fn holds_exactly(pid: u32, account: &str) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("no {name} in {status}"))
    };
    ensure!(field("Uid")?.split_whitespace().all(|uid| uid == account), "it runs as {}", field("Uid")?);
    ensure!(field("NoNewPrivs")? == "1", "it may gain privileges");
    for (set, expected) in
        [("CapEff", NEEDED), ("CapPrm", NEEDED), ("CapBnd", NEEDED), ("CapInh", 0), ("CapAmb", 0)]
    {
        let held = u64::from_str_radix(field(set)?, 16)?;
        ensure!(held == expected, "{set} is {held:x} instead of {expected:x}");
    }
    Ok(())
}
