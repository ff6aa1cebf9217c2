//! One flush's commit, until its outcome is known.

use std::{sync::Arc, time::Duration};
use streamhouse_metadata::{Flush, MetadataError, MetadataStore, RangeOutcome};
use tokio::time::{Instant, sleep, timeout_at};

/// Pause before a busy metadata store is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How a commit ended.
#[derive(Debug)]
pub(super) enum Commit {
    /// The transaction committed; one outcome a range.
    Done(Vec<RangeOutcome>),
    /// Nothing happened, and will not.
    Refused(Arc<MetadataError>),
    /// It may have happened, and the metadata store does not say.
    Unknown,
}

/// Commits a flush, again while the store is busy, and asks for an outcome that is unknown, until `deadline`.
pub(super) async fn commit(store: &dyn MetadataStore, flush: &Flush, deadline: Instant) -> Commit {
    // A store that did not know may find the commit after a restart, whatever it said since: SQLite after a failed sync.
    let mut doubtful = false;
    let refused =
        |doubtful, refusal| if doubtful { Commit::Unknown } else { Commit::Refused(Arc::new(refusal)) };
    loop {
        let refusal = match timeout_at(deadline, store.commit_flush(flush)).await {
            Err(_) => return Commit::Unknown,
            Ok(Ok(outcomes)) => return Commit::Done(outcomes),
            Ok(Err(MetadataError::Unknown(error))) => {
                tracing::warn!(segment = %flush.segment, %error, "the outcome of a commit is unknown; asking for it");
                doubtful = true;
                match timeout_at(deadline, outcome(store, flush)).await {
                    Err(_) => return Commit::Unknown,
                    Ok(Some(outcomes)) => return Commit::Done(outcomes),
                    Ok(None) => MetadataError::Unknown(error),
                }
            }
            Ok(Err(busy @ MetadataError::Busy(_))) => busy,
            Ok(Err(refusal)) => return refused(doubtful, refusal),
        };
        if timeout_at(deadline, sleep(RETRY_PAUSE)).await.is_err() {
            return refused(doubtful, refusal);
        }
    }
}

/// What became of the flush, asked until the store knows.
async fn outcome(store: &dyn MetadataStore, flush: &Flush) -> Option<Vec<RangeOutcome>> {
    loop {
        match store.flush_outcome(flush).await {
            Ok(outcome) => return outcome,
            Err(error) => tracing::debug!(segment = %flush.segment, %error, "the outcome is still unknown"),
        }
        sleep(RETRY_PAUSE).await;
    }
}
