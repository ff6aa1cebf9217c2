//! What the traits take and give.

use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, MemberId, Partition, SegmentId, TopicName, TopicPartition};

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has; at least 1.
    pub partitions: u32,
    /// How long its records are kept.
    pub retention: Retention,
    /// When it was created, in milliseconds since 1970 by the database's clock.
    pub created_ms: i64,
}

/// How long a topic's records are kept. The default keeps them for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// A segment's records go when it was committed longer ago than this; at least 1 ms.
    pub age: Option<Duration>,
    /// A partition's oldest records go while its batches take more than this many bytes in segments; at least 1.
    pub bytes: Option<u64>,
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

/// A partition's row of the lease table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// The partition.
    pub partition: TopicPartition,
    /// Who holds its unexpired lease, if anybody does.
    pub holder: Option<AgentId>,
    /// Epoch of its last lease; 0 when it never had one.
    pub epoch: u64,
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
    /// From [`Producers::new_producer_id`](crate::Producers::new_producer_id).
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
    /// Partitions that it has read as members do, or committed on.
    pub partitions: u32,
    /// Lag over those partitions.
    pub lag_records: u64,
}

/// An offset to commit: the next the group will read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset.
    pub offset: u64,
    /// Generation of the member's claim on the partition; without a member it is not looked at.
    pub generation: u64,
}

/// How a group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Raised by one for each member that comes, goes or changes its topics.
    pub generation: u64,
    /// Its living members, by id.
    pub members: Vec<Member>,
    /// What they have claimed, by topic and number.
    pub claims: Vec<Claim>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// The topics it reads, by name.
    pub topics: Vec<TopicName>,
}

/// Who reads a partition for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The partition.
    pub partition: TopicPartition,
    /// The member.
    pub member: MemberId,
    /// The group's generation when it was granted.
    pub generation: u64,
}

/// A claim that was granted, and where the group stands on its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The partition, and how far the group is on it.
    pub offset: GroupOffset,
    /// The group's generation when the claim was granted; commits under the claim state it.
    pub generation: u64,
}

/// Work that one agent does for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Retention, and the removal of objects that nothing refers to.
    Upkeep,
}

/// A segment that nothing can be read from any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadSegment {
    /// Its id.
    pub segment: SegmentId,
    /// Object key.
    pub object: String,
}
