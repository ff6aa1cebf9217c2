//! How values read in messages.

use std::fmt;
use std::time::Duration;

/// Shows a duration the way people type one into a flag: a whole number and `m`, `s`, `ms`, `us` or `ns`, the largest
/// unit that needs no fraction.
///
/// What was measured rather than typed is rounded to three digits below its unit: nobody reads nanoseconds of seconds.
///
/// ```
/// use std::time::Duration;
/// use streamhouse_core::AsTyped;
///
/// assert_eq!(AsTyped(Duration::from_secs(10)).to_string(), "10s");
/// assert_eq!(AsTyped(Duration::from_millis(8999)).to_string(), "8999ms");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AsTyped(pub Duration);

impl fmt::Display for AsTyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const US: u128 = 1_000;
        const MS: u128 = 1_000 * US;
        const S: u128 = 1_000 * MS;
        const M: u128 = 60 * S;
        const H: u128 = 60 * M;
        const D: u128 = 24 * H;
        let ns = self.0.as_nanos();
        let rounded = match ns {
            S.. => ns.div_euclid(MS) * MS,
            MS.. => ns.div_euclid(US) * US,
            _ => ns,
        };
        let units = [(D, "d"), (H, "h"), (M, "m"), (S, "s"), (MS, "ms"), (US, "us"), (1, "ns")];
        let (size, unit) = match rounded {
            0 => (S, "s"),
            _ => units.into_iter().find(|(size, _)| rounded.is_multiple_of(*size)).unwrap_or((1, "ns")),
        };
        write!(f, "{}{unit}", rounded / size)
    }
}

/// Shows a number of things whose plural ends in s.
///
/// ```
/// use streamhouse_core::Counted;
///
/// assert_eq!(Counted(2, "partition").to_string(), "2 partitions");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted(number, noun) = self;
        write!(f, "{number} {noun}{}", if *number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(Counted(1, "record").to_string(), "1 record");
        assert_eq!(Counted(0, "record").to_string(), "0 records");
    }

    #[test]
    fn the_largest_unit_without_a_fraction_is_used() {
        let cases = [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(1), "1ns"),
            (Duration::from_micros(500), "500us"),
            (Duration::from_millis(3333), "3333ms"),
            (Duration::from_secs(1), "1s"),
            (Duration::from_secs(90), "90s"),
            (Duration::from_secs(3600), "1h"),
            (Duration::from_secs(7 * 86_400), "7d"),
            (Duration::MAX, "18446744073709551615999ms"),
        ];
        for (duration, text) in cases {
            assert_eq!(AsTyped(duration).to_string(), text);
        }
    }

    #[test]
    fn what_was_measured_is_rounded_down() {
        assert_eq!(AsTyped(Duration::from_nanos(9_876_543_210)).to_string(), "9876ms");
        assert_eq!(AsTyped(Duration::from_nanos(3_333_333)).to_string(), "3333us");
        assert_eq!(AsTyped(Duration::from_nanos(10_000_000_001)).to_string(), "10s");
    }
}
