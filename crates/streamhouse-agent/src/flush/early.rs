//! When batches that overtook another of their producer are given up.

use super::window::ProducerEpoch;
use super::writer::PartitionWriter;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use streamhouse_core::TopicPartition;
use tokio::time::Instant;

/// How long a batch waits for the ones before it. Requests of one producer race each other for milliseconds; more means
/// that the others are not coming.
const EARLY_WAIT: Duration = Duration::from_millis(500);

/// A producer's epoch and the first sequence of its batch.
pub(super) type EarlyKey = (ProducerEpoch, i32);

/// The early batches of all partitions by age. The batches themselves are with their writers.
#[derive(Debug, Default)]
pub(super) struct EarlyBatches {
    oldest_first: VecDeque<(Instant, TopicPartition, EarlyKey)>,
}

impl EarlyBatches {
    pub(super) fn push(&mut self, partition: TopicPartition, key: EarlyKey, now: Instant) {
        self.oldest_first.push_back((now, partition, key));
    }

    /// When the oldest is given up.
    pub(super) fn expiry(&self) -> Option<Instant> {
        self.oldest_first.front().map(|(since, ..)| *since + EARLY_WAIT)
    }

    /// Gives up on those whose time is over and that still wait.
    pub(super) fn expire(&mut self, now: Instant, writers: &mut HashMap<TopicPartition, PartitionWriter>) {
        while let Some((since, partition, key)) =
            self.oldest_first.pop_front_if(|(since, ..)| *since + EARLY_WAIT <= now)
        {
            if let Some(writer) = writers.get_mut(&partition) {
                writer.expire(key, since);
            }
        }
    }
}
