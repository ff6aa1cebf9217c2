//! Reading one partition.

mod range;

use crate::{Result, SegmentStore};
use range::RangeReader;
use std::ops::ControlFlow;
use streamhouse_core::{Record, SegmentId, TopicPartition};

/// What the first get of a reader asks for: about what one poll returns.
const READ_AHEAD_FIRST_BYTES: u64 = 64 << 10;
/// What a get asks for once a reader has shown that it reads on. Larger gains nothing on a local disk, and a record that
/// the application keeps, keeps the memory of its whole get.
const READ_AHEAD_MAX_BYTES: u64 = 1 << 20;
/// By how much it grows with each get.
const READ_AHEAD_GROWTH: u64 = 4;

/// A committed range of one partition, as metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeLocation {
    /// The segment.
    pub segment: SegmentId,
    /// Object key.
    pub object: String,
    /// First offset.
    pub base_offset: u64,
    /// One past the last offset.
    pub end_offset: u64,
    /// Position of the partition's first batch in the object.
    pub position: u64,
    /// Bytes of the partition's batches.
    pub bytes: u64,
    /// Position of the partition's index block in the object.
    pub index_position: u64,
    /// Bytes of the partition's index block.
    pub index_bytes: u32,
}

/// What one read gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Records.
    pub records: u64,
    /// Their bytes, as [`Record::bytes`] counts them.
    pub bytes: u64,
}

/// Reads one partition, range after range.
///
/// A read costs what it returns: it seeks by the range's index, gets as much as it is likely to need (64 KiB at first, up
/// to 1 MiB while it reads on) and keeps its place inside a batch. A batch's checksum is verified once, before anything of
/// it is used (invariant 6), and offsets are dense: whatever is damaged gives an error, never a wrong record.
///
/// ```no_run
/// # use streamhouse_storage::{PartitionReader, RangeLocation, Result};
/// # async fn all(mut reader: PartitionReader, ranges: Vec<RangeLocation>) -> Result<()> {
/// for range in ranges {
///     let offset = range.base_offset;
///     reader.open(range, offset)?;
///     while !reader.is_at_end() {
///         reader.read(500, 1 << 20, |offset, record| println!("{offset} {:?}", record.value)).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PartitionReader {
    store: SegmentStore,
    partition: TopicPartition,
    read_ahead_bytes: u64,
    range: Option<RangeReader>,
}

impl PartitionReader {
    /// A reader that has no range yet.
    pub fn new(store: SegmentStore, partition: TopicPartition) -> Self {
        Self { store, partition, read_ahead_bytes: READ_AHEAD_FIRST_BYTES, range: None }
    }

    /// What it reads.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Goes to `offset`, which lies in `range` or at its end. Gets nothing yet. What was got before is kept when the range
    /// is still the same and the offset lies ahead; a reader that goes on where it stood keeps its read-ahead.
    ///
    /// # Errors
    ///
    /// `Range`, kind `Corrupt`, when the offset is not in the range or the range cannot be one; the reader is as it was.
    pub fn open(&mut self, range: RangeLocation, offset: u64) -> Result<()> {
        let continues = self.offset() == Some(offset);
        let opened = RangeReader::new(&self.partition, range, offset)?;
        match &mut self.range {
            Some(current) if current.location() == opened.location() => current.seek(offset),
            _ => self.range = Some(opened),
        }
        if !continues {
            self.read_ahead_bytes = READ_AHEAD_FIRST_BYTES;
        }
        Ok(())
    }

    /// Offset of the next record; `None` before the first [`open`](Self::open).
    pub fn offset(&self) -> Option<u64> {
        self.range.as_ref().map(RangeReader::offset)
    }

    /// Whether the range is read to its end, or there is none: open the next.
    pub fn is_at_end(&self) -> bool {
        self.range.as_ref().is_none_or(RangeReader::is_at_end)
    }

    /// Gives records to `sink`, in order: at most `max_records`, and no further one once they have `max_bytes` or more, as
    /// far as they are here after at most one get of batches (and one of the index). Gives none only at the range's end,
    /// or when `max_records` is 0.
    ///
    /// Cancel safe: it waits only before it gives the first record.
    ///
    /// # Errors
    ///
    /// `NotFound` when the object was removed, `Corrupt` when it or the range is damaged or a batch was malformed from the
    /// start, `Unavailable` when the store failed. No record was given then, and the reader is where it was: the same call
    /// can be made again, and gets what was damaged anew.
    pub async fn read(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        mut sink: impl FnMut(u64, Record),
    ) -> Result<Taken> {
        let mut taken = Taken::default();
        let Some(range) = &mut self.range else { return Ok(taken) };
        if max_records == 0 || range.is_at_end() {
            return Ok(taken);
        }
        if range.fill(&self.store, &self.partition, self.read_ahead_bytes).await? {
            self.read_ahead_bytes = READ_AHEAD_MAX_BYTES.min(self.read_ahead_bytes * READ_AHEAD_GROWTH);
        }
        let read = range.take(|offset, record| {
            taken.records += 1;
            taken.bytes += record.bytes() as u64;
            sink(offset, record);
            if taken.records >= max_records as u64 || taken.bytes >= max_bytes as u64 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match read {
            // The next call meets the error again, and nothing that was given is lost.
            Err(error) if taken.records == 0 => Err(error),
            _ => Ok(taken),
        }
    }
}

#[cfg(test)]
mod tests;
