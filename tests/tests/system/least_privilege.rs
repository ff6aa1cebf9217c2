//! The probe in an account of its own, with four capabilities and nothing else.

use anyhow::{Context, Result, ensure};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;
use streamhouse_tests::{Cluster, Process};

const LIMIT: Duration = Duration::from_secs(120);
const TOPIC: &str = "privileges";
const RECORDS: &str = "20000";
/// The account that owns nothing.
const NOBODY: &str = "65534";
/// CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON and CAP_BPF, by their bits.
const NEEDED: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;

/// In an account without rights, with exactly these capabilities, it counts exactly what processes of another account do.
pub(crate) fn four_capabilities(cluster: &Cluster) -> Result<()> {
    // The account must get to the binary, wherever this one was built.
    std::fs::set_permissions(&cluster.dir, std::fs::Permissions::from_mode(0o755))?;
    let binary = cluster.path("streamhouse-probe");
    std::fs::copy(cluster.binaries.probe(), &binary)?;
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755))?;
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"]);
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        setpriv.arg(format!("{set}=-all,+dac_read_search,+sys_ptrace,+perfmon,+bpf"));
    }
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
    ensure!(
        page.sum("streamhouse_process_up", &[("role", "agent")]) >= 1.0,
        "the agent's state page was not read"
    );
    Ok(())
}

/// Started with every capability, it keeps the four.
pub(crate) fn root_is_given_up(cluster: &Cluster) -> Result<()> {
    let probe = cluster.start_probe(&[])?;
    holds_exactly(probe.process.pid(), "0")
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
