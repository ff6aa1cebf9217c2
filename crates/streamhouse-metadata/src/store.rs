//! The traits.

use crate::error::Result;
use crate::model::*;
use async_trait::async_trait;
use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, MemberId, SegmentId, TopicName, TopicPartition};

/// Topics and their partitions.
#[async_trait]
pub trait Topics: Send + Sync {
    /// Creates a topic with partitions `0..partitions`, each empty and without a lease.
    ///
    /// # Errors
    ///
    /// `TopicExists`; `Invalid` when `partitions` is 0 or over `limits::PARTITIONS_MAX`, or the retention is zero. `Unknown`
    /// when the topic may have come to be: tried again, it is there or `TopicExists`.
    async fn create_topic(&self, name: &TopicName, partitions: u32, retention: Retention) -> Result<Topic>;

    /// Changes how long a topic's records are kept; gives the topic as it is now.
    ///
    /// # Errors
    ///
    /// `TopicNotFound`; `Invalid` when the retention is zero.
    async fn set_retention(&self, name: &TopicName, retention: Retention) -> Result<Topic>;

    /// Removes a topic with its records, its leases, and what groups have committed and claimed there, in one transaction that
    /// is short however much there is to read: [`apply_retention`](Upkeep::apply_retention) removes what it leaves behind,
    /// and its objects go when nothing else is left in them. A commit under one of its leases is answered `Fenced`, also when
    /// there is another topic of the name by then.
    ///
    /// # Errors
    ///
    /// `TopicNotFound`. `Unknown` when the topic may be gone: tried again, it is `TopicNotFound` then.
    async fn delete_topic(&self, name: &TopicName) -> Result<()>;

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

/// What producers need beside topics.
#[async_trait]
pub trait Producers: Send + Sync {
    /// A producer id that was never given before; at least 1.
    async fn new_producer_id(&self) -> Result<u64>;
}

/// Agents: who could write partitions.
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
}

/// Leases: who may write a partition. All time is the database's.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Every partition of every topic, by topic and number, and who holds its unexpired lease. One query.
    async fn lease_table(&self) -> Result<Vec<LeaseRow>>;

    /// Whether any partition has no unexpired lease. Cheap: agents ask all the time, and mostly none has.
    async fn any_lease_free(&self) -> Result<bool>;

    /// Grants the agent, in one transaction, those of the `wanted` partitions that have no unexpired lease; the others,
    /// and those that do not exist, are left out. Each grant raises the partition's epoch.
    ///
    /// # Errors
    ///
    /// `Invalid` when the agent is not registered, or `term` is not from 1 ms to 1 day. `Unknown` when the leases may have
    /// been granted: what [`lease_table`](Self::lease_table) then says is the agent's, and the agent does not know of, it
    /// releases, or it waits until the term is over.
    async fn acquire_leases(
        &self,
        agent: &AgentId,
        term: Duration,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Lease>>;

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

    /// Gives these leases of the agent back, so that another can take them at once. One that is not the agent's any more,
    /// or of another epoch, is left as it is.
    async fn release_leases(&self, agent: &AgentId, leases: &[(TopicPartition, u64)]) -> Result<()>;

    /// Gives all leases of the agent back.
    async fn release_all_leases(&self, agent: &AgentId) -> Result<()>;

    /// Lets every lease and duty of every agent expire now. For the next holder of a single-agent lock, whose predecessor
    /// is known to be dead.
    async fn expire_all_leases(&self) -> Result<()>;
}

/// What can be read.
#[async_trait]
pub trait SegmentRanges: Send + Sync {
    /// The committed ranges from the one that holds `offset` on, in order, at most `max`. Empty when `offset` is at or
    /// above the high watermark. An offset below the log start begins at the log start. `TopicNotFound` or
    /// `PartitionNotFound` when there is no such partition.
    async fn ranges(&self, partition: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>>;
}

/// Segments: what was flushed.
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

    /// Which of these segments were committed, in any order.
    async fn committed_segments(&self, segments: &[SegmentId]) -> Result<Vec<SegmentId>>;
}

/// Consumer groups and their offsets.
#[async_trait]
pub trait Groups: Send + Sync {
    /// Records the next offset the group will read on each partition, in one transaction; all or none. `None` for the
    /// member is for who stands outside of the group: an operator, or a consumer that reads without claims.
    ///
    /// # Errors
    ///
    /// `TopicNotFound`, `PartitionNotFound`; `Invalid` for an offset above the high watermark. `MemberFenced` when the
    /// member is not in the group any more, or does not hold a claim of the stated generation on each of the partitions.
    /// `Claimed`, without a member, when a living member holds a claim on one of them.
    async fn commit_offsets(
        &self,
        group: &GroupId,
        member: Option<&MemberId>,
        offsets: &[OffsetCommit],
    ) -> Result<()>;

    /// How far the group is on each of the partitions, in the order asked; `TopicNotFound` or `PartitionNotFound` for the
    /// first that does not exist. A group that never committed has no committed offsets; that is no error.
    async fn group_offsets(&self, group: &GroupId, partitions: &[TopicPartition])
    -> Result<Vec<GroupOffset>>;

    /// All groups, by name.
    async fn groups(&self) -> Result<Vec<Group>>;

    /// Removes a group that has no member, with all that it has committed.
    ///
    /// # Errors
    ///
    /// `GroupNotFound`; `GroupInUse` when a member lives. `Unknown` when the group may be gone: tried again, it is
    /// `GroupNotFound` then.
    async fn delete_group(&self, group: &GroupId) -> Result<()>;

    /// Every partition that a member of the group has ever claimed, or the group has committed on, by topic and number; or
    /// `GroupNotFound`.
    async fn describe_group(&self, group: &GroupId) -> Result<Vec<GroupOffset>>;
}

/// Who reads for a group, and who of them reads which partition. All time is the database's.
///
/// A member lives for a session after its last sign, which is a join or a heartbeat. Every call on a group first removes
/// the members whose session is over, with their claims. The group's generation is raised by one for each member that
/// comes, goes or changes its topics; a claim has the generation in which it was granted, and a commit states it, so what
/// a member sends under a claim that it has lost is refused.
///
/// Every call may be repeated, also when its outcome is unknown.
#[async_trait]
pub trait Members: Send + Sync {
    /// Makes the member known to the group, or known again with other topics, with the claims it has; the group comes to be
    /// if need be. Topics that do not exist are no error.
    ///
    /// # Errors
    ///
    /// `Invalid` when `session` is not from 1 ms to 1 day.
    async fn join_group(
        &self,
        group: &GroupId,
        member: &MemberId,
        topics: &[TopicName],
        session: Duration,
    ) -> Result<GroupView>;

    /// Says the member lives, and how the group stands.
    ///
    /// # Errors
    ///
    /// `MemberFenced` when it is not in the group (any more): it has lost its claims and has to join again.
    async fn heartbeat_member(
        &self,
        group: &GroupId,
        member: &MemberId,
        session: Duration,
    ) -> Result<GroupView>;

    /// Grants the member, in one transaction, those of the `wanted` partitions that nobody has claimed; those of others,
    /// and those that do not exist, are left out. Gives, in any order, for each where the group stands on it. What the
    /// member holds already is given once more, under its old generation.
    ///
    /// # Errors
    ///
    /// `MemberFenced` as [`heartbeat_member`](Self::heartbeat_member).
    async fn claim_partitions(
        &self,
        group: &GroupId,
        member: &MemberId,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Claimed>>;

    /// Gives claims of the member back, so that another can have them at once. What it does not hold is left as it is.
    async fn release_claims(
        &self,
        group: &GroupId,
        member: &MemberId,
        partitions: &[TopicPartition],
    ) -> Result<()>;

    /// Takes the member out of the group, with its claims. One that is not in it is no error.
    async fn leave_group(&self, group: &GroupId, member: &MemberId) -> Result<()>;

    /// Who is in the group and has claimed what; or `GroupNotFound`.
    async fn group_view(&self, group: &GroupId) -> Result<GroupView>;
}

/// What keeps the log from growing for ever, and its gauges; for agents.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Takes or keeps a duty that one agent does for all, for a term from now. False when another has it.
    ///
    /// # Errors
    ///
    /// `Invalid` when the agent is not registered, or `term` is not from 1 ms to 1 day.
    async fn take_duty(&self, duty: Duty, agent: &AgentId, term: Duration) -> Result<bool>;

    /// Moves the log start of every partition whose topic has a retention as far as that says, by whole ranges; gives
    /// what moved, with the new log start. The last range may go by age, never by size. Ranges below a log start, and those of
    /// topics that were deleted, are forgotten. After an error a part may have been done; the next call does the rest.
    async fn apply_retention(&self) -> Result<Vec<(TopicPartition, u64)>>;

    /// Segments that have had no range for at least `grace`, so that who learned of a range before that has read it: at
    /// most `max`, those first that have had none for longest. A segment that was committed with every range fenced never
    /// had one.
    async fn dead_segments(&self, grace: Duration, max: u32) -> Result<Vec<DeadSegment>>;

    /// Forgets segments whose objects are removed. One that has a range, or is not there, is left as it is. A flush must
    /// not be committed again once its segment is forgotten.
    async fn forget_segments(&self, segments: &[SegmentId]) -> Result<()>;

    /// How far every group is of which a member has ever claimed one of the partitions, or that has committed on it, by group,
    /// topic and number. Partitions that do not exist are left out. One query.
    async fn group_lags(&self, partitions: &[TopicPartition]) -> Result<Vec<(GroupId, GroupOffset)>>;
}

/// What clients need of a metadata store. Agents answer it over gRPC too, so that clients need no access to the database.
pub trait ClientStore: Topics + Producers + SegmentRanges + Groups + Members {}

impl<T: Topics + Producers + SegmentRanges + Groups + Members> ClientStore for T {}

/// A whole metadata store, as agents need it.
pub trait MetadataStore: ClientStore + Agents + Leases + Segments + Upkeep {}

impl<T: ClientStore + Agents + Leases + Segments + Upkeep> MetadataStore for T {}
