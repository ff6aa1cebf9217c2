//! The histogram's bounds and its bucket function: base-2 exponential, schema 3.
//!
//! Eight buckets an octave with bounds `2^(i/8)` in the metric's unit, upper bound inclusive: exactly the buckets of a
//! Prometheus native histogram of schema 3
//! (<https://prometheus.io/docs/specs/native_histograms/#schema>), so the relative error is below 4.5 %.
//!
//! | index | durations | sizes |
//! | --- | --- | --- |
//! | 0 (zero bucket) | at most 2^-20 s | at most 1 |
//! | i in 1..=208 | above 2^(-20 + (i-1)/8) s, at most 2^(-20 + i/8) s | above 2^((i-1)/8), at most 2^(i/8) |
//! | 209 (past the range) | above 2^6 s | above 2^26 |

/// Prometheus' name for eight buckets an octave.
pub const SCHEMA: i8 = 3;
/// Octaves between the zero bucket and the bucket past the range.
pub const OCTAVES: usize = 26;
/// Regular buckets: eight an octave.
pub const REGULAR: usize = 8 * OCTAVES;
/// All buckets: zero bucket, regular ones, one past the range.
pub const COUNT: usize = REGULAR + 2;
/// Index of the bucket past the range.
pub const PAST: usize = COUNT - 1;
/// Exponent of the zero bucket's upper bound for durations: 2^-20 s.
pub const DURATION_EXPONENT_MIN: i32 = -20;
/// Exponent of the zero bucket's upper bound for sizes: 2^0.
pub const SIZE_EXPONENT_MIN: i32 = 0;

/// `2^(j/8)` for j in 0..8, times 2^63, rounded down.
const MANTISSAS: [u64; 8] = [
    0x8000_0000_0000_0000,
    0x8b95_c1e3_ea8b_d6e6,
    0x9837_f051_8db8_a96f,
    0xa5fe_d6a9_b151_38ea,
    0xb504_f333_f9de_6484,
    0xc567_2a11_5506_dadd,
    0xd744_fcca_d69d_6af4,
    0xeac0_c6e7_dd24_392e,
];

/// Thresholds are padded to a round length, so that an index that the verifier knows to be below 256 is in range.
const TABLE: usize = 256;

/// The largest integer value (in `1/unit`) at most `2^(exponent_min + i/8)`, for each i; padding is `u64::MAX`.
const fn thresholds(exponent_min: i32, unit: u64) -> [u64; TABLE] {
    let mut table = [u64::MAX; TABLE];
    let mut i = 0;
    while i <= REGULAR {
        let scaled = MANTISSAS[i % 8] as u128 * unit as u128;
        let shift = 63 - (exponent_min + (i / 8) as i32);
        table[i] = (scaled >> shift) as u64;
        i += 1;
    }
    table
}

/// Upper bounds of the buckets 0..=208 for durations, in whole nanoseconds.
pub static DURATION_THRESHOLDS_NS: [u64; TABLE] = thresholds(DURATION_EXPONENT_MIN, 1_000_000_000);
/// Upper bounds of the buckets 0..=208 for sizes.
pub static SIZE_THRESHOLDS: [u64; TABLE] = thresholds(SIZE_EXPONENT_MIN, 1);

/// `8 * log2(1e9) + 8 * DURATION_EXPONENT_MIN`, rounded down: how far the index of a value in nanoseconds lies below
/// that of the same number without a unit.
const DURATION_SHIFT: u64 = 79;

/// The smallest index whose threshold is at least `value`.
///
/// `8 * log2(value)` lies between `guess + shift` and that plus 1.68, because within an octave `8 * log2(1 + m/8)` is
/// m rounded up by less than 0.68. Two correcting steps are therefore enough.
#[inline(always)]
fn search(thresholds: &[u64; TABLE], shift: u64, value: u64) -> usize {
    if value <= thresholds[0] {
        return 0;
    }
    if value > thresholds[REGULAR] {
        return PAST;
    }
    // Here 2 <= value < 2^37, so neither subtraction wraps.
    let exponent = 63 - value.leading_zeros() as u64;
    let eighth = ((value << (63 - exponent)) >> 60) & 7;
    let linear = 8 * exponent + eighth;
    let mut index = linear.saturating_sub(shift) as usize;
    if value > thresholds[in_table(index)] {
        index += 1;
    }
    if value > thresholds[in_table(index)] {
        index += 1;
    }
    index
}

/// The index, which is below `TABLE`, as one that the verifier knows to be: the compiler can tell from the value's
/// range and would leave the mask out, the verifier cannot.
#[inline(always)]
fn in_table(index: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    let index = core::hint::black_box(index);
    index & (TABLE - 1)
}

/// The bucket of a duration in nanoseconds; always below [`COUNT`].
#[inline(always)]
pub fn of_ns(duration_ns: u64) -> usize {
    search(&DURATION_THRESHOLDS_NS, DURATION_SHIFT, duration_ns)
}

/// The bucket of a number of bytes or records; always below [`COUNT`].
#[inline(always)]
pub fn of_size(size: u64) -> usize {
    search(&SIZE_THRESHOLDS, 0, size)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn linear(thresholds: &[u64; TABLE], value: u64) -> usize {
        (0..=REGULAR).find(|&i| value <= thresholds[i]).unwrap_or(PAST)
    }

    #[test]
    fn mantissas_are_the_eighth_roots() {
        for (j, mantissa) in MANTISSAS.iter().enumerate() {
            let exact = 2f64.powf(j as f64 / 8.0) * 2f64.powi(63);
            assert!((*mantissa as f64 - exact).abs() / exact < 4.0 * f64::EPSILON, "{j}");
        }
    }

    #[test]
    fn every_threshold_and_its_neighbours_fall_right() {
        for (table, of) in [(&DURATION_THRESHOLDS_NS, of_ns as fn(u64) -> usize), (&SIZE_THRESHOLDS, of_size)]
        {
            for threshold in table.iter().take(REGULAR + 1) {
                for value in threshold.saturating_sub(1)..=threshold + 1 {
                    assert_eq!(of(value), linear(table, value), "{value}");
                }
            }
            for exponent in 0..64 {
                let power = 1u64 << exponent;
                for value in [power - 1, power, power + 1] {
                    assert_eq!(of(value), linear(table, value), "{value}");
                }
            }
            assert_eq!(of(u64::MAX), PAST);
        }
    }

    #[test]
    fn agrees_with_floating_point() {
        let mut value = 1u64;
        for step in 0..4_000_000u64 {
            value = if step % 2 == 0 {
                step / 2
            } else {
                value.wrapping_mul(6364136223846793005).wrapping_add(1)
            };
            let ns = value >> (step % 40);
            let exact = (8.0 * ((ns as f64 / 1e9).log2() + 20.0)).ceil().clamp(0.0, PAST as f64);
            assert_eq!(of_ns(ns), exact as usize, "{ns}");
        }
    }

    #[test]
    fn powers_of_two_seconds_are_inclusive_upper_bounds() {
        // 2^-9 s is 1 953 125 ns exactly.
        assert_eq!(of_ns(1_953_125), 8 * 11);
        assert_eq!(of_ns(1_953_126), 8 * 11 + 1);
        assert_eq!(of_ns(1_000_000_000), 8 * 20);
        assert_eq!(of_ns(64_000_000_000), REGULAR);
        assert_eq!(of_ns(64_000_000_001), PAST);
        assert_eq!(of_size(1024), 80);
    }
}
