//! The producer: records in, batches out.

mod agents;
mod batch;
mod builder;
mod delivery;
mod dispatcher;
mod holders;
mod lane;
mod partitioner;
mod shared;
mod topics;

#[doc(hidden)]
pub use agents::Transport;
pub use builder::ProducerBuilder;
pub use delivery::{Delivery, DeliveryReport};

use crate::error::Result;
use batch::NewRecord;
use shared::Shared;
use std::sync::{Arc, atomic::Ordering};
use streamhouse_core::{Partition, Record};

/// Sends records.
///
/// Share it by reference or in an `Arc`; every call may be made from many tasks at one time. Records of one partition are
/// stored in the order in which they were accepted, also when a batch has to be sent again, and a batch that is sent
/// again is stored once.
///
/// Every accepted record ends acknowledged or failed, within the delivery timeout. When a batch fails for good after it was
/// sent, those of its partition that were sent behind it and are not acknowledged fail with it
/// ([`Abandoned`](crate::ClientError::Abandoned)): sent again by themselves, they could be stored twice or out of order.
/// Later records of the partition go on.
///
/// **What happens when it is dropped**: records that were accepted are still sent, in the background, as long as the
/// tokio runtime runs; their deliveries resolve. A runtime that shuts down before that fails the rest with
/// [`Closed`](crate::ClientError::Closed) and logs an error with their number. Call [`close`](Self::close) to wait.
pub struct Producer {
    shared: Arc<Shared>,
}

/// What a producer has done so far. Every accepted record is in exactly one of `acknowledged`, `failed` and `pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records acknowledged: stored and committed.
    pub acknowledged: u64,
    /// Records accepted by `send()` that failed later.
    pub failed: u64,
    /// Records accepted and neither acknowledged nor failed yet.
    pub pending: u64,
    /// Calls of `send()` that returned an error: their records were never accepted.
    pub refused: u64,
    /// Bytes of the buffer in use.
    pub buffered_bytes: u64,
}

impl ProducerStats {
    /// Records that met an error, before or after they were accepted.
    pub fn errors(&self) -> u64 {
        self.failed + self.refused
    }
}

impl Producer {
    /// A producer to be configured.
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::default()
    }

    /// Accepts a record. `Ok` means that it is in the buffer, **not** that it is stored: await the [`Delivery`] for that,
    /// or drop it and look at [`stats`](Self::stats). Waits while the buffer is full. A call that is cancelled has sent
    /// nothing.
    ///
    /// Without `partition`, a key decides (as Kafka's clients do: murmur2); without a key, one partition gets records until
    /// its batch is sealed, then the next does. The record's timestamp is now.
    ///
    /// # Errors
    ///
    /// The record was not accepted. `Invalid`: the topic's name breaks the rules, or the record is over
    /// [`RECORD_BYTES_MAX`](streamhouse_core::limits::RECORD_BYTES_MAX). `NotFound`: there is no such topic or partition.
    /// `Unavailable`: the buffer stayed full for the send timeout, or the producer is closed.
    ///
    /// ```no_run
    /// # async fn example(producer: streamhouse_client::Producer) -> streamhouse_client::Result<()> {
    /// let first = producer.send("orders", Some(b"customer-7"), b"one", None).await?;
    /// let second = producer.send("orders", Some(b"customer-7"), b"two", None).await?;
    /// // Both are on their way; now wait until both are durable.
    /// assert!(first.await?.offset < second.await?.offset);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub async fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: &[u8],
        partition: Option<Partition>,
    ) -> Result<Delivery> {
        let record = NewRecord { timestamp_ms: None, key, value, headers: &[] };
        self.accept(topic, partition, record).await
    }

    /// As [`send`](Self::send), with the record's own timestamp and headers.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_record(
        &self,
        topic: &str,
        partition: Option<Partition>,
        record: Record,
    ) -> Result<Delivery> {
        let Record { timestamp_ms, key, value, headers } = &record;
        let record = NewRecord { timestamp_ms: Some(*timestamp_ms), key: key.as_deref(), value, headers };
        self.accept(topic, partition, record).await
    }

    #[inline]
    async fn accept(
        &self,
        topic: &str,
        partition: Option<Partition>,
        record: NewRecord<'_>,
    ) -> Result<Delivery> {
        let accepted = self.shared.send(topic, partition, record).await;
        if accepted.is_err() {
            self.shared.totals.refused.fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    /// Sends everything now and waits until every record accepted before the call has ended.
    ///
    /// # Errors
    ///
    /// The error of the first batch that failed, when one did; all the others have ended too.
    pub async fn flush(&self) -> Result<()> {
        let mut result = Ok(());
        for delivery in self.shared.seal_all() {
            result = result.and(delivery.await.map(drop));
        }
        result
    }

    /// Refuses further records, then waits as [`flush`](Self::flush) does. At most the delivery timeout passes.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub async fn close(&self) -> Result<()> {
        self.shared.close();
        self.flush().await
    }

    /// What it has done so far.
    pub fn stats(&self) -> ProducerStats {
        let Shared { totals, config, buffer, .. } = &*self.shared;
        ProducerStats {
            acknowledged: totals.acknowledged.load(Ordering::Relaxed),
            failed: totals.failed.load(Ordering::Relaxed),
            pending: self.shared.topics().lanes().map(|lane| lane.pending()).sum(),
            refused: totals.refused.load(Ordering::Relaxed),
            buffered_bytes: (config.buffer_bytes - buffer.available_permits()) as u64,
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.close();
        self.shared.seal_all();
    }
}
