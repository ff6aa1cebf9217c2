//! The producer.

mod builder;
mod delivery;

pub use builder::ProducerBuilder;
pub use delivery::{Delivery, DeliveryReport};

use crate::error::Result;
use streamhouse_core::{Partition, Record};

/// Sends records.
pub struct Producer {}

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

impl Producer {
    /// A producer to be configured.
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::default()
    }

    /// Enqueues a record. `Ok` means enqueued, not stored: await the [`Delivery`] for that.
    pub async fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: &[u8],
        partition: Option<Partition>,
    ) -> Result<Delivery> {
        let _ = (topic, key, value, partition);
        unimplemented!()
    }

    /// Enqueues a record with its own timestamp and headers.
    pub async fn send_record(&self, topic: &str, partition: Option<Partition>, record: Record) -> Result<Delivery> {
        let _ = (topic, partition, record);
        unimplemented!()
    }

    /// Waits until every record accepted before the call is acknowledged or failed; the error of one that failed.
    pub async fn flush(&self) -> Result<()> {
        unimplemented!()
    }

    /// Flushes, then refuses further records.
    pub async fn close(&self) -> Result<()> {
        unimplemented!()
    }

    /// What it has done so far.
    pub fn stats(&self) -> ProducerStats {
        unimplemented!()
    }
}
