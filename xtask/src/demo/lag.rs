//! How far the demo's group is, without the probe.

use super::{GROUP, TOPIC};
use anyhow::{Context, Result};
use serde_json::Value;
use streamhouse_tests::Cluster;

/// How far the demo's group is, as the command line tells it.
pub(super) struct Lag {
    /// Records written and not committed by the group.
    pub(super) records: u64,
    /// Records written.
    pub(super) written: u64,
}

impl Lag {
    pub(super) fn print(&self) {
        println!("records written {}, lag records {}", self.written, self.records);
    }
}

/// Asks for it.
pub(super) fn ask(cluster: &Cluster) -> Result<Lag> {
    let say = |arguments: &[&str]| -> Result<Value> {
        Ok(serde_json::from_str(&cluster.run_cli(&[arguments, &["--json"]].concat())?)?)
    };
    // A group is listed with the partitions it has committed on, and not at all before its first commit: what is
    // written is the topic's to tell. It is asked last, so that it is never less than what is committed.
    let committed = sum(&say(&["lag"])?, |row| row["group"] == GROUP, "committed")?;
    let written = sum(&say(&["topic", "describe", TOPIC])?["partitions"], |_| true, "high_watermark")?;
    Ok(Lag { records: written - committed, written })
}

fn sum(rows: &Value, wanted: impl Fn(&Value) -> bool, field: &str) -> Result<u64> {
    let rows = rows.as_array().with_context(|| format!("no list of rows with {field}"))?;
    Ok(rows.iter().filter(|row| wanted(row)).filter_map(|row| row[field].as_u64()).sum())
}
