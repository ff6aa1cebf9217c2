//! Encoding.

use super::{BATCH_HEADER_BYTES, BatchError, Compression, ProducerStamp, compression, header as at, varint};
use crate::{
    Header,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX},
};
use bytes::Bytes;

/// Room for what comes before a record's key: length, attributes, timestamp delta, offset delta, key length.
const PREFIX_BYTES_MAX: usize = 4 * varint::VARINT_BYTES_MAX + 1;
/// What an empty builder takes at first.
const INITIAL_BYTES: usize = 4096;
/// A builder doubles up to this size and then grows by as much, so that what it holds and does not use stays small beside
/// what its owner accounts for.
const GROWTH_BYTES_MAX: usize = 128 << 10;

/// Encodes records into one batch.
///
/// Records go straight to their place behind the reserved header, and without compression the finished batch is that very
/// buffer: a record's bytes are copied once.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: Vec<u8>,
    compression: Compression,
    records: u32,
    record_bytes: u64,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// How long a record is, as users count and as it is framed.
struct Size {
    /// Key, value, header names and header values.
    user: usize,
    /// Everything behind the attributes and the deltas.
    content: usize,
}

impl Size {
    fn of(key: Option<&[u8]>, value: &[u8], headers: &[Header]) -> Size {
        let framed = |len: usize| varint::len(len as i64) + len;
        let mut user = key.map_or(0, <[u8]>::len) + value.len();
        let mut content = key.map_or(1, |key| framed(key.len())) + framed(value.len());
        content += varint::len(headers.len() as i64);
        for header in headers {
            user += header.name.len() + header.value.len();
            content += framed(header.name.len()) + framed(header.value.len());
        }
        Size { user, content }
    }

    /// Bytes of a record with these deltas, without and with its length field.
    fn framed(&self, timestamp_delta: i64, offset_delta: u32) -> (usize, usize) {
        let body = 1 + varint::len(timestamp_delta) + varint::len(i64::from(offset_delta)) + self.content;
        (body, varint::len(body as i64) + body)
    }
}

impl BatchBuilder {
    /// An empty builder. It grows as it fills.
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, INITIAL_BYTES)
    }

    /// An empty builder with room for a batch of `batch_bytes` before it has to grow.
    pub fn with_capacity(compression: Compression, batch_bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(batch_bytes.clamp(BATCH_HEADER_BYTES, BATCH_BYTES_MAX));
        buffer.resize(BATCH_HEADER_BYTES, 0);
        Self {
            buffer,
            compression,
            records: 0,
            record_bytes: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
        }
    }

    /// Adds a record. `timestamp_ms` is milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    ///
    /// `BatchFull` when the record fits the next batch but not this one, `RecordTooLarge` or `TooManyHeaders`
    /// when it fits none. In each case the
    /// builder is as it was.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &[Header],
    ) -> Result<(), BatchError> {
        if headers.len() > RECORD_HEADERS_MAX {
            return Err(BatchError::TooManyHeaders { headers: headers.len() });
        }
        let size = Size::of(key, value, headers);
        // Wrapping, here and when decoding: timestamps that lie further apart than an i64 reaches round-trip too.
        let timestamp_delta =
            if self.records == 0 { 0 } else { timestamp_ms.wrapping_sub(self.base_timestamp_ms) };
        let (body, framed) = size.framed(timestamp_delta, self.records);
        if size.user > RECORD_BYTES_MAX || BATCH_HEADER_BYTES + size.framed(0, 0).1 > BATCH_BYTES_MAX {
            return Err(BatchError::RecordTooLarge { bytes: size.user });
        }
        if self.buffer.len() + framed > BATCH_BYTES_MAX || self.records as usize == BATCH_RECORDS_MAX {
            return Err(BatchError::BatchFull);
        }
        if self.records == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        if self.buffer.capacity() - self.buffer.len() < framed {
            self.buffer.reserve_exact(framed.max(self.buffer.capacity().min(GROWTH_BYTES_MAX)));
        }
        self.put_record(body, timestamp_delta, key, value, headers);
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.records += 1;
        self.record_bytes += size.user as u64;
        Ok(())
    }

    /// Whether a record can be added without making the batch larger than `batch_bytes`, or than a batch may be. An empty
    /// builder always says yes: a record alone may exceed `batch_bytes`, and whether it fits at all
    /// [`push`](Self::push) says.
    pub fn fits(&self, key: Option<&[u8]>, value: &[u8], headers: &[Header], batch_bytes: usize) -> bool {
        let (_, framed) = Size::of(key, value, headers).framed(i64::MIN, self.records);
        let room = batch_bytes.min(BATCH_BYTES_MAX);
        self.is_empty() || (self.buffer.len() + framed <= room && (self.records as usize) < BATCH_RECORDS_MAX)
    }

    /// Records added.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Bytes of the keys, values and headers added, as [`Record::bytes`](crate::Record::bytes) counts them.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// Bytes of the batch before compression. What [`finish`](Self::finish) gives is never longer.
    pub fn encoded_len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The finished batch, with base offset 0; no bytes at all when there is no record. Content that compression would
    /// make longer stays as it is.
    pub fn finish(self, producer: Option<ProducerStamp>) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        let (compression, mut batch) = match compression::pack(self.compression, &self.buffer) {
            Some(packed) => (self.compression, packed),
            None => (Compression::None, self.buffer),
        };
        let (id, epoch, sequence) = producer.map_or((-1, -1, -1), |stamp| {
            debug_assert!(stamp.producer_id < 1 << 63, "producer ids are below 2^63");
            (stamp.producer_id as i64, stamp.epoch, stamp.base_sequence)
        });
        let length = (batch.len() - at::LENGTH_BASE) as i32;
        let header = &mut batch[..BATCH_HEADER_BYTES];
        put(header, at::LENGTH_AT, length.to_be_bytes());
        put(header, at::LEADER_EPOCH_AT, (-1_i32).to_be_bytes());
        put(header, at::MAGIC_AT, [at::MAGIC]);
        put(header, at::ATTRIBUTES_AT, u16::from(compression.number()).to_be_bytes());
        put(header, at::LAST_OFFSET_DELTA_AT, (self.records - 1).to_be_bytes());
        put(header, at::BASE_TIMESTAMP_AT, self.base_timestamp_ms.to_be_bytes());
        put(header, at::MAX_TIMESTAMP_AT, self.max_timestamp_ms.to_be_bytes());
        put(header, at::PRODUCER_ID_AT, id.to_be_bytes());
        put(header, at::PRODUCER_EPOCH_AT, epoch.to_be_bytes());
        put(header, at::BASE_SEQUENCE_AT, sequence.to_be_bytes());
        put(header, at::RECORDS_AT, self.records.to_be_bytes());
        let checksum = crc32c::crc32c(&batch[at::ATTRIBUTES_AT..]);
        put(&mut batch, at::CRC_AT, checksum.to_be_bytes());
        Bytes::from(batch)
    }

    #[inline]
    fn put_record(
        &mut self,
        body: usize,
        timestamp_delta: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &[Header],
    ) {
        let mut prefix = [0; PREFIX_BYTES_MAX];
        let mut end = varint::put(&mut prefix, body as i64);
        // The attributes byte of a record has no bit in use.
        end += 1;
        end += varint::put(&mut prefix[end..], timestamp_delta);
        end += varint::put(&mut prefix[end..], i64::from(self.records));
        end += varint::put(&mut prefix[end..], key.map_or(-1, |key| key.len() as i64));
        self.buffer.extend_from_slice(&prefix[..end]);
        if let Some(key) = key {
            self.buffer.extend_from_slice(key);
        }
        self.put_framed(value);
        self.put_varint(headers.len());
        for header in headers {
            self.put_framed(header.name.as_bytes());
            self.put_framed(&header.value);
        }
    }

    #[inline]
    fn put_framed(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    #[inline]
    fn put_varint(&mut self, len: usize) {
        if len < 64 {
            self.buffer.push((len as u8) << 1);
            return;
        }
        let mut varint = [0; varint::VARINT_BYTES_MAX];
        let bytes = varint::put(&mut varint, len as i64);
        self.buffer.extend_from_slice(&varint[..bytes]);
    }
}

fn put<const N: usize>(header: &mut [u8], at: usize, field: [u8; N]) {
    header[at..at + N].copy_from_slice(&field);
}
