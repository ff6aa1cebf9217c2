//! `streamhouse topic`: create, list, describe, set-retention, delete.

use crate::output::{Output, Table, or_dash};
use crate::parse::{self, Limit};
use crate::places::Places;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::time::Duration;
use streamhouse_client::{Admin, Retention, TopicDescription};
use streamhouse_core::{AsTyped, Counted};

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create a topic.
    Create {
        /// Its name: 1 to 249 characters out of a-z, A-Z, 0-9, '.', '_' and '-'.
        name: String,
        /// How many partitions it has; cannot be changed later.
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: u32,
        #[command(flatten)]
        keep: Keep,
    },
    /// Change how long a topic's records are kept; what is not given stays as it is.
    SetRetention {
        /// The topic.
        name: String,
        #[command(flatten)]
        keep: Keep,
    },
    /// Remove a topic with all its records.
    Delete {
        /// The topic.
        name: String,
        /// Do it; else say what would be lost.
        #[arg(long)]
        yes: bool,
    },
    /// List all topics.
    List,
    /// Show a topic's retention and partitions: where they begin and end, and which agent writes them.
    Describe {
        /// The topic.
        name: String,
    },
}

/// How long records are kept.
#[derive(Debug, Args)]
pub(crate) struct Keep {
    /// Remove records this long after they were committed, such as 7d; none keeps them for ever.
    #[arg(long, value_name = "TIME|none", value_parser = parse::retention_age)]
    retention: Option<Limit<Duration>>,
    /// Remove a partition's oldest records while it has more bytes than this, such as 1GiB; none keeps all.
    #[arg(long, value_name = "BYTES|none", value_parser = parse::retention_bytes)]
    retention_bytes: Option<Limit<u64>>,
}

impl Keep {
    /// With what was given instead of what is.
    fn over(&self, now: Retention) -> Retention {
        Retention {
            age: self.retention.map_or(now.age, |Limit(age)| age),
            bytes: self.retention_bytes.map_or(now.bytes, |Limit(bytes)| bytes),
        }
    }
}

#[derive(Debug, Serialize)]
struct TopicRow {
    name: String,
    partitions: u32,
    created_ms: i64,
    /// Null keeps records for ever.
    retention_ms: Option<u64>,
    /// Of each partition; null keeps all.
    retention_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Deleted {
    name: String,
    partitions: u32,
    records: u64,
}

impl Deleted {
    fn of(described: &TopicDescription) -> Deleted {
        let records = described
            .partitions
            .iter()
            .map(|info| info.watermarks.high_watermark - info.watermarks.log_start);
        let TopicDescription { topic, .. } = described;
        Deleted { name: topic.name.to_string(), partitions: topic.partitions, records: records.sum() }
    }
}

#[derive(Debug, Serialize)]
struct Described {
    name: String,
    created_ms: i64,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    partitions: Vec<PartitionRow>,
}

#[derive(Debug, Serialize)]
struct PartitionRow {
    partition: u32,
    log_start: u64,
    high_watermark: u64,
    /// The agent that holds the lease; null when none does.
    agent: Option<String>,
    address: Option<String>,
    epoch: Option<u64>,
}

/// Does it.
pub(crate) async fn execute(command: Topic, places: &Places, output: Output) -> Result<()> {
    match command {
        Topic::Create { name, partitions, keep } => {
            let admin = Admin::new(places.metadata_or_new().await?);
            let created = TopicRow::from(
                &admin.create_topic(&name, partitions, keep.over(Retention::default())).await?,
            );
            output.show(&created, |topic| {
                format!("created topic {} with {}", topic.name, Counted(topic.partitions.into(), "partition"))
            })
        }
        Topic::SetRetention { name, keep } => {
            let admin = places.admin().await?;
            let now = admin.describe_topic(&name).await?.topic.retention;
            let set = TopicRow::from(&admin.set_retention(&name, keep.over(now)).await?);
            output.show(&set, |topic| {
                format!("topic {} {}", topic.name, kept(topic.retention_ms, topic.retention_bytes))
            })
        }
        Topic::Delete { name, yes } => {
            let admin = places.admin().await?;
            let deleted = Deleted::of(&admin.describe_topic(&name).await?);
            let Deleted { partitions, records, .. } = &deleted;
            let (partitions, records) =
                (Counted(u64::from(*partitions), "partition"), Counted(*records, "record"));
            if !yes {
                bail!(
                    "topic {name} has {partitions} with {records}, which cannot be had back; add --yes to remove it"
                );
            }
            admin.delete_topic(&name).await?;
            output.show(&deleted, |_| format!("deleted topic {name} with {partitions} and {records}"))
        }
        Topic::List => {
            let topics = places.viewer().await?.topics().await?;
            let rows: Vec<TopicRow> = topics.iter().map(TopicRow::from).collect();
            output.show(&rows, |rows| topics_table(rows))
        }
        Topic::Describe { name } => {
            let described = Described::from(places.viewer().await?.describe_topic(&name).await?);
            output.show(&described, |described| {
                let kept = kept(described.retention_ms, described.retention_bytes);
                format!("{}topic {} {kept}\n", partitions_table(described), described.name)
            })
        }
    }
}

/// How long records are kept, as the rest of a sentence about their topic.
fn kept(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> String {
    let age = retention_ms.map(|ms| AsTyped(Duration::from_millis(ms)).to_string());
    match (age, retention_bytes) {
        (None, None) => "keeps records for ever".to_owned(),
        (Some(age), None) => format!("keeps records for {age}"),
        (None, Some(bytes)) => format!("keeps {bytes} bytes of each partition"),
        (Some(age), Some(bytes)) => format!("keeps records for {age}, and {bytes} bytes of each partition"),
    }
}

fn milliseconds(age: Option<Duration>) -> Option<u64> {
    age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn topics_table(topics: &[TopicRow]) -> String {
    let mut table = Table::new(["TOPIC", "PARTITIONS"]);
    for topic in topics {
        table.row([topic.name.clone(), topic.partitions.to_string()]);
    }
    table.text()
}

fn partitions_table(described: &Described) -> String {
    let mut table =
        Table::new(["TOPIC", "PARTITION", "LOG START", "HIGH WATERMARK", "AGENT", "ADDRESS", "EPOCH"]);
    for row in &described.partitions {
        table.row([
            described.name.clone(),
            row.partition.to_string(),
            row.log_start.to_string(),
            row.high_watermark.to_string(),
            or_dash(row.agent.as_ref()),
            or_dash(row.address.as_ref()),
            or_dash(row.epoch),
        ]);
    }
    table.text()
}

impl From<&streamhouse_metadata::Topic> for TopicRow {
    fn from(topic: &streamhouse_metadata::Topic) -> Self {
        TopicRow {
            name: topic.name.to_string(),
            partitions: topic.partitions,
            created_ms: topic.created_ms,
            retention_ms: milliseconds(topic.retention.age),
            retention_bytes: topic.retention.bytes,
        }
    }
}

impl From<TopicDescription> for Described {
    fn from(description: TopicDescription) -> Self {
        let row = |info: streamhouse_metadata::PartitionInfo| PartitionRow {
            partition: info.partition,
            log_start: info.watermarks.log_start,
            high_watermark: info.watermarks.high_watermark,
            agent: info.holder.as_ref().map(|holder| holder.agent.to_string()),
            address: info.holder.as_ref().map(|holder| holder.address.clone()),
            epoch: info.holder.as_ref().map(|holder| holder.epoch),
        };
        Described {
            name: description.topic.name.to_string(),
            created_ms: description.topic.created_ms,
            retention_ms: milliseconds(description.topic.retention.age),
            retention_bytes: description.topic.retention.bytes,
            partitions: description.partitions.into_iter().map(row).collect(),
        }
    }
}
