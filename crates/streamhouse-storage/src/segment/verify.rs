//! Reading a whole segment without metadata, and believing nothing.

use super::{
    RangeLayout,
    footer::{self, DirectoryEntry},
    head_checksum,
    index::Index,
};
use crate::{Result, StorageError};
use bytes::Bytes;
use std::collections::HashSet;
use streamhouse_core::{
    SegmentId,
    batch::{BatchHeader, RecordIter},
};

/// What a verified segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its id.
    pub id: SegmentId,
    /// Its partitions, in the order of their batches.
    pub ranges: Vec<RangeLayout>,
    /// Batches of all partitions.
    pub batches: u64,
    /// Records of all partitions.
    pub records: u64,
}

/// Reads an object's footer, every index block, every batch and every record. When it returns `Ok`, each byte of the
/// object is covered by a checksum that matched.
///
/// # Errors
///
/// `Segment`, kind `Corrupt`, with where and what.
pub fn verify_segment(object: &Bytes) -> Result<SegmentSummary> {
    let damaged = |segment, position, problem| StorageError::Segment { segment, position, problem };
    let footer = footer::decode(object).map_err(|problem| damaged(None, object.len() as u64, problem))?;
    let segment = footer.segment;
    let mut walk = Walk {
        object,
        summary: SegmentSummary { id: segment, ranges: Vec::new(), batches: 0, records: 0 },
        seen: HashSet::new(),
        position: 0,
    };
    for entry in &footer.directory {
        walk.range(entry).map_err(|(position, problem)| damaged(Some(segment), position, problem))?;
    }
    walk.check_cover(footer.position)
        .map_err(|(position, problem)| damaged(Some(segment), position, problem))?;
    Ok(walk.summary)
}

/// Where, and what is wrong.
type Problem = (u64, String);

struct Walk<'a> {
    object: &'a Bytes,
    summary: SegmentSummary,
    seen: HashSet<streamhouse_core::TopicPartition>,
    /// Where the next partition's batches must begin.
    position: u64,
}

impl Walk<'_> {
    fn range(&mut self, entry: &DirectoryEntry) -> Result<(), Problem> {
        let at = entry.index_position;
        let block = self.slice(at, at.saturating_add(u64::from(entry.index_bytes)))?;
        let index = Index::decode(block, self.summary.id, &entry.partition)
            .map_err(|problem| (at, format!("index of {}: {problem}", entry.partition)))?;
        if index.position() != self.position {
            return Err((index.position(), format!("batches of {} are out of place", entry.partition)));
        }
        if !self.seen.insert(entry.partition.clone()) {
            return Err((at, format!("{} is in it twice", entry.partition)));
        }
        for number in 0..index.batches() {
            self.batch(&index, number)?;
        }
        self.position = index.position() + index.bytes();
        self.summary.batches += index.batches() as u64;
        self.summary.records += index.records();
        self.summary.ranges.push(RangeLayout {
            partition: entry.partition.clone(),
            base_offset: index.base_offset(),
            records: index.records(),
            position: index.position(),
            bytes: index.bytes(),
            index_position: entry.index_position,
            index_bytes: entry.index_bytes,
        });
        Ok(())
    }

    fn batch(&self, index: &Index, number: usize) -> Result<(), Problem> {
        let Some(indexed) = index.batch(number) else { return Ok(()) };
        let end_offset = index.batch(number + 1).map_or(index.end_offset(), |next| next.base_offset);
        let at = indexed.position;
        let batch = self.slice(at, index.batch_end(number))?;
        let header = BatchHeader::check(&batch).map_err(|error| (at, error.to_string()))?;
        if head_checksum(&batch) != indexed.head_checksum
            || header.base_offset != indexed.base_offset
            || header.end_offset() != end_offset
        {
            return Err((at, "a batch is not the one that its index lists".to_owned()));
        }
        let records = RecordIter::new(batch).map_err(|error| (at, error.to_string()))?;
        for record in records {
            record.map_err(|error| (at, error.to_string()))?;
        }
        Ok(())
    }

    /// Index blocks follow the batches and each other up to the footer: nothing lies between them.
    fn check_cover(&self, footer: u64) -> Result<(), Problem> {
        let mut position = self.position;
        for range in &self.summary.ranges {
            if range.index_position != position {
                return Err((position, "bytes that belong to nothing".to_owned()));
            }
            position += u64::from(range.index_bytes);
        }
        if position == footer { Ok(()) } else { Err((position, "bytes that belong to nothing".to_owned())) }
    }

    fn slice(&self, start: u64, end: u64) -> Result<Bytes, Problem> {
        if start > end || end > self.object.len() as u64 {
            return Err((start, "a part of it would lie behind its end".to_owned()));
        }
        Ok(self.object.slice(start as usize..end as usize))
    }
}
