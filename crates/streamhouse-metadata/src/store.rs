//! The traits.

use crate::error::Result;
use crate::model::*;
use async_trait::async_trait;
use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicName, TopicPartition};

/// Topics and their partitions.
#[async_trait]
pub trait Topics: Send + Sync {
    /// Creates a topic with partitions `0..partitions`, each empty and without a lease.
    ///
    /// # Errors
    ///
    /// `TopicExists`; `Invalid` when `partitions` is 0 or over `limits::PARTITIONS_MAX`.
    async fn create_topic(&self, name: &TopicName, partitions: u32) -> Result<Topic>;

    /// The topic, or `TopicNotFound`.
    async fn topic(&self, name: &TopicName) -> Result<Topic>;

    /// All topics, by name.
    async fn topics(&self) -> Result<Vec<Topic>>;

    /// A topic's partitions, by number, with the holder of each unexpired lease; or `TopicNotFound`.
    async fn partitions(&self, name: &TopicName) -> Result<Vec<PartitionInfo>>;

    /// Where each partition stands, in the order asked; `TopicNotFound` or `PartitionNotFound` for the first that does
    /// not exist. One query, however many.
    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>>;
}

/// Agents and producer ids.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Makes the agent known (or known again, at a new address).
    async fn register_agent(&self, agent: &AgentId, address: &str) -> Result<()>;

    /// Says the agent lives. `Invalid` when it is not registered.
    async fn heartbeat(&self, agent: &AgentId) -> Result<()>;

    /// Forgets the agent and gives its leases back. An agent that is not registered is no error.
    async fn deregister_agent(&self, agent: &AgentId) -> Result<()>;

    /// All registered agents, by id.
    async fn agents(&self) -> Result<Vec<AgentInfo>>;

    /// A producer id that was never given before; at least 1.
    async fn new_producer_id(&self) -> Result<u64>;
}

/// Leases: who may write a partition. All time is the database's.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Grants the agent, in one transaction, up to `max` partitions that have no unexpired lease. Each grant raises the
    /// partition's epoch.
    ///
    /// # Errors
    ///
    /// `Invalid` when the agent is not registered, or `term` is not from 1 ms to 1 day.
    async fn acquire_leases(&self, agent: &AgentId, term: Duration, max: u32) -> Result<Vec<Lease>>;

    /// Lets the agent's leases end a full term from now, in one transaction; gives those that still hold, in any order.
    /// A lease that has expired, or is of another epoch, is never renewed.
    ///
    /// # Errors
    ///
    /// `Invalid` when `term` is not from 1 ms to 1 day.
    async fn renew_leases(
        &self,
        agent: &AgentId,
        leases: &[(TopicPartition, u64)],
        term: Duration,
    ) -> Result<Vec<TopicPartition>>;

    /// Gives all leases of the agent back, so that another can take them at once.
    async fn release_leases(&self, agent: &AgentId) -> Result<()>;

    /// Lets every lease of every agent expire now. For the next holder of a single-agent lock, whose predecessor is
    /// known to be dead.
    async fn expire_all_leases(&self) -> Result<()>;
}

/// Segments: what was flushed and what can be read.
#[async_trait]
pub trait Segments: Send + Sync {
    /// Commits a flush in one transaction: each range whose lease is the agent's, unexpired and of the stated epoch, and
    /// whose base offset is the high watermark, moves its high watermark (invariants 1 and 2); every other range is
    /// `Fenced` and left out. One outcome a range, in order. A segment that was committed already is not committed again:
    /// its outcome is given as [`flush_outcome`](Self::flush_outcome) has it.
    ///
    /// # Errors
    ///
    /// `Invalid` for a flush that breaks the rules of [`Flush`] and [`FlushRange`], whoever holds the leases.
    ///
    /// `Unknown` when the commit may or may not have happened: ask [`flush_outcome`](Self::flush_outcome). Every other
    /// error: nothing happened.
    async fn commit_flush(&self, flush: &Flush) -> Result<Vec<RangeOutcome>>;

    /// What became of a flush: one outcome a range, in the order of `flush.ranges`; `None` when it was not committed (not
    /// even with every range fenced). Answers only when no commit of it is under way on this store, also none whose
    /// caller has gone.
    async fn flush_outcome(&self, flush: &Flush) -> Result<Option<Vec<RangeOutcome>>>;

    /// The committed ranges from the one that holds `offset` on, in order, at most `max`. Empty when `offset` is at or
    /// above the high watermark. An offset below the log start begins at the log start. `TopicNotFound` or
    /// `PartitionNotFound` when there is no such partition.
    async fn ranges(&self, partition: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>>;

    /// Whether a segment was committed.
    async fn segment_exists(&self, segment: SegmentId) -> Result<bool>;
}

/// Consumer groups and their offsets.
#[async_trait]
pub trait Groups: Send + Sync {
    /// Records the next offset the group will read on each partition, in one transaction; all or none.
    ///
    /// # Errors
    ///
    /// `TopicNotFound`, `PartitionNotFound`; `Invalid` for an offset above the high watermark.
    async fn commit_offsets(&self, group: &GroupId, offsets: &[(TopicPartition, u64)]) -> Result<()>;

    /// How far the group is on each of the partitions, in the order asked; `TopicNotFound` or `PartitionNotFound` for the
    /// first that does not exist. A group that never committed has no committed offsets; that is no error.
    async fn group_offsets(&self, group: &GroupId, partitions: &[TopicPartition])
    -> Result<Vec<GroupOffset>>;

    /// All groups, by name.
    async fn groups(&self) -> Result<Vec<Group>>;

    /// Every partition the group has committed on, by topic and number; or `GroupNotFound`.
    async fn describe_group(&self, group: &GroupId) -> Result<Vec<GroupOffset>>;
}

/// A whole metadata store.
pub trait MetadataStore: Topics + Agents + Leases + Segments + Groups {}

impl<T: Topics + Agents + Leases + Segments + Groups> MetadataStore for T {}
