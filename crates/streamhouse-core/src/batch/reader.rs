//! Decoding.

use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader, Compression, compression, varint};
use crate::{Header, Record, limits::RECORD_HEADERS_MAX};
use bytes::Bytes;

/// The records of a batch with their offsets, decoded one at a time.
///
/// Keys and values are slices of the batch (of its unpacked content, when compressed): nothing is copied, and a record
/// that is kept keeps that memory. After an error there are no more records.
#[derive(Clone, Debug)]
pub struct RecordIter {
    header: BatchHeader,
    content: Bytes,
    position: usize,
    /// Number of the next record in the batch.
    next: u32,
}

impl RecordIter {
    /// Starts at the first record of a batch that [`BatchHeader::check`] has accepted, and unpacks it when it is
    /// compressed. A batch that was not checked gives an error or records that mean nothing, never a panic.
    ///
    /// # Errors
    ///
    /// As [`BatchHeader::parse`]; `Content` and `ContentTooLarge` when the content cannot be unpacked.
    pub fn new(batch: Bytes) -> Result<RecordIter, BatchError> {
        let header = BatchHeader::parse(&batch)?;
        if batch.len() != header.len {
            return Err(BatchError::Length { expected: header.len, actual: batch.len() });
        }
        let packed = batch.slice(BATCH_HEADER_BYTES..);
        let content = match header.compression {
            Compression::None => packed,
            codec @ (Compression::Lz4 | Compression::Zstd) => compression::unpack(codec, &packed)?.into(),
        };
        Ok(RecordIter { header, content, position: 0, next: 0 })
    }

    /// The batch's header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Offset of the next record; one past the last when there is none.
    pub fn offset(&self) -> u64 {
        self.header.base_offset + u64::from(self.next)
    }

    /// Records left.
    pub fn remaining(&self) -> u32 {
        self.header.records - self.next
    }

    /// Goes forward to the record at `offset`, or behind the last when it lies beyond; an offset already passed changes
    /// nothing. Only lengths are read: what is skipped is not checked any further.
    ///
    /// # Errors
    ///
    /// `Record` when a length is wrong.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), BatchError> {
        while self.remaining() > 0 && self.offset() < offset {
            let end = self.record_end().map_err(|problem| self.fail(problem))?;
            self.advance(end).map_err(|problem| self.fail(problem))?;
        }
        Ok(())
    }

    /// Moves behind the length field of the next record; where the record ends.
    #[inline]
    fn record_end(&mut self) -> Result<usize, &'static str> {
        let length = varint::get(&self.content, &mut self.position).ok_or("its length is cut off")?;
        usize::try_from(length)
            .ok()
            .and_then(|length| self.position.checked_add(length))
            .filter(|end| *end <= self.content.len())
            .ok_or("its length goes beyond the batch")
    }

    /// Steps over a record that ends at `end`. Behind the last there must be nothing.
    #[inline]
    fn advance(&mut self, end: usize) -> Result<(), &'static str> {
        if self.remaining() == 1 && end != self.content.len() {
            return Err("bytes follow the last record");
        }
        self.position = end;
        self.next += 1;
        Ok(())
    }

    /// Ends the iteration.
    #[cold]
    fn fail(&mut self, problem: &'static str) -> BatchError {
        let record = self.next;
        self.next = self.header.records;
        BatchError::Record { record, problem }
    }

    #[inline]
    fn decode(&mut self) -> Result<(u64, Record), &'static str> {
        let end = self.record_end()?;
        let offset = self.offset();
        let mut fields = Fields { content: &self.content, at: self.position, end };
        // The attributes byte of a record has no bit in use.
        fields.take(1)?;
        let timestamp_delta = fields.varint()?;
        if fields.varint()? != i64::from(self.next) {
            return Err("its offset delta is not its place in the batch");
        }
        let key = fields.bytes()?;
        // A null value is read as an empty one: the log has no deletion markers.
        let value = fields.bytes()?.unwrap_or_default();
        let headers = fields.headers()?;
        if fields.at != end {
            return Err("bytes follow its last header");
        }
        let timestamp_ms = match self.header.append_time {
            true => self.header.max_timestamp_ms,
            false => self.header.base_timestamp_ms.wrapping_add(timestamp_delta),
        };
        self.advance(end)?;
        Ok((offset, Record { timestamp_ms, key, value, headers }))
    }
}

impl Iterator for RecordIter {
    type Item = Result<(u64, Record), BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining() == 0 {
            return None;
        }
        Some(self.decode().map_err(|problem| self.fail(problem)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Fewer when a record is malformed.
        (0, Some(self.remaining() as usize))
    }
}

/// The fields of one record, which ends at `end`.
struct Fields<'a> {
    content: &'a Bytes,
    at: usize,
    end: usize,
}

impl Fields<'_> {
    #[inline]
    fn varint(&mut self) -> Result<i64, &'static str> {
        varint::get(&self.content[..self.end], &mut self.at).ok_or("a number in it is cut off")
    }

    /// Steps over `len` bytes; where they began.
    #[inline]
    fn take(&mut self, len: usize) -> Result<usize, &'static str> {
        if len > self.end - self.at {
            return Err("a length in it goes beyond its end");
        }
        let start = self.at;
        self.at += len;
        Ok(start)
    }

    /// A length and that many bytes; `None` for the length -1.
    #[inline]
    fn bytes(&mut self) -> Result<Option<Bytes>, &'static str> {
        let length = self.varint()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| "a length in it is negative")?;
        let start = self.take(length)?;
        Ok(Some(self.content.slice(start..self.at)))
    }

    #[inline]
    fn headers(&mut self) -> Result<Vec<Header>, &'static str> {
        match self.varint()? {
            0 => Ok(Vec::new()),
            count => self.some_headers(count),
        }
    }

    fn some_headers(&mut self, count: i64) -> Result<Vec<Header>, &'static str> {
        // A header takes two bytes at least: a lying count costs no memory.
        let most = RECORD_HEADERS_MAX.min((self.end - self.at) / 2);
        let count = usize::try_from(count).ok().filter(|count| *count <= most);
        let count = count.ok_or("its number of headers is wrong")?;
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.bytes()?.ok_or("a header has no name")?;
            let name = std::str::from_utf8(&name).map_err(|_| "a header's name is not UTF-8")?.to_owned();
            headers.push(Header { name, value: self.bytes()?.unwrap_or_default() });
        }
        Ok(headers)
    }
}
