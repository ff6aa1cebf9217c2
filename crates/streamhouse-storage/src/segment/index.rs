//! A partition's index block: where each of its batches begins.

use super::{head_checksum, input};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use streamhouse_core::{SegmentId, TopicPartition};

/// Bytes before the topic.
const FIXED_BYTES: usize = 58;
const ENTRY_BYTES: usize = 12;

/// The batches of one partition in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    base_offset: u64,
    records: u64,
    position: u64,
    bytes: u64,
    entries: Vec<Entry>,
}

/// Where a batch begins, relative to the range. A segment is small enough for 32 bits: a record takes bytes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    offset: u32,
    position: u32,
    head_checksum: u32,
}

/// A batch as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexedBatch {
    /// First offset.
    pub(crate) base_offset: u64,
    /// Position in the object.
    pub(crate) position: u64,
    /// Checksum of its head.
    pub(crate) head_checksum: u32,
}

impl Index {
    /// An index without batches, for a range that begins at this offset and position.
    pub(super) fn new(base_offset: u64, position: u64) -> Index {
        Index { base_offset, records: 0, position, bytes: 0, entries: Vec::new() }
    }

    /// Adds the next batch.
    pub(super) fn push(&mut self, records: u64, bytes: u64, head_checksum: u32) {
        self.entries.push(Entry { offset: self.records as u32, position: self.bytes as u32, head_checksum });
        self.records += records;
        self.bytes += bytes;
    }

    pub(crate) fn base_offset(&self) -> u64 {
        self.base_offset
    }

    pub(crate) fn end_offset(&self) -> u64 {
        self.base_offset + self.records
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many batches there are.
    pub(crate) fn batches(&self) -> usize {
        self.entries.len()
    }

    /// A batch by its number; behind the last, where it ends.
    pub(crate) fn batch(&self, number: usize) -> Option<IndexedBatch> {
        self.entries.get(number).map(|entry| IndexedBatch {
            base_offset: self.base_offset + u64::from(entry.offset),
            position: self.position + u64::from(entry.position),
            head_checksum: entry.head_checksum,
        })
    }

    /// Position of the end of a batch.
    pub(crate) fn batch_end(&self, number: usize) -> u64 {
        let end = self.entries.get(number + 1).map_or(self.bytes, |next| u64::from(next.position));
        self.position + end
    }

    /// The end of the last batch that ends at or before `limit`, but of `first` at least.
    pub(crate) fn batches_end(&self, first: usize, limit: u64) -> u64 {
        let fits = |entry: &Entry| self.position + u64::from(entry.position) <= limit;
        if self.position + self.bytes <= limit {
            return self.position + self.bytes;
        }
        let behind = self.entries.partition_point(fits).saturating_sub(1);
        self.batch_end(behind.saturating_sub(1).max(first))
    }

    /// Whether `batch`, found at this place, is the one that belongs there.
    pub(crate) fn lists(&self, offset: u64, position: u64, batch: &[u8]) -> bool {
        self.batch(self.find(offset)).is_some_and(|listed| {
            listed.base_offset == offset
                && listed.position == position
                && listed.head_checksum == head_checksum(batch)
        })
    }

    /// Number of the batch that holds an offset of the range.
    pub(crate) fn find(&self, offset: u64) -> usize {
        let delta = offset.saturating_sub(self.base_offset);
        self.entries.partition_point(|entry| u64::from(entry.offset) <= delta).saturating_sub(1)
    }

    /// Appends the block to `out`; how many bytes it has.
    pub(super) fn encode(&self, segment: SegmentId, partition: &TopicPartition, out: &mut BytesMut) -> u32 {
        let start = out.len();
        let topic = partition.topic.as_str();
        out.reserve(FIXED_BYTES + topic.len() + ENTRY_BYTES * self.entries.len() + 4);
        out.put_u128(segment.0);
        out.put_u64(self.base_offset);
        out.put_u64(self.records);
        out.put_u64(self.position);
        out.put_u64(self.bytes);
        out.put_u32(partition.partition);
        out.put_u32(self.entries.len() as u32);
        out.put_u16(topic.len() as u16);
        out.put_slice(topic.as_bytes());
        for entry in &self.entries {
            out.put_u32(entry.offset);
            out.put_u32(entry.position);
            out.put_u32(entry.head_checksum);
        }
        out.put_u32(crc32c::crc32c(&out[start..]));
        (out.len() - start) as u32
    }

    /// Reads a block, and trusts it only once its checksum matched and it is the block of this segment and partition
    /// (invariant 6).
    pub(crate) fn decode(
        block: Bytes,
        segment: SegmentId,
        partition: &TopicPartition,
    ) -> Result<Index, String> {
        let mut block = input::checked(block)?;
        if block.len() < FIXED_BYTES {
            return Err("it is too short".to_owned());
        }
        let found = SegmentId(block.get_u128());
        let mut index = Index::new(block.get_u64(), 0);
        index.records = block.get_u64();
        index.position = block.get_u64();
        index.bytes = block.get_u64();
        let number = block.get_u32();
        let batches = block.get_u32() as usize;
        let topic_len = block.get_u16();
        let of = input::partition(&mut block, topic_len, number)?;
        if found != segment || of != *partition {
            return Err(format!("it is the index of {of} in segment {found}"));
        }
        if block.len() % ENTRY_BYTES != 0 || block.len() / ENTRY_BYTES != batches || batches == 0 {
            return Err("its number of batches does not fit its size".to_owned());
        }
        index.entries = (0..batches)
            .map(|_| Entry {
                offset: block.get_u32(),
                position: block.get_u32(),
                head_checksum: block.get_u32(),
            })
            .collect();
        index.check_order()?;
        Ok(index)
    }

    /// Begins at 0, grows in both columns, ends where the range ends.
    fn check_order(&self) -> Result<(), String> {
        let first = self.entries.first().is_some_and(|entry| entry.offset == 0 && entry.position == 0);
        let grows = self.entries.is_sorted_by(|a, b| a.offset < b.offset && a.position < b.position);
        let last = self.entries.last().is_some_and(|entry| {
            u64::from(entry.offset) < self.records && u64::from(entry.position) < self.bytes
        });
        let ends = self.base_offset.checked_add(self.records).is_some()
            && self.position.checked_add(self.bytes).is_some();
        if first && grows && last && ends { Ok(()) } else { Err("its batches are not in order".to_owned()) }
    }
}
