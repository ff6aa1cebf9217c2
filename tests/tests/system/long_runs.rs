//! Polling for longer than any timeout inside.

use anyhow::{Result, ensure};
use std::time::Duration;
use streamhouse_tests::{Cluster, ConsumeReport, Process, ProduceReport};

const LIMIT: Duration = Duration::from_secs(120);

/// For over a minute, consumers with and without commits, on a busy and on an idle topic: none stalls, each gets
/// everything, and the idle ones get the record that comes at the end.
pub(crate) fn polling_for_more_than_a_minute(cluster: &Cluster) -> Result<()> {
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "busy", 3)?;
    cluster.create_topic(&agent, "idle", 3)?;
    let consume = |name: &'static str, arguments: &[&str]| {
        let mut command = cluster.cli(arguments);
        Process::start(name, command.args(["--quiet", "--group", name, "--report"]).arg(cluster.path(name)))
    };
    // 65 s at 1000 records/s.
    let mut busy = [
        consume("busy-commit", &["consume", "busy", "--max-records", "65000"])?,
        consume("busy-none", &["consume", "busy", "--max-records", "65000", "--no-commit"])?,
    ];
    let mut idle = [
        consume("idle-commit", &["consume", "idle", "--max-records", "1"])?,
        consume("idle-none", &["consume", "idle", "--max-records", "1", "--no-commit"])?,
    ];
    let mut produce = cluster.cli(&["produce", "busy", "--generate", "65000", "--rate", "1000", "--report"]);
    Process::start("produce", produce.arg(cluster.path("produce")))?.wait_success(LIMIT)?;
    let produced = ProduceReport::read(&cluster.path("produce"))?;
    ensure!(produced.seconds > 60.0, "the run was too short to show anything: {produced:?}");
    for consumer in &mut busy {
        consumer.wait_success(LIMIT)?;
    }
    for name in ["busy-commit", "busy-none"] {
        let consumed = ConsumeReport::read(&cluster.path(name))?;
        ensure!(consumed.records == 65_000 && consumed.bytes == produced.bytes, "{name}: {consumed:?}");
    }
    for consumer in &mut idle {
        ensure!(consumer.exited()?.is_none(), "an idle consumer ended by itself");
    }
    cluster.run_cli(&["produce", "idle", "--generate", "1"])?;
    for consumer in &mut idle {
        consumer.wait_success(LIMIT)?;
    }
    let committed = |group: &str| -> Result<u64> {
        let json: serde_json::Value =
            serde_json::from_str(&cluster.run_cli(&["lag", "--group", group, "--json"])?)?;
        Ok(json
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|partition| partition["lag_records"].as_u64())
            .sum())
    };
    ensure!(
        committed("busy-commit")? == 0,
        "the consumer that commits has lag {}",
        committed("busy-commit")?
    );
    Ok(())
}
