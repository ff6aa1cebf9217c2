//! Record batches: Kafka's format v2, byte for byte, so that other tools can read what is stored.
//!
//! ```text
//!  at  bytes
//!   0      8  base offset            set by the agent; outside the checksum, so that setting it needs no new one
//!   8      4  length                 bytes after this field
//!  12      4  partition leader epoch always -1 here; outside the checksum
//!  16      1  magic                  2
//!  17      4  CRC-32C                of everything after this field
//!  21      2  attributes             bits 0-2 compression, 3 timestamp type, 4 transactional, 5 control
//!  23      4  last offset delta      records - 1: offsets are dense
//!  27      8  base timestamp         of the first record, ms
//!  35      8  max timestamp          ms
//!  43      8  producer id            -1: none
//!  51      2  producer epoch         -1: none
//!  53      4  base sequence          -1: none
//!  57      4  records
//!  61         records, compressed as a whole when the attributes say so
//! ```
//!
//! Integers are big-endian. A record is, in zigzag varints but for the attributes byte: length, attributes (0), timestamp
//! delta, offset delta, key length (-1: none), key, value length, value, number of headers, then name length, name,
//! value length and value of each.
//!
//! A [`BatchBuilder`] encodes, a [`BatchHeader`] checks, a [`RecordIter`] decodes. None of them trusts a byte that it did
//! not write: whatever the bytes are, they give records or a [`BatchError`], and take no more memory than
//! [`limits`](crate::limits) allow.

mod builder;
mod compression;
mod error;
mod header;
mod reader;
mod varint;

pub use builder::BatchBuilder;
pub use compression::{Compression, UnknownCompression};
pub use error::BatchError;
pub use header::{BatchHeader, ProducerStamp, with_base_offset};
pub use reader::RecordIter;

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;

#[cfg(test)]
mod tests;
