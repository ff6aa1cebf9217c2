//! The live table: what the probe sees, once a second.

use super::{AGENT, CONSUMER, GROUP, PRODUCER, TOPIC, instance};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Instant;
use streamhouse_tests::{Cluster, Exposition, Probe};

/// A line of the table: what it is called, which process it is of, its records, its bytes, its durations.
const ROWS: [(&str, &str, &str, &str, &str); 3] = [
    (
        "send",
        PRODUCER,
        "streamhouse_producer_records_sent_total",
        "streamhouse_producer_bytes_sent_total",
        "streamhouse_producer_send_duration_seconds",
    ),
    (
        "write",
        AGENT,
        "streamhouse_agent_records_written_total",
        "streamhouse_agent_bytes_written_total",
        "streamhouse_agent_write_latency_seconds",
    ),
    (
        "poll",
        CONSUMER,
        "streamhouse_consumer_records_consumed_total",
        "streamhouse_consumer_bytes_consumed_total",
        "streamhouse_consumer_poll_duration_seconds",
    ),
];

/// The probe and what it said.
struct Source<'a> {
    probe: &'a Probe,
    first: Exposition,
    last: Exposition,
}

/// Redraws itself in place on a terminal, appends elsewhere.
pub(super) struct Table<'a> {
    cluster: &'a Cluster,
    source: Option<Source<'a>>,
    start: Instant,
    last: Instant,
    last_written: u64,
    lines_drawn: usize,
}

impl<'a> Table<'a> {
    /// Takes the first reading.
    pub(super) fn new(cluster: &'a Cluster, probe: Option<&'a Probe>) -> Result<Table<'a>> {
        let read = |probe: &'a Probe| -> Result<Source<'a>> {
            let first = probe.scrape()?;
            Ok(Source { probe, last: first.clone(), first })
        };
        let source = probe.map(read).transpose()?;
        let now = Instant::now();
        Ok(Table { cluster, source, start: now, last: now, last_written: 0, lines_drawn: 0 })
    }

    /// Takes a reading and draws what happened since the last.
    pub(super) fn show(&mut self) -> Result<()> {
        let seconds = self.last.elapsed().as_secs_f64().max(0.001);
        self.last = Instant::now();
        let elapsed = self.start.elapsed().as_secs();
        let mut text = String::new();
        match &mut self.source {
            Some(source) => {
                let page = source.probe.scrape()?;
                writeln!(text, "{elapsed:>4} s  http://{}/metrics", source.probe.http)?;
                observed(&mut text, &page, &source.last, seconds)?;
                source.last = page;
            }
            None => {
                let lag = lag(self.cluster)?;
                let rate = (lag.written - self.last_written) as f64 / seconds;
                self.last_written = lag.written;
                let lag = lag.records;
                writeln!(text, "{elapsed:>4} s  {rate:>10.0} records/s written  lag records {lag}")?;
            }
        }
        self.draw(&text);
        Ok(())
    }

    /// Takes the last reading and draws the whole run; `seconds` is how long records were produced.
    pub(super) fn show_total(&mut self, seconds: f64) -> Result<()> {
        let mut text = String::new();
        match &self.source {
            Some(source) => {
                writeln!(text, "the whole run, {seconds:.1} s")?;
                observed(&mut text, &source.probe.scrape()?, &source.first, seconds)?;
            }
            None => {
                let lag = lag(self.cluster)?;
                let (written, rate) = (lag.written, lag.written as f64 / seconds);
                writeln!(
                    text,
                    "the whole run, {seconds:.1} s: records {written}, {rate:.0} records/s written"
                )?;
            }
        }
        self.draw(&text);
        Ok(())
    }

    /// Leaves the table that is on the screen where it is.
    pub(super) fn keep(&mut self) {
        self.lines_drawn = 0;
    }

    fn draw(&mut self, text: &str) {
        let drawn = if std::io::stdout().is_terminal() { self.lines_drawn } else { 0 };
        if drawn > 0 {
            // Up over the last table, and clear to the end of the screen.
            print!("\x1b[{drawn}A\x1b[J");
        }
        print!("{text}");
        self.lines_drawn = text.lines().count();
    }
}

fn observed(text: &mut String, page: &Exposition, before: &Exposition, seconds: f64) -> Result<()> {
    writeln!(text, "       {:>12}{:>9}{:>11}{:>11}{:>14}", "records/s", "MB/s", "p50", "p99", "records")?;
    for (name, of, records, bytes, durations) in ROWS {
        let id = instance(of);
        let ours = &[("instance_id", id.as_str())];
        let total = page.sum(records, ours);
        let rate = (total - before.sum(records, ours)) / seconds;
        let megabytes = (page.sum(bytes, ours) - before.sum(bytes, ours)) / seconds / 1e6;
        let p50 = milliseconds(page.quantile_since(before, durations, ours, 0.5));
        let p99 = milliseconds(page.quantile_since(before, durations, ours, 0.99));
        writeln!(text, "{name:<7}{rate:>12.0}{megabytes:>9.2}{p50:>11}{p99:>11}{total:>14}")?;
    }
    let sum = |of: &str, metric: &str| page.sum(metric, &[("instance_id", &instance(of))]);
    let consumer = instance(CONSUMER);
    let consumer = &[("instance_id", consumer.as_str())];
    let lag_seconds = page.select("streamhouse_consumer_lag_seconds", consumer).map(|sample| sample.value);
    writeln!(
        text,
        "lag records {}, seconds {:.1}; leases {}, renewals {}; pending {}; connections {}",
        sum(CONSUMER, "streamhouse_consumer_lag_records"),
        lag_seconds.fold(0.0, f64::max),
        sum(AGENT, "streamhouse_agent_active_partitions"),
        sum(AGENT, "streamhouse_agent_lease_renewals_total"),
        sum(PRODUCER, "streamhouse_producer_pending_records"),
        sum(AGENT, "streamhouse_agent_active_connections"),
    )?;
    Ok(())
}

/// The upper bound of the quantile's bucket.
fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.2} ms", seconds * 1e3))
}

/// How far the demo's group is, as the command line tells it.
pub(super) struct Lag {
    /// Records written and not committed by the group.
    pub(super) records: u64,
    /// Records written.
    pub(super) written: u64,
}

/// Asks for it.
pub(super) fn lag(cluster: &Cluster) -> Result<Lag> {
    let ask = |arguments: &[&str]| -> Result<Value> {
        Ok(serde_json::from_str(&cluster.run_cli(&[arguments, &["--json"]].concat())?)?)
    };
    // A group is listed with the partitions it has committed on, and not at all before its first commit: what is
    // written is the topic's to tell. It is asked last, so that it is never less than what is committed.
    let committed = sum(&ask(&["lag"])?, |row| row["group"] == GROUP, "committed")?;
    let written = sum(&ask(&["topic", "describe", TOPIC])?["partitions"], |_| true, "high_watermark")?;
    Ok(Lag { records: written - committed, written })
}

fn sum(rows: &Value, wanted: impl Fn(&Value) -> bool, field: &str) -> Result<u64> {
    let rows = rows.as_array().with_context(|| format!("no list of rows with {field}"))?;
    Ok(rows.iter().filter(|row| wanted(row)).filter_map(|row| row[field].as_u64()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_about_the_demo_alone() {
        let mut page = String::new();
        for (ids, number) in [(instance(""), 3), ("other-".to_owned(), 40)] {
            for (_, of, records, bytes, _) in ROWS {
                let labels = format!("{{instance_id=\"{ids}{of}\",topic=\"{TOPIC}\",partition=\"0\"}}");
                page += &format!("{records}{labels} {number}\n{bytes}{labels} {number}\n");
            }
            for (of, metric) in [
                (CONSUMER, "streamhouse_consumer_lag_records"),
                (CONSUMER, "streamhouse_consumer_lag_seconds"),
                (AGENT, "streamhouse_agent_active_partitions"),
                (AGENT, "streamhouse_agent_lease_renewals_total"),
                (PRODUCER, "streamhouse_producer_pending_records"),
                (AGENT, "streamhouse_agent_active_connections"),
            ] {
                page += &format!("{metric}{{instance_id=\"{ids}{of}\",topic=\"{TOPIC}\"}} {number}\n");
            }
        }
        let page = Exposition::parse(&page).unwrap();
        let mut text = String::new();
        observed(&mut text, &page, &Exposition::default(), 1.0).unwrap();
        let rows: Vec<_> = text.lines().skip(1).take(3).map(|row| row.split_whitespace().last()).collect();
        assert_eq!(rows, [Some("3"); 3], "{text}");
        assert!(
            text.ends_with("lag records 3, seconds 3.0; leases 3, renewals 3; pending 3; connections 3\n"),
            "{text}"
        );
    }
}
