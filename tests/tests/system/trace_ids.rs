//! One trace from a producer's batch to the agent's object, in log lines and events, as JSON.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use streamhouse_tests::s3::Faults;
use streamhouse_tests::{Cluster, Process, S3Server, poll_until};

const LIMIT: Duration = Duration::from_secs(60);

/// What one record leaves behind has one trace id, on both sides; and when its flush fails, the log lines have it.
pub(crate) fn from_producer_to_put(cluster: &Cluster) -> Result<()> {
    let mut cluster = cluster.clone();
    let (objects, log) = (cluster.path("s3"), cluster.path("s3.log"));
    let mut s3 = S3Server::start(&cluster.binaries.s3_server()?, &objects, 1, &log)?;
    cluster.s3 = Some(s3.address());
    let filter = "info,streamhouse=trace,streamhouse_agent=debug,streamhouse_client=warn";
    let variables = [("STREAMHOUSE_LOG", filter), ("STREAMHOUSE_LOG_FORMAT", "json")];
    cluster.environment = variables.map(|(name, value)| (name, value.to_owned())).to_vec();
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "orders", 1)?;

    let sent = produce(&cluster, "sent", "30s", true)?;
    let flushed = events(&sent, "streamhouse::flush", |_| true);
    ensure!(flushed.len() == 1, "one batch was flushed: {flushed:?}");
    let trace = flushed.first().context("just seen")?;
    ensure!(trace.len() == 32, "{trace} is no trace id");
    ensure!(events(&sent, "streamhouse::send", |_| true) == flushed, "sent and flushed are one batch");
    poll_until("the agent's lines", LIMIT, || {
        let lines = lines(&cluster.path("agent.log"))?;
        for target in ["streamhouse::write", "streamhouse::commit"] {
            ensure!(events(&lines, target, |_| true).contains(trace), "{target} is not of trace {trace}");
        }
        let requests = events(&lines, "streamhouse::request", |line| line["method"] == "Produce");
        ensure!(requests.contains(trace), "the request is not of trace {trace}");
        let puts = events(&lines, "streamhouse::object", |line| line["operation"] == "put");
        ensure!(puts.contains(trace), "the put is not of trace {trace}");
        Ok(())
    })?;

    // Every log line of what fails shows its trace too, on both sides, also where only warnings are logged.
    s3.set(&Faults { error_percent: 100, ..Faults::default() })?;
    cluster.environment[0].1 = "warn".to_owned();
    let failed = produce(&cluster, "failed", "10s", false)?;
    let of_line = |lines: &[Value], message: &str| -> BTreeSet<String> {
        let those =
            lines.iter().filter(|line| line["message"].as_str().is_some_and(|said| said.contains(message)));
        those.map(|line| line["span"]["trace_id"].as_str().unwrap_or("none").to_owned()).collect()
    };
    let told = of_line(&failed, "a batch failed");
    ensure!(told.len() == 1 && !told.contains("none"), "the producer's line is of one trace: {told:?}");
    // The agent gives the flush up later than the producer does its batch.
    poll_until("the agent's line", LIMIT, || {
        let agents = of_line(&lines(&cluster.path("agent.log"))?, "a flush failed");
        ensure!(agents.is_superset(&told) && !agents.contains("none"), "{told:?} is not among {agents:?}");
        Ok(())
    })
}

/// Sends one record, which may take this long; gives the producer's log.
fn produce(cluster: &Cluster, name: &str, limit: &str, works: bool) -> Result<Vec<Value>> {
    let path = cluster.path(&format!("{name}.log"));
    let mut command = cluster.cli(&["produce", "orders", "--generate", "1", "--delivery-timeout", limit]);
    let mut producer = Process::start("produce", command.stderr(std::fs::File::create(&path)?))?;
    ensure!(producer.wait(LIMIT)?.success() == works, "{name}: {}", std::fs::read_to_string(&path)?);
    lines(&path)
}

/// The lines that are JSON: a command tells its outcome in words, too.
fn lines(log: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(log)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The trace ids of events.
fn events(lines: &[Value], target: &str, wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let those = lines.iter().filter(|line| line["target"] == target && wanted(line));
    those.map(|line| line["trace_id"].as_str().unwrap_or_default().to_owned()).collect()
}
