//! What the probe counted is what happened, to the last record and bucket.

use anyhow::{Result, ensure};
use std::time::Duration;
use streamhouse_tests::{Cluster, ConsumeReport, Process, ProduceReport};

const TOPIC: &str = "exact";
const RECORDS: &str = "2000000";
const LIMIT: Duration = Duration::from_secs(300);

/// Two million records through producer, agent and consumer: counts and bytes of send, write and poll equal the load
/// generator's own record, and so does every latency bucket.
pub(crate) fn two_million_records(cluster: &Cluster) -> Result<()> {
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, TOPIC, 4)?;
    let probe = cluster.start_probe(&["--classic-buckets-per-octave", "8"])?;
    let gate = cluster.path("gate");
    let start = |name: &str, arguments: &[&str]| {
        let mut command = cluster.cli(arguments);
        command.arg("--start-gate").arg(&gate).arg("--report").arg(cluster.path(name));
        Process::start(name, &mut command)
    };
    let mut producer =
        start("produce", &["produce", TOPIC, "--generate", RECORDS, "--size", "100", "--keys", "1000"])?;
    let mut consumer =
        start("consume", &["consume", TOPIC, "--group", "exact", "--quiet", "--max-records", RECORDS])?;
    probe.await_attached(&[agent.process.pid(), producer.pid(), consumer.pid()])?;
    std::fs::write(&gate, "")?;
    producer.wait_success(LIMIT)?;
    consumer.wait_success(LIMIT)?;

    let produced = ProduceReport::read(&cluster.path("produce"))?;
    let consumed = ConsumeReport::read(&cluster.path("consume"))?;
    ensure!(produced.records.to_string() == RECORDS && produced.errors == 0, "the load failed: {produced:?}");
    let page = probe.scrape()?;
    for (metric, truth) in [
        ("streamhouse_producer_records_sent_total", produced.records),
        ("streamhouse_producer_bytes_sent_total", produced.bytes),
        ("streamhouse_agent_records_written_total", produced.records),
        ("streamhouse_agent_bytes_written_total", produced.bytes),
        ("streamhouse_consumer_records_consumed_total", consumed.records),
        ("streamhouse_consumer_bytes_consumed_total", consumed.bytes),
        ("streamhouse_consumer_poll_duration_seconds_count", consumed.polls),
        ("streamhouse_producer_send_duration_seconds_count", produced.records),
        ("streamhouse_producer_send_errors_total", 0),
    ] {
        let counted = page.sum(metric, &[("topic", TOPIC)]);
        ensure!(counted == truth as f64, "{metric}: the probe counted {counted}, the truth is {truth}");
    }
    ensure!(consumed.records == produced.records && consumed.bytes == produced.bytes, "not all was consumed");
    ensure!(page.sum("streamhouse_probe_refused_total", &[]) == 0.0, "the probe refused hits");

    let sum = page.sum("streamhouse_producer_send_duration_seconds_sum", &[("topic", TOPIC)]);
    let truth = produced.latency_sum_ns as f64 / 1e9;
    ensure!((sum - truth).abs() <= truth * 1e-12, "sum of latencies: {sum}, the truth is {truth}");

    let cumulative = page.buckets("streamhouse_producer_send_duration_seconds", &[("topic", TOPIC)]);
    let mut below = 0.0;
    let mut filled = 0;
    for (index, (bound, count)) in cumulative.iter().enumerate() {
        let expected = if index == 209 { f64::INFINITY } else { 2f64.powf(index as f64 / 8.0 - 20.0) };
        ensure!(
            *bound == expected || (bound / expected - 1.0).abs() < 1e-12,
            "bound {index} is {bound}, should be {expected}"
        );
        let truth = produced.latency_buckets.get(&index).copied().unwrap_or(0);
        ensure!(
            count - below == truth as f64,
            "bucket {index}: {} records, the truth is {truth}",
            count - below
        );
        filled += usize::from(truth > 0);
        below = *count;
    }
    ensure!(cumulative.len() == 210, "{} buckets are served, not all 210", cumulative.len());
    ensure!(filled > 1, "all latencies fell into one bucket: the comparison shows nothing");
    Ok(())
}
