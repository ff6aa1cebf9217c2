//! An unrelated tracer sees the same sites.

use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use std::time::Duration;
use streamhouse_tests::{Cluster, Process, poll_until};

const LIMIT: Duration = Duration::from_secs(60);

/// bpftrace lists every site of the client; `str(arg0)` at `send` is the topic, and `arg5` at `flush` points to a trace id.
pub(crate) fn bpftrace_prints_the_topic(cluster: &Cluster) -> Result<()> {
    let binary = cluster.binaries.cli();
    let listing = Command::new("bpftrace").args(["-l", &format!("usdt:{}:*", binary.display())]).output();
    let listing =
        String::from_utf8(listing.context("bpftrace is not here; run `cargo xtask setup`")?.stdout)?;
    for site in ["send", "flush", "poll", "object"] {
        ensure!(
            listing.contains(&format!(":streamhouse:{site}")),
            "bpftrace does not list {site}:\n{listing}"
        );
    }

    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "seen-from-elsewhere", 1)?;
    let gate = cluster.path("gate");
    let mut produce = cluster.cli(&["produce", "seen-from-elsewhere", "--generate", "1000"]);
    let mut producer = Process::start("produce", produce.arg("--start-gate").arg(&gate))?;
    let program = format!(
        "BEGIN {{ printf(\"ready\\n\"); }} \
         usdt:{binary}:streamhouse:send {{ printf(\"%s %d\\n\", str(arg0), arg1); @records = sum(arg1); }} \
         usdt:{binary}:streamhouse:flush {{ printf(\"trace %r\\n\", buf(arg5, 16)); }}",
        binary = binary.display()
    );
    let output = cluster.path("bpftrace.out");
    let mut bpftrace = Command::new("bpftrace");
    // -p: this version attaches to semaphores of a process it is told.
    bpftrace
        .args(["-p", &producer.pid().to_string(), "-e", &program])
        .stdout(std::fs::File::create(&output)?);
    let mut bpftrace = Process::start("bpftrace", bpftrace.stderr(Stdio::null()))?;
    let printed = || -> Result<String> { Ok(std::fs::read_to_string(&output)?) };
    poll_until("bpftrace to attach", LIMIT, || {
        ensure!(printed()?.contains("ready"), "it has printed {:?}", printed()?);
        Ok(())
    })?;
    std::fs::write(&gate, "")?;
    producer.wait_success(LIMIT)?;
    bpftrace.signal(rustix::process::Signal::INT);
    bpftrace.wait(LIMIT)?;
    let printed = printed()?;
    ensure!(printed.contains("seen-from-elsewhere "), "the topic was not printed:\n{printed}");
    let traced =
        |line: &str| line.strip_prefix("trace ").is_some_and(|id| id.contains("\\x") && id.len() >= 16);
    ensure!(printed.lines().any(traced), "no batch had a trace id:\n{printed}");
    ensure!(printed.contains("@records: 1000"), "not every record was counted:\n{printed}");
    Ok(())
}
