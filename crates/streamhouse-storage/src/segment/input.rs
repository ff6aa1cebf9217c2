//! Reading fields from bytes whose length is known to fit.

use bytes::{Buf, Bytes};
use streamhouse_core::{TopicName, TopicPartition};

/// Splits the checksum off the end of `bytes` and compares it; what it covers.
pub(super) fn checked(mut bytes: Bytes) -> Result<Bytes, String> {
    if bytes.len() < 4 {
        return Err("it is too short".to_owned());
    }
    let stored = bytes.split_off(bytes.len() - 4).get_u32();
    let computed = crc32c::crc32c(&bytes);
    if stored == computed {
        Ok(bytes)
    } else {
        Err(format!("its checksum does not match: stored {stored:#010x}, computed {computed:#010x}"))
    }
}

/// The topic of `len` bytes at the front of `bytes`, with its partition.
pub(super) fn partition(bytes: &mut Bytes, len: u16, partition: u32) -> Result<TopicPartition, String> {
    if bytes.len() < usize::from(len) {
        return Err("a topic's name is cut off".to_owned());
    }
    let topic = bytes.split_to(usize::from(len));
    let topic = std::str::from_utf8(&topic).map_err(|_| "a topic's name is not UTF-8".to_owned())?;
    let topic = TopicName::new(topic).map_err(|error| error.to_string())?;
    Ok(TopicPartition { topic, partition })
}
