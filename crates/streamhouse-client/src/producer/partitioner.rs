//! Which partition a record goes to when `send()` does not say.
//!
//! With a key: Kafka's default, `(murmur2(key) & 0x7fffffff) % partitions`, so that a key lands where Kafka's own clients
//! put it. Without: one partition until its batch is sealed, then the next, so that batches are full and partitions
//! get equal shares.

use std::sync::atomic::{AtomicU32, Ordering};
use streamhouse_core::Partition;

/// The partition of a key.
pub(crate) fn of_key(key: &[u8], partitions: u32) -> Partition {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// The partition for records without a key.
pub(crate) struct Sticky {
    current: AtomicU32,
    partitions: u32,
}

impl Sticky {
    pub(crate) fn new(start: u32, partitions: u32) -> Self {
        Self { current: AtomicU32::new(start % partitions), partitions }
    }

    pub(crate) fn current(&self) -> Partition {
        self.current.load(Ordering::Relaxed)
    }

    /// Goes on to the next partition, if `partition` is the current one.
    pub(crate) fn leave(&self, partition: Partition) {
        let next = (partition + 1) % self.partitions;
        let _ = self.current.compare_exchange(partition, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// MurmurHash2, 32 bits, with Kafka's seed.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_kafka_hashes_them() {
        // From Kafka's own UtilsTest.testMurmur2.
        for (key, hash) in [
            (&b"21"[..], -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
        assert!((0..1000_u32).all(|key| of_key(&key.to_le_bytes(), 7) < 7));
    }

    #[test]
    fn a_sticky_partition_stays_until_it_is_left_and_all_get_their_turn() {
        let sticky = Sticky::new(5, 3);
        assert_eq!(sticky.current(), 2);
        sticky.leave(1);
        assert_eq!(sticky.current(), 2);
        for expected in [0, 1, 2, 0] {
            sticky.leave(sticky.current());
            assert_eq!(sticky.current(), expected);
        }
    }
}
