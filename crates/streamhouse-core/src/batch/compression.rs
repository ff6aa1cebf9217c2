//! Packing a batch's records as a whole.

use super::{BATCH_HEADER_BYTES, BatchError};
use crate::limits::BATCH_DECOMPRESSED_BYTES_MAX;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use std::{
    fmt,
    io::{Read, Write},
    str::FromStr,
};

/// zstd's fastest regular level: the log is written far more often than it is kept for years.
const ZSTD_LEVEL: i32 = 1;
/// Largest zstd window accepted, as a power of two: what zstd itself never needs more than for
/// [`BATCH_DECOMPRESSED_BYTES_MAX`].
const ZSTD_WINDOW_LOG_MAX: u32 = BATCH_DECOMPRESSED_BYTES_MAX.ilog2();

/// How a batch's records are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4, frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// A name that is no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}; use none, lz4 or zstd")]
pub struct UnknownCompression(String);

impl Compression {
    /// Every compression.
    pub const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

    /// Its number in a batch's attributes.
    pub const fn number(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    pub(super) fn from_number(codec: u8) -> Result<Compression, BatchError> {
        Compression::ALL
            .into_iter()
            .find(|compression| compression.number() == codec)
            .ok_or(BatchError::UnsupportedCompression { codec })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Compression::ALL
            .into_iter()
            .find(|compression| compression.to_string() == name)
            .ok_or_else(|| UnknownCompression(name.chars().take(80).collect()))
    }
}

/// A copy of `batch` with its records packed; `None` when they are not to be, or would get longer.
pub(super) fn pack(compression: Compression, batch: &[u8]) -> Option<Vec<u8>> {
    let (header, records) = batch.split_at(BATCH_HEADER_BYTES);
    let mut packed = Vec::with_capacity(batch.len());
    packed.extend_from_slice(header);
    match compression {
        Compression::None => return None,
        Compression::Lz4 => {
            // Independent blocks of 64 KiB, as Kafka's own producers write them.
            let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(info, &mut packed);
            encoder.write_all(records).ok()?;
            encoder.finish().ok()?;
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(&mut packed, ZSTD_LEVEL).ok()?;
            // A size known beforehand lets the compressor take tables no larger than it needs.
            encoder.set_pledged_src_size(Some(records.len() as u64)).ok()?;
            encoder.write_all(records).ok()?;
            encoder.finish().ok()?;
        }
    }
    (packed.len() < batch.len()).then_some(packed)
}

/// The records of packed `content`, which must be one frame and nothing behind it.
pub(super) fn unpack(codec: Compression, content: &[u8]) -> Result<Vec<u8>, BatchError> {
    let mut rest = content;
    let unpacked = match codec {
        Compression::None => return Ok(content.to_vec()),
        Compression::Lz4 => read_bounded(codec, FrameDecoder::new(&mut rest))?,
        Compression::Zstd => {
            let failed = |_| BatchError::Content { codec, problem: "the decoder cannot be set up" };
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(&mut rest).map_err(failed)?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            read_bounded(codec, decoder)?
        }
    };
    if !rest.is_empty() {
        return Err(BatchError::Content { codec, problem: "bytes follow the frame" });
    }
    Ok(unpacked)
}

/// Everything `reader` gives, as long as that is not too much: memory grows with what is unpacked, not with what a
/// header promises.
fn read_bounded(codec: Compression, reader: impl Read) -> Result<Vec<u8>, BatchError> {
    let mut unpacked = Vec::new();
    reader
        .take(BATCH_DECOMPRESSED_BYTES_MAX as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|_| BatchError::Content { codec, problem: "the frame is damaged" })?;
    if unpacked.len() > BATCH_DECOMPRESSED_BYTES_MAX {
        return Err(BatchError::ContentTooLarge);
    }
    Ok(unpacked)
}
