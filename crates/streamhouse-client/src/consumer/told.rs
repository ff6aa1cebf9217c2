//! What a consumer tells of the partitions it reads, as long as it has claimed them: also one that hangs tells nothing of
//! what another reads by now.

use crate::lock;
use std::sync::{Arc, Mutex, Weak};
use streamhouse_core::TopicPartition;
use streamhouse_hooks::{Gauge, GaugeId, Instance};
use streamhouse_metadata::GroupOffset;

/// The gauges of one partition, until they are taken back.
pub(crate) struct Told(Mutex<Option<Gauges>>);

struct Gauges {
    lag_records: Gauge,
    lag_milliseconds: Gauge,
    committed: Gauge,
    current: Gauge,
}

impl Told {
    pub(crate) fn new(instance: &Instance, TopicPartition { topic, partition }: &TopicPartition) -> Told {
        let gauge = |id| instance.gauge(id, topic.as_str(), Some(*partition));
        Told(Mutex::new(Some(Gauges {
            lag_records: gauge(GaugeId::ConsumerLagRecords),
            lag_milliseconds: gauge(GaugeId::ConsumerLagMilliseconds),
            committed: gauge(GaugeId::ConsumerLastCommittedOffset),
            current: gauge(GaugeId::ConsumerCurrentOffset),
        })))
    }

    /// How far the group is, and where the next poll starts.
    pub(crate) fn progress(&self, offset: &GroupOffset, position: u64, now_ns: u64) {
        let Some(gauges) = &*lock(&self.0) else { return };
        gauges.lag_records.set(offset.lag_records, now_ns);
        gauges.lag_milliseconds.set(offset.lag.as_millis() as u64, now_ns);
        gauges.current.set(position, now_ns);
        if let Some(committed) = offset.committed {
            gauges.committed.set(committed, now_ns);
        }
    }

    /// Where the next poll starts.
    pub(crate) fn position(&self, position: u64, now_ns: u64) {
        if let Some(gauges) = &*lock(&self.0) {
            gauges.current.set(position, now_ns);
        }
    }

    fn take_back(&self) {
        *lock(&self.0) = None;
    }
}

/// What is told under which claim.
#[derive(Default)]
pub(crate) struct ToldByClaim(Mutex<Vec<(TopicPartition, u64, Weak<Told>)>>);

impl ToldByClaim {
    /// Has what is told of a partition taken back with this claim on it.
    pub(crate) fn add(&self, partition: &TopicPartition, generation: u64, told: &Arc<Told>) {
        lock(&self.0).push((partition.clone(), generation, Arc::downgrade(told)));
    }

    /// Takes back what is told under claims that are lost.
    pub(crate) fn retain(&self, is_held: impl Fn(&TopicPartition, u64) -> bool) {
        lock(&self.0).retain(|(partition, generation, told)| {
            let Some(told) = told.upgrade() else { return false };
            let held = is_held(partition, *generation);
            if !held {
                told.take_back();
            }
            held
        });
    }
}
