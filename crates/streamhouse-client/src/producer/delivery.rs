//! The promise that `send()` gives.

use crate::error::ClientError;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use streamhouse_core::{Partition, TopicName};

/// Resolves when the record is stored and committed, or failed. Dropping it changes nothing for the record.
#[derive(Debug)]
#[must_use = "await it to learn whether the record was stored, or drop it explicitly"]
pub struct Delivery {}

/// Where a record is, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: u64,
    /// From the call of `send()` to the acknowledgement.
    pub latency: Duration,
}

impl Future for Delivery {
    type Output = Result<DeliveryReport, ClientError>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        unimplemented!()
    }
}
