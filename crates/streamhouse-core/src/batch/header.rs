//! A batch's header: what an agent checks and a reader steers by.

use super::{BATCH_HEADER_BYTES, BatchError, Compression};
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use bytes::Bytes;

/// Where the fields are; see the [module](super).
pub(super) const LENGTH_AT: usize = 8;
pub(super) const LEADER_EPOCH_AT: usize = 12;
pub(super) const MAGIC_AT: usize = 16;
pub(super) const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = 21;
pub(super) const LAST_OFFSET_DELTA_AT: usize = 23;
pub(super) const BASE_TIMESTAMP_AT: usize = 27;
pub(super) const MAX_TIMESTAMP_AT: usize = 35;
pub(super) const PRODUCER_ID_AT: usize = 43;
pub(super) const PRODUCER_EPOCH_AT: usize = 51;
pub(super) const BASE_SEQUENCE_AT: usize = 53;
pub(super) const RECORDS_AT: usize = 57;

/// The only version written and read.
pub(super) const MAGIC: u8 = 2;
/// Bytes up to the end of the length field, which that field does not count.
pub(super) const LENGTH_BASE: usize = LENGTH_AT + 4;
const COMPRESSION_BITS: u16 = 0x7;
/// Set when the records' timestamps are the batch's max timestamp.
const APPEND_TIME_BIT: u16 = 0x8;

/// What makes a retry recognisable: who wrote the batch, and which of its records this batch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProducerStamp {
    /// The producer; below 2^63.
    pub producer_id: u64,
    /// Raised when a producer comes back under its id; at least 0.
    pub epoch: i16,
    /// Sequence of the first record, per producer and partition; at least 0, wraps to 0 after `i32::MAX`.
    pub base_sequence: i32,
}

/// A batch's header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; 0 until an agent assigned it.
    pub base_offset: u64,
    /// Bytes of the whole batch, header included: 61 to [`BATCH_BYTES_MAX`].
    pub len: usize,
    /// Records: 1 to [`BATCH_RECORDS_MAX`].
    pub records: u32,
    /// How the records are packed.
    pub compression: Compression,
    /// Timestamp of the first record, in milliseconds since 1970-01-01 UTC.
    pub base_timestamp_ms: i64,
    /// Latest timestamp, in the same unit.
    pub max_timestamp_ms: i64,
    /// Whether every record's timestamp is `max_timestamp_ms`.
    pub append_time: bool,
    /// Who wrote it, when retries are to be recognised.
    pub producer: Option<ProducerStamp>,
    /// CRC-32C of everything behind the CRC itself.
    pub checksum: u32,
}

impl BatchHeader {
    /// Checks a whole batch: version, length, CRC-32C, and every number of the header. The records themselves are not
    /// looked at; a [`RecordIter`](super::RecordIter) checks them as it decodes.
    ///
    /// # Errors
    ///
    /// Kind `Corrupt` when the bytes are damaged (get them again), `Invalid` when they are as their writer made them
    /// and cannot be taken.
    pub fn check(batch: &[u8]) -> Result<BatchHeader, BatchError> {
        let len = frame_len(batch)?;
        if batch.len() != len {
            return Err(BatchError::Length { expected: len, actual: batch.len() });
        }
        let stored = u32::from_be_bytes(field(batch, CRC_AT));
        let computed = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
        if stored != computed {
            return Err(BatchError::Checksum { stored, computed });
        }
        fields(batch, len)
    }

    /// Parses the header at the front of `bytes` without a look at the checksum: for batches checked before, and to learn
    /// how many bytes to get. `bytes` may end before the batch does.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), without `Checksum`.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        fields(bytes, frame_len(bytes)?)
    }

    /// One past the offset of the last record.
    pub const fn end_offset(&self) -> u64 {
        self.base_offset + self.records as u64
    }
}

/// Gives a batch its place in the log: 8 bytes of new head, and the rest of `batch` as it is. Nothing else changes, the
/// checksum stays right, no record byte is copied.
///
/// # Panics
///
/// When `batch` is shorter than 8 bytes: a batch that was checked never is.
pub fn with_base_offset(batch: Bytes, base_offset: u64) -> [Bytes; 2] {
    [Bytes::copy_from_slice(&base_offset.to_be_bytes()), batch.slice(LENGTH_AT..)]
}

/// The bytes of a field. Callers have checked that a whole header is there.
pub(super) fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("the slice has N bytes")
}

/// Length of the batch at the front of `bytes`, once its version is known to be ours.
fn frame_len(bytes: &[u8]) -> Result<usize, BatchError> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return Err(BatchError::Length { expected: BATCH_HEADER_BYTES, actual: bytes.len() });
    }
    if bytes[MAGIC_AT] != MAGIC {
        return Err(BatchError::Magic { magic: bytes[MAGIC_AT] });
    }
    let length = i64::from(i32::from_be_bytes(field(bytes, LENGTH_AT))) + LENGTH_BASE as i64;
    usize::try_from(length)
        .ok()
        .filter(|len| (BATCH_HEADER_BYTES..=BATCH_BYTES_MAX).contains(len))
        .ok_or(BatchError::LengthOutOfRange { length })
}

fn fields(bytes: &[u8], len: usize) -> Result<BatchHeader, BatchError> {
    let attributes = u16::from_be_bytes(field(bytes, ATTRIBUTES_AT));
    if attributes & !(COMPRESSION_BITS | APPEND_TIME_BIT) != 0 {
        return Err(BatchError::UnsupportedAttributes { attributes });
    }
    let count = i64::from(i32::from_be_bytes(field(bytes, RECORDS_AT)));
    let records = u32::try_from(count)
        .ok()
        .filter(|records| (1..=BATCH_RECORDS_MAX as u32).contains(records))
        .ok_or(BatchError::RecordCount { records: count })?;
    let last_delta = i64::from(i32::from_be_bytes(field(bytes, LAST_OFFSET_DELTA_AT)));
    if last_delta != count - 1 {
        return Err(BatchError::Header {
            problem: "last offset delta is not records - 1",
            value: last_delta,
        });
    }
    let offset = i64::from_be_bytes(field(bytes, 0));
    if offset < 0 || offset.checked_add(count).is_none() {
        return Err(BatchError::Header { problem: "base offset is out of range", value: offset });
    }
    Ok(BatchHeader {
        base_offset: offset as u64,
        len,
        records,
        compression: Compression::from_number((attributes & COMPRESSION_BITS) as u8)?,
        base_timestamp_ms: i64::from_be_bytes(field(bytes, BASE_TIMESTAMP_AT)),
        max_timestamp_ms: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
        append_time: attributes & APPEND_TIME_BIT != 0,
        producer: producer(bytes)?,
        checksum: u32::from_be_bytes(field(bytes, CRC_AT)),
    })
}

fn producer(bytes: &[u8]) -> Result<Option<ProducerStamp>, BatchError> {
    let id = i64::from_be_bytes(field(bytes, PRODUCER_ID_AT));
    let epoch = i16::from_be_bytes(field(bytes, PRODUCER_EPOCH_AT));
    let base_sequence = i32::from_be_bytes(field(bytes, BASE_SEQUENCE_AT));
    match (id, epoch, base_sequence) {
        (-1, -1, -1) => Ok(None),
        (0.., 0.., 0..) => Ok(Some(ProducerStamp { producer_id: id as u64, epoch, base_sequence })),
        _ => Err(BatchError::Header {
            problem: "producer id, epoch and base sequence are neither all set nor all -1",
            value: id,
        }),
    }
}
