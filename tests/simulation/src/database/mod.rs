//! The metadata store's contract as plain tables: what SQL does in transactions happens here at once.

mod calls;
mod leases;
mod segments;
mod store;
mod unasked;

pub(crate) use calls::Database;

use crate::bug::Bug;
use std::collections::BTreeMap;
use std::time::Duration;
use streamhouse_core::{AgentId, SegmentId, TopicName, TopicPartition};
use streamhouse_metadata::*;

/// Everything in the database.
pub(crate) struct Tables {
    bug: Option<Bug>,
    pub(crate) topics: BTreeMap<TopicName, Topic>,
    pub(crate) partitions: BTreeMap<TopicPartition, PartitionRow>,
    agents: BTreeMap<AgentId, AgentRow>,
    pub(crate) segments: BTreeMap<SegmentId, SegmentRow>,
    /// Segments in the order in which they were first heard of: ids are random, and a trace has to repeat.
    numbers: BTreeMap<SegmentId, usize>,
    producer_id: u64,
    duty: Option<(AgentId, u64)>,
    /// Flushes that agents have asked to commit and that are not over.
    committing: BTreeMap<SegmentId, u32>,
}

/// A partition.
#[derive(Default)]
pub(crate) struct PartitionRow {
    pub(crate) epoch: u64,
    pub(crate) lease: Option<LeaseRowEnd>,
    pub(crate) log_start: u64,
    pub(crate) high_watermark: u64,
    pub(crate) ranges: Vec<SegmentRange>,
    /// By producer id and epoch.
    producers: BTreeMap<(u64, i16), Vec<SequencedBatch>>,
    /// What planted bugs show of flushes that are not committed.
    uncommitted: Option<SegmentRange>,
}

/// Who holds a partition's lease, and when it ends.
pub(crate) struct LeaseRowEnd {
    agent: AgentId,
    expires_ms: u64,
}

struct AgentRow {
    address: String,
    heartbeat_ms: u64,
}

/// A committed segment.
pub(crate) struct SegmentRow {
    pub(crate) object: String,
    /// Since when it has had no range.
    pub(crate) dead_since_ms: Option<u64>,
}

impl Tables {
    pub(crate) fn new(bug: Option<Bug>) -> Tables {
        Tables {
            bug,
            topics: BTreeMap::new(),
            partitions: BTreeMap::new(),
            agents: BTreeMap::new(),
            segments: BTreeMap::new(),
            numbers: BTreeMap::new(),
            producer_id: 0,
            duty: None,
            committing: BTreeMap::new(),
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The segment's number in the trace.
    pub(crate) fn number(&mut self, segment: SegmentId) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(segment).or_insert(next)
    }

    fn create_topic(
        &mut self,
        name: &TopicName,
        partitions: u32,
        retention: Retention,
        now_ms: u64,
    ) -> Result<Topic> {
        if self.topics.contains_key(name) {
            return Err(MetadataError::TopicExists(name.to_string()));
        }
        let topic = Topic { name: name.clone(), partitions, retention, created_ms: now_ms as i64 };
        self.topics.insert(name.clone(), topic.clone());
        for partition in 0..partitions {
            let at = TopicPartition { topic: name.clone(), partition };
            self.partitions.insert(at, PartitionRow::default());
        }
        Ok(topic)
    }

    fn topic(&self, name: &TopicName) -> Result<Topic> {
        self.topics.get(name).cloned().ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))
    }

    fn row(&self, at: &TopicPartition) -> Result<&PartitionRow> {
        let topic = self.topic(&at.topic)?;
        self.partitions.get(at).ok_or_else(|| MetadataError::PartitionNotFound {
            topic: at.topic.to_string(),
            partition: at.partition,
            partitions: topic.partitions,
        })
    }

    fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks> {
        self.row(at).map(PartitionRow::watermarks)
    }

    fn partitions_of(&self, name: &TopicName, now_ms: u64) -> Result<Vec<PartitionInfo>> {
        self.topic(name)?;
        let rows = self.partitions.iter().filter(|(at, _)| at.topic == *name);
        let info = |(at, row): (&TopicPartition, &PartitionRow)| PartitionInfo {
            partition: at.partition,
            watermarks: row.watermarks(),
            holder: row.holder(now_ms).map(|agent| LeaseHolder {
                agent: agent.clone(),
                address: self.agents.get(agent).map_or_else(String::new, |row| row.address.clone()),
                epoch: row.epoch,
            }),
        };
        Ok(rows.map(info).collect())
    }

    fn register(&mut self, agent: &AgentId, address: &str, now_ms: u64) {
        let row = AgentRow { address: address.to_owned(), heartbeat_ms: now_ms };
        self.agents.insert(agent.clone(), row);
    }

    fn heartbeat(&mut self, agent: &AgentId, now_ms: u64) -> Result<()> {
        let row = self.agents.get_mut(agent).ok_or_else(|| not_registered(agent))?;
        row.heartbeat_ms = now_ms;
        Ok(())
    }

    fn agents(&self, now_ms: u64) -> Vec<AgentInfo> {
        let info = |(id, row): (&AgentId, &AgentRow)| AgentInfo {
            id: id.clone(),
            address: row.address.clone(),
            heartbeat_age_ms: (now_ms - row.heartbeat_ms) as i64,
        };
        self.agents.iter().map(info).collect()
    }

    fn take_duty(&mut self, agent: &AgentId, term: Duration, now_ms: u64) -> Result<bool> {
        if !self.agents.contains_key(agent) {
            return Err(not_registered(agent));
        }
        if self.duty.as_ref().is_some_and(|(holder, until_ms)| holder != agent && *until_ms > now_ms) {
            return Ok(false);
        }
        self.duty = Some((agent.clone(), now_ms + term.as_millis() as u64));
        Ok(true)
    }
}

impl PartitionRow {
    fn watermarks(&self) -> Watermarks {
        Watermarks { log_start: self.log_start, high_watermark: self.high_watermark }
    }

    fn holder(&self, now_ms: u64) -> Option<&AgentId> {
        self.lease.as_ref().filter(|lease| lease.expires_ms > now_ms).map(|lease| &lease.agent)
    }
}

fn not_registered(agent: &AgentId) -> MetadataError {
    MetadataError::Invalid(format!("agent {agent} is not registered; register it, then try again"))
}
