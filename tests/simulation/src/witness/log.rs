//! One partition's log as it was committed: invariants 2 to 4.

use super::Violation;
use crate::database::PartitionRow;
use crate::objects::Object;
use crate::producers::written_by;
use bytes::Bytes;
use std::collections::BTreeMap;
use streamhouse_core::TopicPartition;
use streamhouse_core::batch::{BatchHeader, ProducerStamp, RecordIter};
use streamhouse_metadata::{FlushRange, SegmentRange};

/// What was ever committed to a partition.
#[derive(Default)]
pub(super) struct Log {
    pub(super) log_start: u64,
    /// Values by offset, from 0.
    pub(super) records: Vec<Bytes>,
    /// Stamp and checksum of each batch by its first offset.
    batches: BTreeMap<u64, (ProducerStamp, u32)>,
    /// Newest epoch of each producer id, and its next sequence.
    sequences: BTreeMap<u64, (i16, i32)>,
    /// Number of the newest record of each producer.
    numbers: BTreeMap<u32, u32>,
}

fn violation(invariant: u8, what: String) -> Violation {
    Violation { invariant, what }
}

impl Log {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    pub(super) fn look(&self, at: &TopicPartition, row: &PartitionRow) -> Result<(), Violation> {
        let (end, high_watermark) = (self.end(), row.high_watermark);
        if high_watermark != end {
            let what = format!(
                "the high watermark of {at} is {high_watermark}, and what was committed ends at {end}"
            );
            return Err(violation(2, what));
        }
        if row.log_start != self.log_start {
            return Err(violation(2, format!("the log start of {at} has moved to {}", row.log_start)));
        }
        let begins = row.ranges.first().map_or(end, |range| range.base_offset);
        let ends = row.ranges.last().map_or(end, |range| range.end_offset);
        if (begins, ends) != (row.log_start, end) {
            let what = format!(
                "{at} has ranges from {begins} to {ends}, and records from {} to {end}",
                row.log_start
            );
            return Err(violation(2, what));
        }
        Ok(())
    }

    /// A range was committed: what is in the object, not what the agent says is in it.
    pub(super) fn append(&mut self, range: &FlushRange, object: &Object) -> Result<(), Violation> {
        let at = &range.partition;
        if range.base_offset != self.end() {
            let what =
                format!("{at} is committed from {} on, and ended at {}", range.base_offset, self.end());
            return Err(violation(2, what));
        }
        let mut content =
            object.bytes.slice(range.position as usize..(range.position + range.bytes) as usize);
        while !content.is_empty() {
            let first = self.end();
            let damaged = |error| violation(2, format!("{at} has a damaged batch at {first}: {error}"));
            let header = BatchHeader::parse(&content).map_err(damaged)?;
            let batch = content.split_to(header.len);
            BatchHeader::check(&batch).map_err(damaged)?;
            if header.base_offset != self.end() {
                let what =
                    format!("a batch at {at} {} says that it is at {}", self.end(), header.base_offset);
                return Err(violation(2, what));
            }
            self.take_stamp(at, &header)?;
            for record in RecordIter::new(batch).map_err(damaged)? {
                let (_, record) = record.map_err(damaged)?;
                self.take_record(at, record.value)?;
            }
        }
        if self.end() != range.base_offset + range.records {
            let what = format!(
                "{at} was said to get {} records at {}, and got others",
                range.records, range.base_offset
            );
            return Err(violation(2, what));
        }
        Ok(())
    }

    /// Invariant 4: sequences of an epoch are dense, and epochs only rise.
    fn take_stamp(&mut self, at: &TopicPartition, header: &BatchHeader) -> Result<(), Violation> {
        let Some(stamp) = header.producer else {
            return Err(violation(4, format!("a batch at {at} {} has no producer", header.base_offset)));
        };
        let ProducerStamp { producer_id, epoch, base_sequence } = stamp;
        let (newest, next) = self.sequences.get(&producer_id).copied().unwrap_or((0, 0));
        let expected = if epoch > newest { 0 } else { next };
        if epoch < newest || base_sequence != expected {
            let what = format!(
                "{at} gets sequence {base_sequence} of epoch {epoch} of producer {producer_id}; next is {expected} of epoch {}",
                epoch.max(newest)
            );
            return Err(violation(4, what));
        }
        self.sequences.insert(producer_id, (epoch, base_sequence + header.records as i32));
        self.batches.insert(header.base_offset, (stamp, header.checksum));
        Ok(())
    }

    /// Invariant 4: a producer's records are stored in its order, each once.
    fn take_record(&mut self, at: &TopicPartition, value: Bytes) -> Result<(), Violation> {
        let Some((producer, number)) = written_by(&value) else {
            return Err(violation(3, format!("nobody wrote the record at {at} {}", self.end())));
        };
        if let Some(before) = self.numbers.insert(producer, number)
            && before >= number
        {
            return Err(violation(
                4,
                format!("{at} gets record {number} of producer {producer} after {before}"),
            ));
        }
        self.records.push(value);
        Ok(())
    }

    pub(super) fn shown(
        &self,
        at: &TopicPartition,
        offset: u64,
        ranges: &[SegmentRange],
    ) -> Result<(), Violation> {
        let mut next = offset.max(self.log_start);
        for range in ranges {
            if range.end_offset > self.end() {
                let what = format!("{at} can be read to {}, and ends at {}", range.end_offset, self.end());
                return Err(violation(2, what));
            }
            if !(range.base_offset..range.end_offset).contains(&next) {
                return Err(violation(2, format!("{at} cannot be read at {next}")));
            }
            next = range.end_offset;
        }
        if ranges.is_empty() && next < self.end() {
            return Err(violation(2, format!("{at} cannot be read at {next}, and ends at {}", self.end())));
        }
        Ok(())
    }

    pub(super) fn answered(
        &self,
        at: &TopicPartition,
        batch: &BatchHeader,
        base_offset: u64,
    ) -> Result<(), Violation> {
        let is_it = |(stamp, checksum): &(ProducerStamp, u32)| {
            Some(*stamp) == batch.producer && *checksum == batch.checksum
        };
        if self.batches.get(&base_offset).is_some_and(is_it) {
            return Ok(());
        }
        let elsewhere = self.batches.iter().find(|(_, batch)| is_it(batch));
        Err(match elsewhere {
            Some((first, _)) => {
                violation(4, format!("a batch at {at} {first} is acknowledged at {base_offset}"))
            }
            None => {
                violation(3, format!("a batch is acknowledged at {at} {base_offset}, and is not committed"))
            }
        })
    }
}
