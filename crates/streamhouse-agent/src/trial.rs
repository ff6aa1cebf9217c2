//! Trials: whether the stores can be written, found out without anybody's records.
//!
//! An agent whose last flush failed is not ready, so that whoever reads `/ready` sends its records elsewhere. Then no flush
//! comes that could succeed; an agent that became ready again by and by would lose the next records to find out. So it
//! tries by itself.

use crate::flush::new_segment_id;
use crate::readiness::Readiness;
use std::convert::Infallible as Never;
use std::{sync::Arc, time::Duration};
use streamhouse_core::AgentId;
use streamhouse_metadata::MetadataStore;
use streamhouse_storage::{SegmentBuilder, SegmentStore, StorageError};
use tokio::time::{MissedTickBehavior, interval};

/// Stores a segment with nothing in it, as a flush would, and removes it. One that a crash leaves behind is an object
/// without a commit, like others (invariant 5).
///
/// # Errors
///
/// Why one of the two cannot be done.
pub(crate) async fn store_and_remove(segments: &SegmentStore) -> Result<(), StorageError> {
    let segment = SegmentBuilder::new().finish(new_segment_id());
    segments.put(&segment).await?;
    segments.delete(&segment.object).await
}

/// What trials are made with.
pub(crate) struct Trials {
    pub(crate) agent: AgentId,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) segments: SegmentStore,
    pub(crate) readiness: Readiness,
    /// From a failure to the next trial.
    pub(crate) interval: Duration,
}

impl Trials {
    /// Tries, for ever, as long as the last flush has failed. A trial that hangs is waited for: a second would hang too.
    pub(crate) async fn run(self) -> Result<(), Never> {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(outage) = self.readiness.outage().filter(|since| since.elapsed() >= self.interval)
            else {
                continue;
            };
            match self.write().await {
                Ok(()) => self.readiness.recovered(outage),
                Err(error) => self.readiness.still_failing(&error),
            }
        }
    }

    /// Writes to both stores.
    async fn write(&self) -> Result<(), String> {
        store_and_remove(&self.segments).await.map_err(|error| error.to_string())?;
        self.metadata.heartbeat(&self.agent).await.map_err(|error| error.to_string())
    }
}
