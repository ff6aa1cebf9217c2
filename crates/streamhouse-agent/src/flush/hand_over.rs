//! Partitions that go to other agents: written to their end, then let go of.

use super::{Flusher, LeaseEvent};
use crate::error::WriteError;
use std::collections::HashSet;
use streamhouse_core::TopicPartition;

impl Flusher {
    /// Takes nothing new for these partitions from now on. What waits or is in flight goes on.
    pub(super) fn hand_over(&mut self, partitions: Vec<TopicPartition>) {
        for partition in partitions {
            if let Some(writer) = self.writers.get_mut(&partition) {
                writer.leave(&WriteError::HandedOver(partition.clone()));
                self.leaving.insert(partition);
            }
        }
    }

    /// Lets go of those of the leaving partitions of which nothing waits and nothing is in flight: the outcome of their
    /// last commit is known, so that their next holder begins where they end.
    pub(super) fn tell_drained(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let in_flight = self.writers_in_flight();
        for partition in std::mem::take(&mut self.leaving) {
            // A writer that is gone was fenced, or its lease was lost: that was told.
            let Some(writer) = self.writers.get(&partition).filter(|writer| writer.is_leaving()) else {
                continue;
            };
            if writer.has_waiting() || in_flight.contains(&writer.id) {
                self.leaving.insert(partition);
                continue;
            }
            let epoch = writer.epoch();
            self.close([partition.clone()], |partition| WriteError::HandedOver(partition.clone()));
            // Nobody listens when the agent shuts down.
            let _ = self.leases.send(LeaseEvent::Drained(partition, epoch));
        }
    }

    fn writers_in_flight(&self) -> HashSet<u64> {
        let storing = self.storing.as_ref().map(|step| &step.flight);
        let committing = self.committing.as_ref().map(|step| &step.flight);
        let flights = storing.into_iter().chain(&self.stored).chain(committing);
        flights.flat_map(|flight| &flight.ranges).map(|range| range.batches.writer).collect()
    }
}
