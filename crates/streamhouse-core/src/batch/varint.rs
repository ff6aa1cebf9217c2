//! Zigzag varints: 7 bits a byte, low bits first, so that small numbers of either sign are short.

/// Most bytes of one.
pub(super) const VARINT_BYTES_MAX: usize = 10;

/// Maps 0, -1, 1, -2, ... to 0, 1, 2, 3, ...
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Bytes of a value's varint.
pub(super) const fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes a value at the front of `out`, which has room for it; how many bytes it took.
#[inline]
pub(super) fn put(out: &mut [u8], value: i64) -> usize {
    let mut rest = zigzag(value);
    let mut at = 0;
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at + 1
}

/// Reads a value at `*at` and moves behind it; `None` when the bytes end or go on for too long.
#[inline]
pub(super) fn get(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    let raw = if first < 0x80 { u64::from(first) } else { get_long(bytes, at, u64::from(first & 0x7f))? };
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

#[inline]
fn get_long(bytes: &[u8], at: &mut usize, mut raw: u64) -> Option<u64> {
    let mut shift = 7;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(raw);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(value: i64) -> Vec<u8> {
        let mut out = [0; VARINT_BYTES_MAX];
        let bytes = put(&mut out, value);
        out[..bytes].to_vec()
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(encode(value), bytes, "{value}");
        }
    }

    #[test]
    fn what_goes_on_for_too_long_is_refused() {
        assert_eq!(get(&[0x80; 11], &mut 0), None);
        assert_eq!(get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &mut 0), None);
        assert_eq!(get(&[0x80], &mut 0), None);
        assert_eq!(get(&[], &mut 0), None);
    }

    proptest! {
        #[test]
        fn every_value_round_trips(value in any::<i64>(), shift in 0..64) {
            let value = value >> shift;
            let bytes = encode(value);
            let mut at = 0;
            prop_assert_eq!(get(&bytes, &mut at), Some(value));
            prop_assert_eq!((at, len(value)), (bytes.len(), bytes.len()));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..16), start in 0_usize..20) {
            let mut at = start;
            let value = get(&bytes, &mut at);
            prop_assert!(value.is_none() || at <= bytes.len());
        }
    }
}
