//! The metadata store that agents and producers are given.

use super::calls::{Database, Effect};
use crate::bug::Bug;
use crate::world::{Fate, State, Way};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicName, TopicPartition};
use streamhouse_metadata::*;

#[async_trait]
impl Topics for Database {
    async fn create_topic(&self, name: &TopicName, partitions: u32, retention: Retention) -> Result<Topic> {
        let name = name.clone();
        self.call("create_topic", Effect::Writes, move |state, now_ms| {
            state.tables.create_topic(&name, partitions, retention, now_ms)
        })
        .await
    }

    async fn delete_topic(&self, _: &TopicName) -> Result<()> {
        Err(MetadataError::Invalid("no topic of a simulation is deleted".to_owned()))
    }

    async fn set_retention(&self, name: &TopicName, retention: Retention) -> Result<Topic> {
        let name = name.clone();
        self.call("set_retention", Effect::Writes, move |state, _| {
            let mut topic = state.tables.topic(&name)?;
            topic.retention = retention;
            state.tables.topics.insert(name, topic.clone());
            Ok(topic)
        })
        .await
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic> {
        let name = name.clone();
        self.read("topic", move |tables, _| tables.topic(&name)).await
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        self.read("topics", |tables, _| Ok(tables.topics.values().cloned().collect())).await
    }

    async fn partitions(&self, name: &TopicName) -> Result<Vec<PartitionInfo>> {
        let name = name.clone();
        self.read("partitions", move |tables, now_ms| tables.partitions_of(&name, now_ms)).await
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let partitions = partitions.to_vec();
        self.read("watermarks", move |tables, _| partitions.iter().map(|at| tables.watermarks(at)).collect())
            .await
    }
}

#[async_trait]
impl Producers for Database {
    async fn new_producer_id(&self) -> Result<u64> {
        self.call("new_producer_id", Effect::Writes, |state, _| {
            state.tables.producer_id += 1;
            Ok(state.tables.producer_id)
        })
        .await
    }
}

#[async_trait]
impl Agents for Database {
    async fn register_agent(&self, agent: &AgentId, address: &str) -> Result<()> {
        let (agent, address) = (agent.clone(), address.to_owned());
        self.call("register_agent", Effect::Writes, move |state, now_ms| {
            state.tables.register(&agent, &address, now_ms);
            Ok(())
        })
        .await
    }

    async fn heartbeat(&self, agent: &AgentId) -> Result<()> {
        let agent = agent.clone();
        self.call("heartbeat", Effect::Writes, move |state, now_ms| state.tables.heartbeat(&agent, now_ms))
            .await
    }

    async fn deregister_agent(&self, agent: &AgentId) -> Result<()> {
        let agent = agent.clone();
        self.call("deregister_agent", Effect::Writes, move |state, _| {
            state.tables.deregister(&agent);
            state.witness.released_all(&agent);
            Ok(())
        })
        .await
    }

    async fn agents(&self) -> Result<Vec<AgentInfo>> {
        self.read("agents", |tables, now_ms| Ok(tables.agents(now_ms))).await
    }
}

#[async_trait]
impl Leases for Database {
    async fn lease_table(&self) -> Result<Vec<LeaseRow>> {
        self.read("lease_table", |tables, now_ms| Ok(tables.lease_table(now_ms))).await
    }

    async fn any_lease_free(&self) -> Result<bool> {
        self.read("any_lease_free", |tables, now_ms| Ok(tables.any_lease_free(now_ms))).await
    }

    async fn acquire_leases(
        &self,
        agent: &AgentId,
        term: Duration,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Lease>> {
        let (agent, wanted) = (agent.clone(), wanted.to_vec());
        self.call("acquire_leases", Effect::Writes, move |state, now_ms| {
            let leases = state.tables.acquire(&agent, term, &wanted, now_ms)?;
            for lease in &leases {
                state
                    .trace
                    .step(format_args!("{agent} gets {} under epoch {}", lease.partition, lease.epoch));
            }
            state.witness.granted(&agent, &leases, term, now_ms);
            Ok(leases)
        })
        .await
    }

    async fn renew_leases(
        &self,
        agent: &AgentId,
        leases: &[(TopicPartition, u64)],
        term: Duration,
    ) -> Result<Vec<TopicPartition>> {
        let (agent, leases) = (agent.clone(), leases.to_vec());
        self.call("renew_leases", Effect::Writes, move |state, now_ms| {
            let renewed = state.tables.renew(&agent, &leases, term, now_ms);
            state.witness.renewed(&agent, &leases, &renewed, term, now_ms);
            Ok(renewed)
        })
        .await
    }

    async fn release_leases(&self, agent: &AgentId, leases: &[(TopicPartition, u64)]) -> Result<()> {
        let (agent, leases) = (agent.clone(), leases.to_vec());
        self.call("release_leases", Effect::Writes, move |state, _| {
            state.tables.release(&agent, &leases);
            state.witness.released(&agent, &leases);
            Ok(())
        })
        .await
    }

    async fn release_all_leases(&self, agent: &AgentId) -> Result<()> {
        let agent = agent.clone();
        self.call("release_all_leases", Effect::Writes, move |state, _| {
            state.tables.release_all(&agent);
            state.witness.released_all(&agent);
            Ok(())
        })
        .await
    }

    async fn expire_all_leases(&self) -> Result<()> {
        self.call("expire_all_leases", Effect::Writes, |state, _| {
            state.tables.expire_all();
            state.witness.expired_all();
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl SegmentRanges for Database {
    async fn ranges(&self, partition: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>> {
        let at = partition.clone();
        self.call("ranges", Effect::Reads, move |state, _| {
            let ranges = state.tables.ranges(&at, offset, max)?;
            state.witness.shown(&at, offset, &ranges);
            Ok(ranges)
        })
        .await
    }
}

#[async_trait]
impl Segments for Database {
    async fn commit_flush(&self, flush: &Flush) -> Result<Vec<RangeOutcome>> {
        let fate = self.world.fate(self.node, Way::Database);
        if matches!(fate, Fate::Happens { .. }) {
            self.world.state().tables.begin_commit(flush);
        }
        let (world, flush) = (Arc::clone(&self.world), flush.clone());
        let planted = self.world.bug.filter(|_| self.world.below(8) == 0);
        self.carry("commit_flush", Effect::Writes, fate, move |state, now_ms| {
            let outcomes = commit(state, &flush, planted, now_ms);
            state.tables.end_commit(&flush);
            world.commit_over.notify_waiters();
            outcomes
        })
        .await
    }

    async fn flush_outcome(&self, flush: &Flush) -> Result<Option<Vec<RangeOutcome>>> {
        let flush = flush.clone();
        loop {
            let over = self.world.commit_over.notified();
            if !self.world.state().tables.is_committing(flush.segment) {
                break;
            }
            over.await;
        }
        self.read("flush_outcome", move |tables, _| Ok(tables.outcome(&flush))).await
    }

    async fn committed_segments(&self, segments: &[SegmentId]) -> Result<Vec<SegmentId>> {
        let segments = segments.to_vec();
        self.read("committed_segments", move |tables, _| Ok(tables.committed_segments(&segments))).await
    }
}

#[async_trait]
impl Upkeep for Database {
    async fn take_duty(&self, duty: Duty, agent: &AgentId, term: Duration) -> Result<bool> {
        let Duty::Upkeep = duty;
        let agent = agent.clone();
        self.call("take_duty", Effect::Writes, move |state, now_ms| {
            state.tables.take_duty(&agent, term, now_ms)
        })
        .await
    }

    async fn apply_retention(&self) -> Result<Vec<(TopicPartition, u64)>> {
        self.call("apply_retention", Effect::Writes, |state, now_ms| {
            let moved = state.tables.apply_retention(now_ms);
            state.witness.retained(&moved);
            Ok(moved)
        })
        .await
    }

    async fn dead_segments(&self, grace: Duration, max: u32) -> Result<Vec<DeadSegment>> {
        self.read("dead_segments", move |tables, now_ms| Ok(tables.dead_segments(grace, max, now_ms))).await
    }

    async fn forget_segments(&self, segments: &[SegmentId]) -> Result<()> {
        let segments = segments.to_vec();
        self.call("forget_segments", Effect::Writes, move |state, _| {
            state.tables.forget_segments(&segments);
            Ok(())
        })
        .await
    }

    async fn group_lags(&self, _: &[TopicPartition]) -> Result<Vec<(GroupId, GroupOffset)>> {
        Ok(Vec::new())
    }
}

/// A commit, and what was seen of it.
fn commit(state: &mut State, flush: &Flush, planted: Option<Bug>, now_ms: u64) -> Result<Vec<RangeOutcome>> {
    let State { tables, objects, witness, trace, .. } = state;
    if planted == Some(Bug::LosesCommit) {
        return Ok(vec![RangeOutcome::Committed; flush.ranges.len()]);
    }
    let is_new = tables.outcome(flush).is_none();
    let outcomes = tables.commit(flush, now_ms);
    let number = tables.number(flush.segment);
    for (range, outcome) in flush.ranges.iter().zip(&outcomes) {
        let FlushRange { partition, epoch, base_offset, records, .. } = range;
        trace.step(format_args!(
            "segment {number}: {partition} at {base_offset}, {records} records, epoch {epoch}: {outcome:?}"
        ));
    }
    if is_new {
        witness.committed(flush, &outcomes, objects, now_ms);
    }
    match planted {
        Some(Bug::CommitsAndRefuses) => Err(MetadataError::Unavailable("planted".into())),
        _ => Ok(outcomes),
    }
}
