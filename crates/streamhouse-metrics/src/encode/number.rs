//! Numbers as the formats write them.

/// The shortest decimal that reads back as the same double, as Go's `strconv` and so Prometheus writes it (`'g'`, -1): an
/// exponent where it is below -4 or above 5, so that a bound has the same name in each format.
pub(super) fn real(number: f64) -> String {
    if !number.is_finite() {
        let name = match number {
            _ if number.is_nan() => "NaN",
            _ if number > 0.0 => "+Inf",
            _ => "-Inf",
        };
        return name.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format's exponent is a number");
    if (-4..=5).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// The same as a floating-point number of OpenMetrics: whole ones have a point too.
pub(super) fn real_with_point(number: f64) -> String {
    let text = real(number);
    if number.is_finite() && !text.contains(['.', 'e']) { text + ".0" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unit;
    use streamhouse_abi::bucket;

    #[test]
    fn numbers_are_short_and_read_back() {
        for (number, text, with_point) in [
            (0.0, "0", "0.0"),
            (1.0, "1", "1.0"),
            (0.5, "0.5", "0.5"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "1e-05"),
            (9.5367431640625e-07, "9.5367431640625e-07", "9.5367431640625e-07"),
            (1e-10, "1e-10", "1e-10"),
            (524_288.0, "524288", "524288.0"),
            (1e6, "1e+06", "1e+06"),
            (67_108_864.0, "6.7108864e+07", "6.7108864e+07"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
            (f64::NAN, "NaN", "NaN"),
        ] {
            assert_eq!((real(number).as_str(), real_with_point(number).as_str()), (text, with_point));
        }
        for index in 0..=bucket::REGULAR {
            for unit in [Unit::Seconds, Unit::Bytes] {
                assert_eq!(real(unit.bound(index)).parse(), Ok(unit.bound(index)));
            }
        }
    }
}
