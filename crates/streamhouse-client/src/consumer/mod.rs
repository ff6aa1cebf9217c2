//! The consumer.

mod builder;

pub use builder::{ConsumerBuilder, OffsetReset};

use crate::error::Result;
use bytes::Bytes;
use std::time::Duration;
use streamhouse_core::{Header, Partition, TopicName};

/// Reads topics for a group.
pub struct Consumer {}

/// A record and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: Partition,
    /// Its offset in the partition.
    pub offset: u64,
    /// Milliseconds since 1970-01-01 UTC, as the producer stated it.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value: a slice of what was read; copy it to keep it for long, since it holds its batch in memory.
    pub value: Bytes,
    /// Headers, in order.
    pub headers: Vec<Header>,
}

impl Consumer {
    /// A consumer to be configured.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::default()
    }

    /// The next records; empty when none came within the timeout.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumedRecord>> {
        let _ = timeout;
        unimplemented!()
    }

    /// Commits what poll has returned.
    pub async fn commit(&mut self) -> Result<()> {
        unimplemented!()
    }

    /// Commits one offset: the next record the group will read there.
    pub async fn commit_offset(&mut self, topic: &str, partition: Partition, offset: u64) -> Result<()> {
        let _ = (topic, partition, offset);
        unimplemented!()
    }

    /// Moves the position of a partition; the next poll reads from there.
    pub async fn seek(&mut self, topic: &str, partition: Partition, offset: u64) -> Result<()> {
        let _ = (topic, partition, offset);
        unimplemented!()
    }

    /// The offset the next poll starts at.
    pub fn position(&self, topic: &str, partition: Partition) -> Result<u64> {
        let _ = (topic, partition);
        unimplemented!()
    }

    /// The offset the group has committed, if it has.
    pub async fn committed(&self, topic: &str, partition: Partition) -> Result<Option<u64>> {
        let _ = (topic, partition);
        unimplemented!()
    }

    /// High watermark minus committed offset (log start when there is none).
    pub async fn lag(&self, topic: &str, partition: Partition) -> Result<u64> {
        let _ = (topic, partition);
        unimplemented!()
    }

    /// Ends the consumer; with `auto_commit`, commits first.
    pub async fn close(self) -> Result<()> {
        unimplemented!()
    }
}
