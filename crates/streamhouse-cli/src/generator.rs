//! Made-up records: the same seed gives the same records, and making one allocates nothing.

/// Windows into the filler begin in its first 64 KiB.
const FILLER_STARTS: usize = 1 << 16;
/// Odd, so that the windows' starts run through all of them before one repeats.
const FILLER_STEP: usize = 8191;
/// Hexadecimal digits of a record's number at the head of its value.
const NUMBER_DIGITS: usize = 16;
/// Hexadecimal digits in a key, after `key-`.
const KEY_DIGITS: usize = 8;

/// Numbered records with printable keys and values.
///
/// A value begins with the record's number in hexadecimal (the low digits when it is shorter than that) and goes on
/// with letters and digits. Keys are drawn evenly from as many distinct ones as were asked for.
#[derive(Debug)]
pub(crate) struct Generator {
    seed: u64,
    next: u64,
    filler: Vec<u8>,
    value: Vec<u8>,
    key: [u8; 4 + KEY_DIGITS],
    distinct_keys: Option<u32>,
}

impl Generator {
    /// Values of `size` bytes; `distinct_keys`, at least 1, or `None` for records without a key.
    pub(crate) fn new(seed: u64, size: usize, distinct_keys: Option<u32>) -> Generator {
        const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let words = (0u64..).flat_map(|word| mix(seed.wrapping_add(word)).to_le_bytes());
        let filler = words.take(FILLER_STARTS + size).map(|byte| SYMBOLS[usize::from(byte & 63)]).collect();
        let mut key = [0; 4 + KEY_DIGITS];
        key[..4].copy_from_slice(b"key-");
        Generator { seed, next: 0, filler, value: vec![0; size], key, distinct_keys }
    }

    /// Makes the next record: its key and value, good until the next call.
    pub(crate) fn make(&mut self) -> (Option<&[u8]>, &[u8]) {
        let number = self.next;
        self.next += 1;
        let head = NUMBER_DIGITS.min(self.value.len());
        let start = (number as usize).wrapping_mul(FILLER_STEP) % FILLER_STARTS;
        let filler_end = start + self.value.len() - head;
        self.value[head..].copy_from_slice(&self.filler[start..filler_end]);
        write_hex(&mut self.value[..head], number);
        let key = self.distinct_keys.map(|distinct| {
            // The high half of a product: an even draw without a division.
            let drawn = (u128::from(mix(!self.seed ^ number)) * u128::from(distinct)) >> 64;
            write_hex(&mut self.key[4..], drawn as u64);
            &self.key[..]
        });
        (key, &self.value)
    }
}

/// SplitMix64: a well mixed 64-bit number for each input.
fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn write_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn records(generator: &mut Generator, count: usize) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let mut made = Vec::new();
        for _ in 0..count {
            let (key, value) = generator.make();
            made.push((key.map(<[u8]>::to_vec), value.to_vec()));
        }
        made
    }

    #[test]
    fn a_seed_gives_the_same_records_again() {
        let first = records(&mut Generator::new(7, 100, Some(10)), 1000);
        assert_eq!(first, records(&mut Generator::new(7, 100, Some(10)), 1000));
        assert_ne!(first, records(&mut Generator::new(8, 100, Some(10)), 1000));
    }

    #[test]
    fn values_have_their_size_and_number() {
        for size in [0, 1, 15, 16, 17, 100, 100_000] {
            let made = records(&mut Generator::new(0, size, None), 300);
            assert!(made.iter().all(|(key, value)| key.is_none() && value.len() == size));
            assert!(made.iter().all(|(_, value)| value.iter().all(u8::is_ascii_graphic)));
        }
        let made = records(&mut Generator::new(0, 20, None), 300);
        assert!(made[299].1.starts_with(b"000000000000012b"));
        let short = records(&mut Generator::new(0, 3, None), 300);
        assert_eq!(short[299].1, b"12b");
    }

    #[test]
    fn all_keys_are_drawn() {
        let made = records(&mut Generator::new(0, 10, Some(5)), 200);
        let keys: BTreeSet<_> = made.into_iter().filter_map(|(key, _)| key).collect();
        let expected: BTreeSet<_> = (0..5).map(|key| format!("key-{key:08x}").into_bytes()).collect();
        assert_eq!(keys, expected);
    }
}
