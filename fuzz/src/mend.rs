//! Checksums made right again, so that what lies behind them is reached. Written from the formats' documentation, not with
//! the code that is tested.

/// Bytes of a batch before its first record.
const BATCH_HEADER: usize = 61;
/// Bytes of a segment's trailer.
const TRAILER: usize = 46;
/// Bytes of a directory entry before its topic.
const ENTRY: usize = 18;

/// Gives a batch its length, version and CRC-32C. What is shorter than a header stays as it is.
pub(crate) fn mend_batch(batch: &mut [u8]) {
    if batch.len() < BATCH_HEADER {
        return;
    }
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Gives a segment its size, its magic, and the checksums of its footer and of the index blocks that its directory names.
pub(crate) fn mend_segment(object: &mut [u8]) {
    let end = object.len();
    let Some(trailer) = end.checked_sub(TRAILER) else { return };
    let directory_bytes = number(&object[trailer + 24..trailer + 28]);
    let Some(directory) = trailer.checked_sub(directory_bytes as usize) else { return };
    let mut entry = directory;
    while entry + ENTRY <= trailer {
        let (position, bytes) = (number(&object[entry..entry + 8]), number(&object[entry + 8..entry + 12]));
        let block = position..position.saturating_add(bytes).min(end as u64);
        if block.start.saturating_add(4) <= block.end {
            end_with_checksum(&mut object[block.start as usize..block.end as usize]);
        }
        entry += ENTRY + number(&object[entry + 16..entry + 18]) as usize;
    }
    object[trailer + 16..trailer + 24].copy_from_slice(&(end as u64).to_be_bytes());
    object[end - 8..].copy_from_slice(b"SHSEGMNT");
    end_with_checksum(&mut object[directory..end - 8]);
}

/// Makes the last four bytes the checksum of those before.
fn end_with_checksum(bytes: &mut [u8]) {
    let (covered, checksum) = bytes.split_at_mut(bytes.len() - 4);
    checksum.copy_from_slice(&crc32c::crc32c(covered).to_be_bytes());
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
