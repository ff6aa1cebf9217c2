//! Compares the probe's counts with the load generator's own record, and has the page checked by Prometheus' tool.

use super::{AGENT, CONSUMER, PRODUCER, instance};
use crate::setup::promtool;
use crate::shell;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::process::Stdio;
use streamhouse_tests::{Cluster, ConsumeReport, Probe, ProduceReport};

/// Any difference is an error.
pub(super) fn run(cluster: &Cluster, probe: &Probe) -> Result<()> {
    let produced = ProduceReport::read(&cluster.path("produce.json"))?;
    let consumed = ConsumeReport::read(&cluster.path("consume.json"))?;
    let text = probe.page()?;
    let page = streamhouse_tests::Exposition::parse(&text)?;
    let rows = [
        ("send records", PRODUCER, "streamhouse_producer_records_sent_total", produced.records),
        ("send bytes", PRODUCER, "streamhouse_producer_bytes_sent_total", produced.bytes),
        ("send latencies", PRODUCER, "streamhouse_producer_send_duration_seconds_count", produced.records),
        ("send errors", PRODUCER, "streamhouse_producer_send_errors_total", produced.errors),
        ("write records", AGENT, "streamhouse_agent_records_written_total", produced.records),
        ("write bytes", AGENT, "streamhouse_agent_bytes_written_total", produced.bytes),
        ("poll records", CONSUMER, "streamhouse_consumer_records_consumed_total", consumed.records),
        ("poll bytes", CONSUMER, "streamhouse_consumer_bytes_consumed_total", consumed.bytes),
    ];
    println!("\n{:<16}{:>18}{:>18}", "", "probe", "load generator");
    let mut differences = 0;
    for (what, of, metric, truth) in rows {
        let counted = page.sum(metric, &[("instance_id", &instance(of))]);
        let mark = if counted == truth as f64 { "" } else { "  DIFFERS" };
        differences += usize::from(!mark.is_empty());
        println!("{what:<16}{counted:>18}{truth:>18}{mark}");
    }
    promtool_accepts(&text)?;
    ensure!(
        differences == 0,
        "the probe's counts and the load generator's differ in {differences} of {} lines",
        rows.len()
    );
    println!("the probe and the load generator agree, and promtool accepts the page");
    Ok(())
}

fn promtool_accepts(page: &str) -> Result<()> {
    let promtool = promtool().context("promtool is not here; run `cargo xtask setup`")?;
    let mut check = shell::command(promtool, &["check", "metrics"]).stdin(Stdio::piped()).spawn()?;
    check.stdin.take().context("promtool has no standard input")?.write_all(page.as_bytes())?;
    let status = check.wait()?;
    ensure!(status.success(), "promtool refuses the page: {status}");
    Ok(())
}
