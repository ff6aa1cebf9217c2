//! What a consume run cannot read, while it reads on elsewhere.

use crate::output::note;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use streamhouse_client::{ClientError, ConsumedRecord};
use streamhouse_core::{Counted, TopicPartition};

/// Partitions that stand before something damaged or malformed.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    stops: BTreeMap<TopicPartition, Stop>,
    /// Errors since a poll last gave records.
    in_a_row: usize,
}

/// Where a partition stands, and the first offset behind what cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stop {
    offset: u64,
    next_offset: u64,
}

impl Unreadable {
    /// Takes an error that stops one partition, and says it when it is new; gives any other back.
    pub(crate) fn take(&mut self, error: ClientError) -> Result<(), ClientError> {
        let ClientError::Storage { partition, offset, next_offset: Some(next_offset), .. } = &error else {
            return Err(error);
        };
        self.in_a_row += 1;
        let stop = Stop { offset: *offset, next_offset: *next_offset };
        if self.stops.insert(partition.clone(), stop) != Some(stop) {
            note(&format!("{partition} is left where it is: {error}"));
        }
        Ok(())
    }

    /// Takes note of what was read: a partition that gives records again was restored.
    pub(crate) fn read(&mut self, records: &[ConsumedRecord]) {
        self.in_a_row = 0;
        if !self.stops.is_empty() {
            let gave = |partition: &TopicPartition| {
                records
                    .iter()
                    .any(|record| record.partition == partition.partition && record.topic == partition.topic)
            };
            self.stops.retain(|partition, _| !gave(partition));
        }
    }

    /// Forgets the partitions that others read now.
    pub(crate) fn keep_among<'a>(&mut self, partitions: impl Iterator<Item = &'a TopicPartition>) {
        if !self.stops.is_empty() {
            let read: BTreeSet<_> = partitions.collect();
            self.stops.retain(|partition, _| read.contains(partition));
        }
    }

    /// How many partitions stand.
    pub(crate) fn partitions(&self) -> usize {
        self.stops.len()
    }

    /// Whether every partition had its turn since the last records came: there is nothing to read for now.
    pub(crate) fn went_round(&self) -> bool {
        self.in_a_row > self.stops.len()
    }

    /// How the run of a group ends.
    ///
    /// # Errors
    ///
    /// When a partition stands, with the command that moves the group past it.
    pub(crate) fn verdict(&self, group: &str) -> Result<()> {
        if self.stops.is_empty() {
            return Ok(());
        }
        let ways = self.stops.iter().map(|(partition, Stop { offset, next_offset })| {
            let TopicPartition { topic, partition: number } = partition;
            format!(
                "{partition} stands at offset {offset}, and `streamhouse groups reset-offsets {group} --topic {topic} \
                 --partition {number} --to {next_offset}` passes what cannot be read"
            )
        });
        let ways: Vec<_> = ways.collect();
        bail!("{} could not be read on: {}", Counted(self.stops.len() as u64, "partition"), ways.join("; "))
    }
}
