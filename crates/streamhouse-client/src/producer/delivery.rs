//! The promise that `send()` gives, and how a batch keeps it.

use crate::{error::ClientError, lock};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll, Waker},
    time::Duration,
};
use streamhouse_core::{Partition, TopicName, TopicPartition};

/// Resolves when the record is stored and committed, or failed. Dropping it changes nothing for the record.
///
/// It takes 24 bytes; what it points to is shared by the whole batch.
#[must_use = "await it to learn whether the record was stored, or drop it explicitly"]
pub struct Delivery {
    batch: Arc<Promise>,
    sent_ns: u64,
    index: u32,
    /// Where this delivery's waker is among the batch's; [`NO_WAITER`] before it first waited.
    waiter: u32,
}

const NO_WAITER: u32 = u32::MAX;

/// Where a record is, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: u64,
    /// From the call of `send()` to the acknowledgement: to the nanosecond what the `send` event bins.
    pub latency: Duration,
}

/// How a batch ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Stored and committed: offset of the first record, and the monotonic time.
    Stored {
        base_offset: u64,
        ended_ns: u64,
    },
    Failed(ClientError),
}

/// What a batch and its deliveries share.
pub(crate) struct Promise {
    partition: TopicPartition,
    outcome: OnceLock<Outcome>,
    waiters: Mutex<Vec<Waker>>,
}

impl Promise {
    pub(crate) fn new(partition: TopicPartition) -> Arc<Promise> {
        Arc::new(Promise { partition, outcome: OnceLock::new(), waiters: Mutex::default() })
    }

    /// Ends the batch and wakes every delivery that waits. Only the first call counts.
    pub(crate) fn keep(&self, outcome: Outcome) {
        // The waiters' lock orders this with a delivery that is about to wait.
        let waiters = {
            let mut waiters = lock(&self.waiters);
            let _ = self.outcome.set(outcome);
            std::mem::take(&mut *waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// The delivery of the batch's record number `index`.
    pub(crate) fn delivery(self: &Arc<Self>, index: u32, sent_ns: u64) -> Delivery {
        Delivery { batch: Arc::clone(self), sent_ns, index, waiter: NO_WAITER }
    }
}

impl Delivery {
    fn result(&self, outcome: &Outcome) -> Result<DeliveryReport, ClientError> {
        match outcome {
            Outcome::Stored { base_offset, ended_ns } => Ok(DeliveryReport {
                topic: self.batch.partition.topic.clone(),
                partition: self.batch.partition.partition,
                offset: base_offset + u64::from(self.index),
                latency: Duration::from_nanos(ended_ns.saturating_sub(self.sent_ns)),
            }),
            Outcome::Failed(error) => Err(error.clone()),
        }
    }
}

impl Future for Delivery {
    type Output = Result<DeliveryReport, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.batch.outcome.get() {
            return Poll::Ready(self.result(outcome));
        }
        let batch = Arc::clone(&self.batch);
        let mut waiters = lock(&batch.waiters);
        if let Some(outcome) = batch.outcome.get() {
            return Poll::Ready(self.result(outcome));
        }
        match waiters.get_mut(self.waiter as usize) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.waiter = waiters.len() as u32;
                waiters.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Delivery");
        debug.field("partition", &self.batch.partition).field("index", &self.index);
        debug.field("outcome", &self.batch.outcome.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{future::join_all, task::noop_waker_ref};

    fn promise() -> Arc<Promise> {
        Promise::new(TopicPartition { topic: TopicName::new("orders").unwrap(), partition: 3 })
    }

    #[tokio::test]
    async fn every_delivery_of_a_batch_resolves_with_its_own_offset_and_latency() {
        let promise = promise();
        let deliveries: Vec<_> = (0..100).map(|index| promise.delivery(index, u64::from(index))).collect();
        let waiting = tokio::spawn(join_all(deliveries));
        tokio::task::yield_now().await;
        promise.keep(Outcome::Stored { base_offset: 1000, ended_ns: 500 });
        for (index, report) in waiting.await.unwrap().into_iter().enumerate() {
            let report = report.unwrap();
            assert_eq!((report.offset, report.partition), (1000 + index as u64, 3));
            assert_eq!(report.latency, Duration::from_nanos(500 - index as u64));
        }
    }

    #[test]
    fn a_delivery_that_is_polled_again_and_again_keeps_one_waker() {
        let promise = promise();
        let mut delivery = promise.delivery(0, 0);
        let mut cx = Context::from_waker(noop_waker_ref());
        for _ in 0..1000 {
            assert!(Pin::new(&mut delivery).poll(&mut cx).is_pending());
        }
        assert_eq!(lock(&promise.waiters).len(), 1);
        promise.keep(Outcome::Failed(ClientError::Closed));
        promise.keep(Outcome::Stored { base_offset: 0, ended_ns: 0 });
        assert!(matches!(Pin::new(&mut delivery).poll(&mut cx), Poll::Ready(Err(ClientError::Closed))));
    }
}
