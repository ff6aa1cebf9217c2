//! `streamhouse lag`: how far groups are behind.

use crate::output::{Output, Table, or_dash};
use crate::places::Places;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use streamhouse_metadata::GroupOffset;

/// Whose lag to show.
#[derive(Debug, Args)]
pub(crate) struct Lag {
    /// Only this group's; else every group's.
    #[arg(long)]
    group: Option<String>,
}

/// A group on one partition.
#[derive(Debug, Serialize)]
pub(crate) struct LagRow {
    group: String,
    topic: String,
    partition: u32,
    /// The next offset the group will read; null when it has committed none.
    committed: Option<u64>,
    log_start: u64,
    high_watermark: u64,
    lag_records: u64,
    lag_seconds: f64,
}

impl LagRow {
    /// A group's row.
    pub(crate) fn new(group: &str, offset: &GroupOffset) -> LagRow {
        LagRow {
            group: group.to_owned(),
            topic: offset.partition.topic.to_string(),
            partition: offset.partition.partition,
            committed: offset.committed,
            log_start: offset.watermarks.log_start,
            high_watermark: offset.watermarks.high_watermark,
            lag_records: offset.lag_records,
            lag_seconds: offset.lag.as_secs_f64(),
        }
    }
}

/// Shows it.
pub(crate) async fn execute(command: &Lag, places: &Places, output: Output) -> Result<()> {
    let admin = places.viewer().await?;
    let groups = match &command.group {
        Some(group) => vec![group.clone()],
        None => admin.groups().await?.iter().map(|group| group.id.to_string()).collect(),
    };
    let mut rows = Vec::new();
    for group in groups {
        let offsets = admin.describe_group(&group).await?;
        rows.extend(offsets.iter().map(|offset| LagRow::new(&group, offset)));
    }
    output.show(&rows, |rows| table(rows))
}

/// A table of groups' positions.
pub(crate) fn table(rows: &[LagRow]) -> String {
    let mut table = Table::new([
        "GROUP",
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "HIGH WATERMARK",
        "LAG RECORDS",
        "LAG SECONDS",
    ]);
    for row in rows {
        table.row([
            row.group.clone(),
            row.topic.clone(),
            row.partition.to_string(),
            or_dash(row.committed),
            row.high_watermark.to_string(),
            row.lag_records.to_string(),
            format!("{:.3}", row.lag_seconds),
        ]);
    }
    table.text()
}
