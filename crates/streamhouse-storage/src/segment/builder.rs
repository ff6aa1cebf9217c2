//! Building.

use super::{HEAD_BYTES, RangeLayout, footer, head_checksum, index::Index, object_key};
use crate::{Result, StorageError};
use bytes::{Bytes, BytesMut};
use object_store::PutPayload;
use std::collections::HashSet;
use streamhouse_core::{
    SegmentId, TopicPartition,
    batch::{BatchError, BatchHeader, with_base_offset},
    limits::SEGMENT_BYTES_MAX,
};

/// Puts the batches of many partitions into one segment. Batches are passed on as they are: only the 8 bytes of each base
/// offset are new.
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    chunks: Vec<Bytes>,
    bytes: u64,
    ranges: Vec<PendingRange>,
    partitions: HashSet<TopicPartition>,
}

#[derive(Debug)]
struct PendingRange {
    partition: TopicPartition,
    index: Index,
}

/// A finished segment, not stored yet.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its id.
    pub id: SegmentId,
    /// Key of its object.
    pub object: String,
    /// What to store; shares the batches' memory.
    pub payload: PutPayload,
    /// Size of the object.
    pub bytes: u64,
    /// Where everything is, in the order it was added.
    pub ranges: Vec<RangeLayout>,
}

impl SegmentBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all batches of a partition. They get dense offsets from `base_offset` on, in their order. They must have been
    /// accepted by [`BatchHeader::check`]: their checksums are not computed again.
    ///
    /// # Errors
    ///
    /// `Build` when the partition was added before, there is no batch, or the segment would get too large; `Batch` when a
    /// batch is none. The builder is as it was.
    pub fn add(&mut self, partition: TopicPartition, base_offset: u64, batches: Vec<Bytes>) -> Result<()> {
        let refused = |problem| StorageError::Build { partition: partition.clone(), problem };
        if batches.is_empty() {
            return Err(refused("it has no batch"));
        }
        if self.partitions.contains(&partition) {
            return Err(refused("it is in this segment already; add its batches together"));
        }
        let added: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
        if self.bytes + added > SEGMENT_BYTES_MAX as u64 {
            return Err(refused("the segment would be larger than a segment may be; write it with the next"));
        }
        let damaged = |source| StorageError::Batch { partition: partition.clone(), source };
        let mut index = Index::new(base_offset, self.bytes);
        let mut chunks = Vec::with_capacity(2 * batches.len());
        for batch in batches {
            let header = BatchHeader::parse(&batch).map_err(damaged)?;
            if header.len != batch.len() {
                return Err(damaged(BatchError::Length { expected: header.len, actual: batch.len() }));
            }
            let mut head = [0; HEAD_BYTES];
            head.copy_from_slice(&batch[..HEAD_BYTES]);
            head[..8].copy_from_slice(&index.end_offset().to_be_bytes());
            chunks.extend(with_base_offset(batch, index.end_offset()));
            index.push(u64::from(header.records), header.len as u64, head_checksum(&head));
        }
        self.chunks.extend(chunks);
        self.bytes += added;
        self.partitions.insert(partition.clone());
        self.ranges.push(PendingRange { partition, index });
        Ok(())
    }

    /// Bytes of the batches added.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The segment. `id` must never have been used: draw 128 random bits.
    pub fn finish(self, id: SegmentId) -> Segment {
        let Self { mut chunks, bytes, ranges, .. } = self;
        let mut tail = BytesMut::new();
        let mut layouts = Vec::with_capacity(ranges.len());
        for PendingRange { partition, index } in ranges {
            let index_position = bytes + tail.len() as u64;
            let index_bytes = index.encode(id, &partition, &mut tail);
            layouts.push(RangeLayout {
                base_offset: index.base_offset(),
                records: index.records(),
                position: index.position(),
                bytes: index.bytes(),
                partition,
                index_position,
                index_bytes,
            });
        }
        footer::encode(id, bytes, &layouts, &mut tail);
        let bytes = bytes + tail.len() as u64;
        chunks.push(tail.freeze());
        Segment { id, object: object_key(id), payload: chunks.into_iter().collect(), bytes, ranges: layouts }
    }
}
