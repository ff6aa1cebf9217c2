//! Durable means durable.

use anyhow::{Result, ensure};
use std::time::Duration;
use streamhouse_tests::{Cluster, Process, poll_until};

const LIMIT: Duration = Duration::from_secs(60);

/// The agent is killed (SIGKILL) under load and started again: every record that was acknowledged can be read, once.
pub(crate) fn acknowledged_records_survive_a_killed_agent(cluster: &Cluster) -> Result<()> {
    let mut agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "crash", 3)?;
    let mut command =
        cluster.cli(&["produce", "crash", "--rate", "100000", "--generate", "300000", "--report"]);
    let mut producer = Process::start("produce", command.arg(cluster.path("produce.json")))?;
    poll_until("the agent to have written", LIMIT, || {
        let written = written(cluster)?;
        ensure!(written > 20_000, "{written} records");
        Ok(())
    })?;
    agent.process.kill()?;
    let _agent = cluster.start_agent()?;
    // The producer finds the new agent and retries what was not acknowledged.
    producer.wait_success(LIMIT)?;
    let written = written(cluster)?;
    ensure!(written == 300_000, "{written} records are in the log, 300000 were acknowledged");
    let read = cluster.run_cli(&[
        "consume",
        "crash",
        "--group",
        "crash",
        "--max-records",
        "300000",
        "--idle-exit",
        "5",
    ])?;
    ensure!(read.lines().count() == 300_000, "{} records can be read", read.lines().count());
    Ok(())
}

fn written(cluster: &Cluster) -> Result<u64> {
    let json: serde_json::Value =
        serde_json::from_str(&cluster.run_cli(&["topic", "describe", "crash", "--json"])?)?;
    let partitions = json["partitions"].as_array().into_iter().flatten();
    Ok(partitions.filter_map(|partition| partition["high_watermark"].as_u64()).sum())
}
