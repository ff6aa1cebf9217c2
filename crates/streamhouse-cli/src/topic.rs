//! `streamhouse topic`: create, list, describe.

use crate::args::Places;
use crate::output::{Output, Table, or_dash};
use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;
use streamhouse_client::{Admin, Retention, TopicDescription};
use streamhouse_core::Counted;

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
    },
    /// List all topics.
    List,
    /// Show a topic's partitions: where they begin and end, and which agent writes them.
    Describe {
        /// The topic.
        name: String,
    },
}

#[derive(Debug, Serialize)]
struct TopicRow {
    name: String,
    partitions: u32,
    created_ms: i64,
}

#[derive(Debug, Serialize)]
struct Described {
    name: String,
    created_ms: i64,
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
        Topic::Create { name, partitions } => {
            let admin = Admin::new(places.metadata_or_new().await?);
            let created = TopicRow::from(&admin.create_topic(&name, partitions, Retention::default()).await?);
            output.show(&created, |topic| {
                format!("created topic {} with {}", topic.name, Counted(topic.partitions.into(), "partition"))
            })
        }
        Topic::List => {
            let topics = places.viewer().await?.topics().await?;
            let rows: Vec<TopicRow> = topics.iter().map(TopicRow::from).collect();
            output.show(&rows, |rows| topics_table(rows))
        }
        Topic::Describe { name } => {
            let described = Described::from(places.viewer().await?.describe_topic(&name).await?);
            output.show(&described, partitions_table)
        }
    }
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
        TopicRow { name: topic.name.to_string(), partitions: topic.partitions, created_ms: topic.created_ms }
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
            partitions: description.partitions.into_iter().map(row).collect(),
        }
    }
}
