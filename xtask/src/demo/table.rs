//! The live table: what the probe sees, once a second.

use super::{GROUP, TOPIC};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Instant;
use streamhouse_tests::{Cluster, Exposition, Probe};

/// A line of the table: what it is called, its records, its bytes, its durations.
const ROWS: [(&str, &str, &str, &str); 3] = [
    (
        "send",
        "streamhouse_producer_records_sent_total",
        "streamhouse_producer_bytes_sent_total",
        "streamhouse_producer_send_duration_seconds",
    ),
    (
        "write",
        "streamhouse_agent_records_written_total",
        "streamhouse_agent_bytes_written_total",
        "streamhouse_agent_write_latency_seconds",
    ),
    (
        "poll",
        "streamhouse_consumer_records_consumed_total",
        "streamhouse_consumer_bytes_consumed_total",
        "streamhouse_consumer_poll_duration_seconds",
    ),
];

/// Redraws itself in place on a terminal, appends elsewhere.
pub(super) struct Table<'a> {
    cluster: &'a Cluster,
    source: Option<(&'a Probe, Exposition)>,
    start: Instant,
    last: Instant,
    last_written: u64,
    lines_drawn: usize,
}

impl<'a> Table<'a> {
    /// Takes the first reading.
    pub(super) fn new(cluster: &'a Cluster, probe: Option<&'a Probe>) -> Result<Table<'a>> {
        let source = probe.map(|probe| Ok::<_, anyhow::Error>((probe, probe.scrape()?))).transpose()?;
        let now = Instant::now();
        Ok(Table { cluster, source, start: now, last: now, last_written: 0, lines_drawn: 0 })
    }

    /// Takes a reading and draws.
    pub(super) fn show(&mut self) -> Result<()> {
        let seconds = self.last.elapsed().as_secs_f64().max(0.001);
        self.last = Instant::now();
        let mut text = String::new();
        match &mut self.source {
            Some((probe, before)) => {
                let page = probe.scrape()?;
                writeln!(text, "{:>4} s  http://{}/metrics", self.start.elapsed().as_secs(), probe.http)?;
                observed(&mut text, &page, before, seconds)?;
                *before = page;
            }
            None => {
                let lag = lag(self.cluster)?;
                let rate = (lag.written - self.last_written) as f64 / seconds;
                self.last_written = lag.written;
                let elapsed = self.start.elapsed().as_secs();
                writeln!(
                    text,
                    "{elapsed:>4} s  {rate:>10.0} records/s written  lag {} records",
                    lag.records
                )?;
            }
        }
        let drawn = if std::io::stdout().is_terminal() { self.lines_drawn } else { 0 };
        if drawn > 0 {
            // Up over the last table, and clear to the end of the screen.
            print!("\x1b[{drawn}A\x1b[J");
        }
        print!("{text}");
        self.lines_drawn = text.lines().count();
        Ok(())
    }
}

fn observed(text: &mut String, page: &Exposition, before: &Exposition, seconds: f64) -> Result<()> {
    writeln!(text, "       {:>12}{:>9}{:>11}{:>11}{:>14}", "records/s", "MB/s", "p50", "p99", "records")?;
    // The probe sees every process of the machine; the table is about the demo's.
    let ours = &[("topic", TOPIC)];
    for (name, records, bytes, durations) in ROWS {
        let total = page.sum(records, ours);
        let rate = (total - before.sum(records, ours)) / seconds;
        let megabytes = (page.sum(bytes, ours) - before.sum(bytes, ours)) / seconds / 1e6;
        let p50 = milliseconds(page.quantile_since(before, durations, ours, 0.5));
        let p99 = milliseconds(page.quantile_since(before, durations, ours, 0.99));
        writeln!(text, "{name:<7}{rate:>12.0}{megabytes:>9.2}{p50:>11}{p99:>11}{total:>14}")?;
    }
    let lag_seconds = page.select("streamhouse_consumer_lag_seconds", ours).map(|sample| sample.value);
    writeln!(
        text,
        "lag {} records, {:.1} s; leases {}, renewals {}; pending {}; connections {}",
        page.sum("streamhouse_consumer_lag_records", ours),
        lag_seconds.fold(0.0, f64::max),
        page.sum("streamhouse_agent_active_partitions", &[]),
        page.sum("streamhouse_agent_lease_renewals_total", &[]),
        page.sum("streamhouse_producer_pending_records", ours),
        page.sum("streamhouse_agent_active_connections", &[]),
    )?;
    Ok(())
}

/// The upper bound of the quantile's bucket.
fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.2} ms", seconds * 1e3))
}

/// The demo group's lag, as the command line tells it.
pub(super) struct Lag {
    /// Records written and not committed by the group.
    pub(super) records: u64,
    /// Records written.
    pub(super) written: u64,
}

/// Asks for it.
pub(super) fn lag(cluster: &Cluster) -> Result<Lag> {
    let json: Value = serde_json::from_str(&cluster.run_cli(&["lag", "--group", GROUP, "--json"])?)?;
    let partitions = json.as_array().context("lag --json is not a list")?;
    let sum = |field: &str| partitions.iter().filter_map(|partition| partition[field].as_u64()).sum();
    Ok(Lag { records: sum("lag_records"), written: sum("high_watermark") })
}
