//! Upkeep: one agent for all moves log starts as far as retention says, and removes the objects that nothing can be read
//! from: segments without a range left, and objects without a commit.
//!
//! An object without a commit is the flush of an agent that died, or that could not remove it (invariant 5). It may also be
//! a flush under way; so it is left alone for a grace time of at least ten lease terms after it was written, by the object
//! store's clock. A commit of so old an object is impossible: an agent gives a flush up one term after it began, a commit
//! that it had sent before is refused unless its lease is unexpired by the database's clock (invariant 1), and after a flush
//! of unknown outcome every lease is granted anew, with a raised epoch. The commits are asked for after the objects were
//! listed, so that none that was seen too early is taken for one without a commit.

use futures::{StreamExt, TryStreamExt, future::ready, stream};
use std::{pin::pin, sync::Arc, time::Duration};
use streamhouse_core::{AgentId, SegmentId};
use streamhouse_metadata::{DeadSegment, Duty, MetadataStore};
use streamhouse_storage::{SegmentStore, StoredObject};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Intervals that the duty lasts: how long nobody does it after its holder has died.
const DUTY_INTERVALS: u32 = 3;
/// Segments that are looked at together.
const BATCH: usize = 500;
/// Objects removed in a round, of each sort; more wait for the next.
const REMOVED_MAX: usize = 10_000;
/// Objects removed at one time.
const REMOVED_AT_ONCE: usize = 8;

/// The task.
pub(crate) struct Upkeeper {
    pub(crate) agent: AgentId,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) segments: SegmentStore,
    /// From the end of a round to the next.
    pub(crate) interval: Duration,
    /// How long an object is left alone; at least ten lease terms.
    pub(crate) grace: Duration,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl Upkeeper {
    /// Does a round each interval, as long as the agent has the duty. A round that hangs is waited for; the duty goes to
    /// another agent meanwhile.
    pub(crate) async fn run(self) {
        let mut ticks = interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_search = Instant::now();
        let mut failing = false;
        loop {
            ticks.tick().await;
            let result = self.round(&mut next_search).await;
            match &result {
                Ok(()) if failing => tracing::info!("upkeep succeeds again"),
                Ok(()) => {}
                Err(error) if failing => tracing::debug!(%error, "upkeep still fails"),
                Err(error) => tracing::warn!(%error, "upkeep failed; it is tried again"),
            }
            failing = result.is_err();
        }
    }

    async fn round(&self, next_search: &mut Instant) -> Result<()> {
        if !self.has_duty().await? {
            return Ok(());
        }
        let moved = self.metadata.apply_retention().await?;
        if !moved.is_empty() {
            tracing::info!(partitions = moved.len(), "log starts moved, as retention says");
        }
        self.remove_dead().await?;
        // Listing all objects is the only work that grows with the log, and few objects are ever without a commit.
        if Instant::now() >= *next_search && self.has_duty().await? && self.remove_orphans().await? {
            *next_search = Instant::now() + self.grace;
        }
        Ok(())
    }

    async fn has_duty(&self) -> Result<bool> {
        Ok(self.metadata.take_duty(Duty::Upkeep, &self.agent, self.interval * DUTY_INTERVALS).await?)
    }

    /// Removes segments that have no range left.
    async fn remove_dead(&self) -> Result<()> {
        let mut count = 0;
        while count < REMOVED_MAX && self.has_duty().await? {
            let dead = self.metadata.dead_segments(self.grace, BATCH as u32).await?;
            let is_last = dead.len() < BATCH;
            let (ids, objects): (Vec<_>, Vec<_>) =
                dead.into_iter().map(|DeadSegment { segment, object }| (segment, object)).unzip();
            let (removed, error) = self.remove(ids.into_iter().zip(objects)).await;
            self.metadata.forget_segments(&removed).await?;
            count += removed.len();
            if let Some(error) = error {
                return Err(error);
            }
            if is_last {
                break;
            }
        }
        if count > 0 {
            tracing::info!(objects = count, "segments removed that nothing is left of");
        }
        Ok(())
    }

    /// Removes objects without a commit; whether all were looked at.
    async fn remove_orphans(&self) -> Result<bool> {
        let grace_ms = i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        let oldest_kept_ms = self.segments.now_ms().await?.saturating_sub(grace_ms);
        let mut count = 0;
        let old = self.segments.list().try_filter_map(move |listed| {
            let StoredObject { object, segment, modified_ms, .. } = listed;
            ready(Ok(segment.filter(|_| modified_ms < oldest_kept_ms).map(|segment| (segment, object))))
        });
        let mut batches = pin!(old.try_chunks(BATCH));
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| error.1)?;
            let ids: Vec<_> = batch.iter().map(|(segment, _)| *segment).collect();
            let committed = self.metadata.committed_segments(&ids).await?;
            let orphans = batch.into_iter().filter(|(segment, _)| !committed.contains(segment));
            let (removed, error) = self.remove(orphans).await;
            count += removed.len();
            if let Some(error) = error {
                return Err(error);
            }
            if count >= REMOVED_MAX {
                break;
            }
        }
        if count > 0 {
            tracing::info!(objects = count, "objects removed that were never committed");
        }
        Ok(count < REMOVED_MAX)
    }

    /// Removes objects; gives the segments whose objects are gone, and why the others are not.
    async fn remove(
        &self,
        objects: impl Iterator<Item = (SegmentId, String)>,
    ) -> (Vec<SegmentId>, Option<Box<dyn std::error::Error + Send + Sync>>) {
        let objects: Vec<_> = objects.collect();
        let removals = stream::iter(objects).map(|(segment, object)| {
            let segments = self.segments.clone();
            async move { segments.delete(&object).await.map(|()| segment) }
        });
        let results: Vec<_> = removals.buffer_unordered(REMOVED_AT_ONCE).collect().await;
        let mut removed = Vec::with_capacity(results.len());
        let mut failure = None;
        for result in results {
            match result {
                Ok(segment) => removed.push(segment),
                Err(error) => failure = Some(error.into()),
            }
        }
        (removed, failure)
    }
}
