//! Records that were sent and whose outcome is not known yet.

use crate::output::note;
use crate::report::ProduceTally;
use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use streamhouse_client::{ClientError, Delivery, DeliveryReport};
use tokio_util::sync::CancellationToken;

/// Most deliveries kept: more than a producer's default buffer holds, so that its own limit is met first.
const PENDING_MAX: usize = 1 << 20;

/// Deliveries in the order of their sends, and the tally of those that ended.
///
/// One queue and no task of its own: settling a record costs a look at a batch that is already there.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    queue: VecDeque<Sent>,
    /// What became of the others.
    pub(crate) tally: ProduceTally,
}

#[derive(Debug)]
struct Sent {
    delivery: Delivery,
    bytes: u64,
}

impl Pending {
    /// Adds a record that the producer has accepted; waits while far too many are pending.
    pub(crate) async fn push(&mut self, delivery: Delivery, bytes: u64) {
        while self.queue.len() >= PENDING_MAX {
            self.settle_one().await;
        }
        self.queue.push_back(Sent { delivery, bytes });
    }

    /// Counts a record that the producer did not accept.
    pub(crate) fn refused(&mut self, error: &ClientError) {
        count_failure(&mut self.tally, error);
    }

    /// Accounts for the oldest deliveries that have ended, without waiting.
    pub(crate) fn settle_ended(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while let Some(sent) = self.queue.front_mut() {
            let Poll::Ready(outcome) = Pin::new(&mut sent.delivery).poll(&mut context) else { break };
            self.settle_front(outcome);
        }
        self.tally.settled();
    }

    /// Waits for all deliveries.
    pub(crate) async fn settle_all(&mut self) {
        while !self.queue.is_empty() {
            self.settle_one().await;
            self.settle_ended();
        }
    }

    /// Waits for `work`, accounting for deliveries meanwhile; `None` when `stop` is cancelled first.
    pub(crate) async fn during<F: Future>(&mut self, stop: &CancellationToken, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return Some(output),
                () = stop.cancelled() => return None,
                () = self.settle_one(), if !self.queue.is_empty() => {}
            }
        }
    }

    /// Waits for the oldest delivery. Dropped while it waits, it has changed nothing.
    async fn settle_one(&mut self) {
        if let Some(sent) = self.queue.front_mut() {
            let outcome = (&mut sent.delivery).await;
            self.settle_front(outcome);
            self.tally.settled();
        }
    }

    fn settle_front(&mut self, outcome: Result<DeliveryReport, ClientError>) {
        let Some(sent) = self.queue.pop_front() else { return };
        match outcome {
            Ok(report) => self.tally.acknowledged(report.partition, sent.bytes, report.latency),
            Err(error) => count_failure(&mut self.tally, &error),
        }
    }
}

/// Says the first failure of a kind at once: a run may have long to go.
fn count_failure(tally: &mut ProduceTally, error: &ClientError) {
    if tally.failed(error.kind(), error) {
        note(&format!("a record failed: {error}"));
    }
}
