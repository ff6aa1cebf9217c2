//! The footer: what is in a segment, for who has nothing but the object.

use super::{RangeLayout, input};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use streamhouse_core::{SegmentId, TopicPartition};

/// The end of every segment.
const MAGIC: [u8; 8] = *b"SHSEGMNT";
/// The only version written and read.
const VERSION: u16 = 1;
/// Bytes of the trailer.
const TRAILER_BYTES: usize = 46;
/// Of these, the checksum and the magic.
const UNCHECKED_BYTES: usize = 4 + MAGIC.len();
/// Bytes of a directory entry before its topic.
const ENTRY_BYTES: usize = 18;

/// A partition in the directory.
#[derive(Debug)]
pub(super) struct DirectoryEntry {
    pub(super) partition: TopicPartition,
    pub(super) index_position: u64,
    pub(super) index_bytes: u32,
}

/// A footer, decoded.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) segment: SegmentId,
    /// Where it begins in the object.
    pub(super) position: u64,
    pub(super) directory: Vec<DirectoryEntry>,
}

/// Appends the footer to `tail`, which holds everything since the batches' end at `position`.
pub(super) fn encode(segment: SegmentId, position: u64, ranges: &[RangeLayout], tail: &mut BytesMut) {
    let start = tail.len();
    for range in ranges {
        let topic = range.partition.topic.as_str();
        tail.put_u64(range.index_position);
        tail.put_u32(range.index_bytes);
        tail.put_u32(range.partition.partition);
        tail.put_u16(topic.len() as u16);
        tail.put_slice(topic.as_bytes());
    }
    let directory_bytes = tail.len() - start;
    tail.put_u128(segment.0);
    tail.put_u64(position + (start + directory_bytes + TRAILER_BYTES) as u64);
    tail.put_u32(directory_bytes as u32);
    tail.put_u32(ranges.len() as u32);
    tail.put_u16(VERSION);
    tail.put_u32(crc32c::crc32c(&tail[start..]));
    tail.put_slice(&MAGIC);
}

/// Reads the footer of a whole object.
pub(super) fn decode(object: &Bytes) -> Result<Footer, String> {
    if object.len() < TRAILER_BYTES || !object.ends_with(&MAGIC) {
        return Err("it does not end as a segment ends; it is none, or was cut".to_owned());
    }
    let mut trailer = object.slice(object.len() - TRAILER_BYTES..object.len() - UNCHECKED_BYTES);
    // Not checked yet, and used only to learn what the checksum covers.
    let segment = SegmentId(trailer.get_u128());
    let object_bytes = trailer.get_u64();
    let directory_bytes = trailer.get_u32() as usize;
    let partitions = trailer.get_u32() as usize;
    let version = trailer.get_u16();
    if directory_bytes > object.len() - TRAILER_BYTES {
        return Err("its footer is larger than it".to_owned());
    }
    let start = object.len() - TRAILER_BYTES - directory_bytes;
    let mut directory = input::checked(object.slice(start..object.len() - MAGIC.len()))?;
    if version != VERSION {
        return Err(format!("it has format version {version}; this build reads version {VERSION}"));
    }
    if object_bytes != object.len() as u64 {
        return Err(format!("it was written with {object_bytes} bytes and has {}", object.len()));
    }
    directory.truncate(directory_bytes);
    let directory = decode_directory(directory, partitions)?;
    Ok(Footer { segment, position: start as u64, directory })
}

fn decode_directory(mut directory: Bytes, partitions: usize) -> Result<Vec<DirectoryEntry>, String> {
    let mut entries = Vec::new();
    while directory.len() >= ENTRY_BYTES {
        let index_position = directory.get_u64();
        let index_bytes = directory.get_u32();
        let number = directory.get_u32();
        let topic_len = directory.get_u16();
        let partition = input::partition(&mut directory, topic_len, number)?;
        entries.push(DirectoryEntry { partition, index_position, index_bytes });
    }
    if !directory.is_empty() || entries.len() != partitions {
        return Err("its directory does not have the partitions it says".to_owned());
    }
    Ok(entries)
}
