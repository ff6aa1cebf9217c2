//! Segments: what a flush stores.
//!
//! ```text
//! segment    batches of the first partition, of the second, ...   offsets of a partition are dense
//!            index block of the first partition, of the second, ...
//!            footer: directory, trailer
//!
//! index      16  segment id              footer   directory, for each partition:
//! block       8  base offset                        8  index block's position
//!             8  records                            4  index block's bytes
//!             8  position of first batch            4  partition
//!             8  bytes of the batches               2  topic's length
//!             4  partition                             topic
//!             4  batches                          trailer:
//!             2  topic's length                    16  segment id
//!                topic                              8  bytes of the object
//!                for each batch:                    4  bytes of the directory
//!             4    offset - base offset             4  partitions
//!             4    position - position of first     2  format version, 1
//!             4    CRC-32C of its bytes 0 to 20     4  CRC-32C of the footer so far
//!             4  CRC-32C of the block so far        8  magic
//! ```
//!
//! Integers are big-endian. A batch ends where the next begins, so an index has no gaps by construction. The checksum in
//! an entry covers the bytes of a batch that the batch's own does not: base offset, length, and that checksum itself.
//!
//! Metadata holds what a consumer needs to get at its range without the footer; the footer makes an object readable
//! without metadata: [`verify_segment`].

mod builder;
mod footer;
mod index;
mod input;
mod verify;

pub use builder::{Segment, SegmentBuilder};
pub(crate) use index::Index;
use std::fmt::Write;
use streamhouse_core::{SegmentId, TopicPartition};
pub use verify::{SegmentSummary, verify_segment};

/// Directory of the object store that segments are in.
pub const SEGMENT_PREFIX: &str = "segments";
const SEGMENT_SUFFIX: &str = ".seg";

/// Where a partition's records are in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeLayout {
    /// The partition.
    pub partition: TopicPartition,
    /// First offset.
    pub base_offset: u64,
    /// Records; at least 1.
    pub records: u64,
    /// Position of the first batch in the object.
    pub position: u64,
    /// Bytes of the batches.
    pub bytes: u64,
    /// Position of the index block in the object.
    pub index_position: u64,
    /// Bytes of the index block.
    pub index_bytes: u32,
}

/// Key of a segment's object.
pub fn object_key(segment: SegmentId) -> String {
    let mut key = String::with_capacity(SEGMENT_PREFIX.len() + 1 + 32 + SEGMENT_SUFFIX.len());
    write!(key, "{SEGMENT_PREFIX}/{segment}{SEGMENT_SUFFIX}").expect("a String takes everything");
    key
}

/// The segment of an object's key, when it is one.
pub(crate) fn segment_of(object: &str) -> Option<SegmentId> {
    let name = object.strip_prefix(SEGMENT_PREFIX)?.strip_prefix('/')?.strip_suffix(SEGMENT_SUFFIX)?;
    name.parse().ok().filter(|segment| object_key(*segment) == object)
}

/// Checksum of the bytes of a batch that its own checksum does not cover.
fn head_checksum(head: &[u8]) -> u32 {
    crc32c::crc32c(&head[..HEAD_BYTES])
}

/// Base offset, length, leader epoch, magic and checksum of a batch.
const HEAD_BYTES: usize = 21;

#[cfg(test)]
mod tests;
