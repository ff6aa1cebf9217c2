//! What the traits take and give.

use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, Partition, SegmentId, TopicName, TopicPartition};

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has; at least 1.
    pub partitions: u32,
    /// When it was created, in milliseconds since 1970 by the database's clock.
    pub created_ms: i64,
}

/// Where a partition's records begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that can be read.
    pub log_start: u64,
    /// One past the last committed offset: the offset the next record gets (invariant 2).
    pub high_watermark: u64,
}

/// A partition and who writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: Partition,
    /// Where its records begin and end.
    pub watermarks: Watermarks,
    /// Who holds its lease now, if anybody does.
    pub holder: Option<LeaseHolder>,
}

/// The agent that holds an unexpired lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The agent.
    pub agent: AgentId,
    /// Where it answers gRPC, as `host:port`.
    pub address: String,
    /// Epoch of the lease.
    pub epoch: u64,
}

/// An agent that registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentInfo {
    /// Its id.
    pub id: AgentId,
    /// Where it answers gRPC, as `host:port`.
    pub address: String,
    /// Milliseconds since its last heartbeat, by the database's clock.
    pub heartbeat_age_ms: i64,
}

/// A granted lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What may be written.
    pub partition: TopicPartition,
    /// Raised by every grant; a commit states it (invariant 1).
    pub epoch: u64,
    /// Where the partition stood at the grant.
    pub watermarks: Watermarks,
    /// What the duplicate check knows of the partition's producers.
    pub producers: Vec<ProducerState>,
}

/// The last batches of one producer in one partition, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// From [`Agents::new_producer_id`](crate::Agents::new_producer_id).
    pub producer_id: u64,
    /// The producer raises it when it gives up on batches that it has sent; each epoch has its own sequence.
    pub epoch: i16,
    /// At most [`IDEMPOTENCE_WINDOW`](streamhouse_core::limits::IDEMPOTENCE_WINDOW) batches.
    pub batches: Vec<SequencedBatch>,
}

/// One committed batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequencedBatch {
    /// Sequence of its first record.
    pub base_sequence: i32,
    /// Records in it.
    pub records: u32,
    /// Offset of its first record.
    pub base_offset: u64,
}

/// One flush: an object with many partitions in it, committed in one transaction.
#[derive(Clone, Debug)]
pub struct Flush {
    /// The segment's id; the transaction's outcome is found by it.
    pub segment: SegmentId,
    /// Object key.
    pub object: String,
    /// Size of the object.
    pub object_bytes: u64,
    /// Who wrote it.
    pub agent: AgentId,
    /// The partitions in it, each once.
    pub ranges: Vec<FlushRange>,
}

/// One partition's records in a flush.
#[derive(Clone, Debug)]
pub struct FlushRange {
    /// The partition.
    pub partition: TopicPartition,
    /// Epoch of the lease under which it was written.
    pub epoch: u64,
    /// First offset; must be the partition's high watermark.
    pub base_offset: u64,
    /// Records; at least 1.
    pub records: u64,
    /// Position of the partition's first batch in the object.
    pub position: u64,
    /// Bytes of the partition's batches.
    pub bytes: u64,
    /// Position of the partition's index block in the object.
    pub index_position: u64,
    /// Bytes of the partition's index block.
    pub index_bytes: u32,
    /// New state of the producers that wrote in this flush.
    pub producers: Vec<ProducerState>,
}

/// What became of one partition of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOutcome {
    /// Committed: the high watermark has moved.
    Committed,
    /// The lease is not this agent's any more, expired, or of another epoch: nothing was changed.
    Fenced,
}

/// A committed range, as a consumer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRange {
    /// The segment.
    pub segment: SegmentId,
    /// Object key.
    pub object: String,
    /// First offset.
    pub base_offset: u64,
    /// One past the last offset.
    pub end_offset: u64,
    /// Position of the partition's first batch in the object.
    pub position: u64,
    /// Bytes of the partition's batches.
    pub bytes: u64,
    /// Position of the partition's index block in the object.
    pub index_position: u64,
    /// Bytes of the partition's index block.
    pub index_bytes: u32,
    /// When it was committed, in milliseconds since 1970 by the database's clock.
    pub committed_ms: i64,
}

/// How far a group is on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset it committed: the next it will read. `None` when it has not committed there.
    pub committed: Option<u64>,
    /// Where the partition stands.
    pub watermarks: Watermarks,
    /// Records from the committed offset (from the log start, when there is none or retention has passed it) to the high
    /// watermark.
    pub lag_records: u64,
    /// Database time minus the commit time of the segment that holds the first record not committed; zero when there
    /// is none.
    pub lag: Duration,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub id: GroupId,
    /// Partitions it has committed on.
    pub partitions: u32,
    /// Lag over those partitions.
    pub lag_records: u64,
}
