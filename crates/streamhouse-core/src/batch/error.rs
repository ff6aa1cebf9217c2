//! What can be wrong with a batch.

use crate::{
    ErrorKind,
    limits::{
        BATCH_BYTES_MAX, BATCH_DECOMPRESSED_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX,
        RECORD_HEADERS_MAX,
    },
};

/// Why a record was not taken or a batch was refused, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The record fits no batch.
    #[error(
        "a record of {bytes} bytes is too large: key, value and headers may have {RECORD_BYTES_MAX} bytes together, framed {BATCH_BYTES_MAX} with the batch's header; split it"
    )]
    RecordTooLarge {
        /// Its key, value and headers.
        bytes: usize,
    },
    /// The record has too many headers for any batch.
    #[error("a record with {headers} headers; a record may have {RECORD_HEADERS_MAX}")]
    TooManyHeaders {
        /// How many it has.
        headers: usize,
    },
    /// The record does not fit this batch any more; it fits the next.
    #[error("the batch is full; finish it and put the record into the next")]
    BatchFull,
    /// The bytes end before the batch does, or go on after it.
    #[error("a batch says it has {expected} bytes but {actual} are here; it was cut or damaged on its way")]
    Length {
        /// What its header says, or the least a batch has.
        expected: usize,
        /// What there is.
        actual: usize,
    },
    /// The length field cannot be right.
    #[error("a batch states a length of {length} bytes; a batch has 61 to {BATCH_BYTES_MAX}")]
    LengthOutOfRange {
        /// Length of the whole batch, as far as the field can be read as one.
        length: i64,
    },
    /// Not format v2.
    #[error("a batch has format version {magic}; only version 2 is supported, let the producer write that")]
    Magic {
        /// The version.
        magic: u8,
    },
    /// The checksum does not match.
    #[error(
        "a batch fails its checksum: stored {stored:#010x}, computed {computed:#010x}; its bytes are damaged, fetch or send them again"
    )]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A compression that is not supported.
    #[error("a batch uses compression {codec} ({}); use none (0), lz4 (3) or zstd (4)", codec_name(*codec))]
    UnsupportedCompression {
        /// Number in the attributes.
        codec: u8,
    },
    /// Transactions, control batches, or something newer.
    #[error(
        "a batch has attributes {attributes:#06x}, which say that it is transactional, a control batch or of a later format; write it without"
    )]
    UnsupportedAttributes {
        /// The attributes.
        attributes: u16,
    },
    /// A number in the header that no correct writer puts there.
    #[error("a batch's header is wrong: {problem} ({value}); the producer that wrote it has a defect")]
    Header {
        /// What is wrong.
        problem: &'static str,
        /// The number found.
        value: i64,
    },
    /// The records are not what the header promises.
    #[error(
        "record {record} of a batch is malformed: {problem}; the batch's checksum is right, so the producer that wrote it has a defect"
    )]
    Record {
        /// Its number in the batch, from 0.
        record: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// The compressed content cannot be unpacked.
    #[error("a batch's {codec} content cannot be unpacked: {problem}")]
    Content {
        /// The compression.
        codec: super::Compression,
        /// What is wrong.
        problem: &'static str,
    },
    /// The compressed content is larger than a reader unpacks.
    #[error("a batch unpacks to more than {BATCH_DECOMPRESSED_BYTES_MAX} bytes; write smaller batches")]
    ContentTooLarge,
    /// More records than a batch may have.
    #[error("a batch states {records} records; a batch has 1 to {BATCH_RECORDS_MAX}")]
    RecordCount {
        /// What its header says.
        records: i64,
    },
}

impl BatchError {
    /// How the caller should react.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            BatchError::BatchFull => ErrorKind::Retry,
            BatchError::RecordTooLarge { .. }
            | BatchError::TooManyHeaders { .. }
            | BatchError::Magic { .. }
            | BatchError::UnsupportedCompression { .. }
            | BatchError::UnsupportedAttributes { .. }
            | BatchError::Header { .. }
            | BatchError::RecordCount { .. }
            | BatchError::ContentTooLarge => ErrorKind::Invalid,
            BatchError::Length { .. }
            | BatchError::LengthOutOfRange { .. }
            | BatchError::Checksum { .. }
            | BatchError::Record { .. }
            | BatchError::Content { .. } => ErrorKind::Corrupt,
        }
    }
}

const fn codec_name(codec: u8) -> &'static str {
    match codec {
        1 => "gzip",
        2 => "snappy",
        _ => "unknown",
    }
}
