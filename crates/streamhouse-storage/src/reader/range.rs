//! A place in one range: what was got of it, and which record is next.

use super::RangeLocation;
use crate::{Result, SegmentStore, StorageError, segment::Index};
use bytes::Bytes;
use std::ops::ControlFlow;
use streamhouse_core::{
    Record, TopicPartition,
    batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, RecordIter},
    limits::SEGMENT_BYTES_MAX,
};

/// Reads one range. Every get ends where a batch ends: at the range's end, or at one that the index tells.
#[derive(Debug)]
pub(super) struct RangeReader {
    location: RangeLocation,
    /// Offset of the next record to give.
    offset: u64,
    /// Got once it is needed.
    index: Option<Index>,
    /// Where the first batch of `window` begins; with an empty window, the next to get.
    next: BatchStart,
    /// Batches got and not opened yet.
    window: Bytes,
    /// The batch that holds `offset`, when it is open.
    open: Option<OpenBatch>,
    /// A batch that could not be decoded: nothing is given beyond it.
    malformed: Option<Malformed>,
}

/// Where a batch begins.
#[derive(Clone, Copy, Debug)]
struct BatchStart {
    position: u64,
    offset: u64,
}

/// A batch that was checked, being decoded.
#[derive(Debug)]
struct OpenBatch {
    position: u64,
    end_offset: u64,
    records: RecordIter,
}

/// A batch that passed its checks and does not hold what its header promises.
#[derive(Clone, Copy, Debug)]
struct Malformed {
    position: u64,
    end_offset: u64,
    error: BatchError,
}

impl RangeReader {
    pub(super) fn new(partition: &TopicPartition, location: RangeLocation, offset: u64) -> Result<Self> {
        if let Err(problem) = check(&location, offset) {
            let RangeLocation { object, .. } = location;
            return Err(StorageError::Range { partition: partition.clone(), object, problem });
        }
        let next = BatchStart { position: location.position, offset: location.base_offset };
        Ok(Self { location, offset, index: None, next, window: Bytes::new(), open: None, malformed: None })
    }

    pub(super) fn location(&self) -> &RangeLocation {
        &self.location
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.offset == self.location.end_offset
    }

    /// Goes to another offset of the range. What was got is kept when the offset lies ahead.
    pub(super) fn seek(&mut self, offset: u64) {
        if offset == self.offset {
            return;
        }
        self.malformed = None;
        let open = self.open.take().filter(|_| (self.offset..self.next.offset).contains(&offset));
        if open.is_none() && offset < self.next.offset {
            self.window = Bytes::new();
            self.next = BatchStart { position: self.location.position, offset: self.location.base_offset };
        }
        self.open = open;
        self.offset = offset;
    }

    /// Opens the batch that holds the next record, and gets it first when it is not here; whether it did get. Nothing
    /// changes when it is cancelled.
    pub(super) async fn fill(
        &mut self,
        store: &SegmentStore,
        partition: &TopicPartition,
        read_ahead_bytes: u64,
    ) -> Result<bool> {
        if let Some(malformed) = self.malformed {
            return Err(self.malformed(malformed));
        }
        if self.open_batch()? {
            return Ok(false);
        }
        if self.range_end() - self.next.position > read_ahead_bytes && self.index.is_none() {
            self.index = Some(self.get_index(store, partition).await?);
        }
        let end = self.next_get(read_ahead_bytes);
        self.window = store.get(&self.location.object, self.next.position..end).await?;
        if self.open_batch()? {
            return Ok(true);
        }
        Err(self.corrupt(self.next.position, "its batches end before the range does"))
    }

    /// Gives records to `sink` until it has enough or nothing more is here.
    pub(super) fn take(&mut self, mut sink: impl FnMut(u64, Record) -> ControlFlow<()>) -> Result<()> {
        while let Some(open) = &mut self.open {
            for record in &mut open.records {
                match record {
                    Ok((offset, record)) => {
                        self.offset = offset + 1;
                        if sink(offset, record).is_break() {
                            return Ok(());
                        }
                    }
                    Err(error) => {
                        let OpenBatch { position, end_offset, .. } = *open;
                        return Err(self.fail(Malformed { position, end_offset, error }));
                    }
                }
            }
            self.open = None;
            self.open_batch()?;
        }
        Ok(())
    }

    /// Makes sure that the batch with the next record is open, as far as the window goes; whether it is. Each batch is
    /// checked before anything of it counts, also those that are passed over.
    fn open_batch(&mut self) -> Result<bool> {
        if let Some(open) = &mut self.open {
            if let Err(error) = open.records.skip_to(self.offset) {
                let OpenBatch { position, end_offset, .. } = *open;
                return Err(self.fail(Malformed { position, end_offset, error }));
            }
            if open.records.remaining() > 0 {
                return Ok(true);
            }
            self.open = None;
        }
        debug_assert!(self.next.offset <= self.offset, "a batch in between was left out");
        while !self.window.is_empty() {
            let position = self.next.position;
            let header = match self.check_batch() {
                Ok(header) => header,
                Err(problem) => {
                    // The next call gets it again: the object may have been restored by then.
                    self.window = Bytes::new();
                    return Err(self.corrupt(position, problem));
                }
            };
            let end_offset = header.end_offset();
            let batch = self.window.split_to(header.len);
            self.next = BatchStart { position: position + header.len as u64, offset: end_offset };
            if end_offset > self.offset {
                let opened = RecordIter::new(batch)
                    .and_then(|mut records| records.skip_to(self.offset).map(|()| records));
                let records = opened.map_err(|error| self.fail(Malformed { position, end_offset, error }))?;
                self.open = Some(OpenBatch { position, end_offset, records });
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks the batch at the front of the window, by itself and against its place.
    fn check_batch(&self) -> Result<BatchHeader, String> {
        let len = BatchHeader::parse(&self.window).map_err(|error| error.to_string())?.len;
        let batch = self.window.get(..len).ok_or("a batch goes beyond the range")?;
        let header = BatchHeader::check(batch).map_err(|error| error.to_string())?;
        if header.base_offset != self.next.offset {
            return Err(format!("a batch has offset {} instead of {}", header.base_offset, self.next.offset));
        }
        let is_last = self.next.position + len as u64 == self.range_end();
        let left = self.location.end_offset.checked_sub(header.end_offset());
        if left.is_none_or(|left| (left == 0) != is_last) {
            return Err("its batches do not end at the offset at which the range does".to_owned());
        }
        match &self.index {
            Some(index) if !index.lists(self.next.offset, self.next.position, batch) => {
                Err("a batch is not the one that the index lists".to_owned())
            }
            _ => Ok(header),
        }
    }

    async fn get_index(&self, store: &SegmentStore, partition: &TopicPartition) -> Result<Index> {
        let RangeLocation { object, segment, index_position, index_bytes, .. } = &self.location;
        let block = store.get(object, *index_position..index_position + u64::from(*index_bytes)).await?;
        let problem = |problem| self.corrupt(*index_position, problem);
        let index = Index::decode(block, *segment, partition).map_err(problem)?;
        let agrees = index.base_offset() == self.location.base_offset
            && index.end_offset() == self.location.end_offset
            && index.position() == self.location.position
            && index.bytes() == self.location.bytes;
        if agrees { Ok(index) } else { Err(problem("it is the index of another range".to_owned())) }
    }

    /// Goes to where the next get begins and tells where it ends: at least one batch, and as many more as the read-ahead
    /// takes.
    fn next_get(&mut self, read_ahead_bytes: u64) -> u64 {
        let Some(index) = &self.index else { return self.range_end() };
        let first = index.find(self.offset);
        if let Some(batch) = index.batch(first) {
            self.next = BatchStart { position: batch.position, offset: batch.base_offset };
        }
        index.batches_end(first, self.next.position + read_ahead_bytes)
    }

    fn range_end(&self) -> u64 {
        self.location.position + self.location.bytes
    }

    /// Gives nothing more until a seek.
    #[cold]
    fn fail(&mut self, malformed: Malformed) -> StorageError {
        self.open = None;
        self.malformed = Some(malformed);
        self.malformed(malformed)
    }

    fn malformed(&self, Malformed { position, end_offset, error }: Malformed) -> StorageError {
        let object = self.location.object.clone();
        StorageError::Malformed { object, position, end_offset, source: error }
    }

    fn corrupt(&self, position: u64, problem: impl Into<String>) -> StorageError {
        let object = self.location.object.clone();
        StorageError::Corrupt { object, position, problem: problem.into() }
    }
}

/// What a commit can have made, and an offset in it.
fn check(range: &RangeLocation, offset: u64) -> Result<(), &'static str> {
    let segment = SEGMENT_BYTES_MAX as u64;
    if range.base_offset >= range.end_offset {
        return Err("it has no records");
    }
    if !(range.base_offset..=range.end_offset).contains(&offset) {
        return Err("the offset asked for is not in it");
    }
    if !(BATCH_HEADER_BYTES as u64..=segment).contains(&range.bytes)
        || range.position > segment
        || u64::from(range.index_bytes) > segment
        || range.index_position > 2 * segment
    {
        return Err("its positions or sizes are out of range");
    }
    Ok(())
}
