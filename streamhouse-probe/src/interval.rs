//! Intervals as they are given on the command line.

use std::time::Duration;

/// Shortest one: a shorter one would keep a processor busy.
const MIN: Duration = Duration::from_millis(50);

/// Reads a whole number and a unit, such as `500ms` or `2s`.
///
/// # Errors
///
/// Says how to write one, or how long it has to be.
pub fn parse(text: &str) -> Result<Duration, String> {
    let parse = || {
        let (number, unit_ms) = match text.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (text.strip_suffix('s')?, 1000),
        };
        Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit_ms)?))
    };
    match parse() {
        Some(interval) if interval >= MIN => Ok(interval),
        Some(_) => Err(format!("at least {} ms", MIN.as_millis())),
        None => Err("write a whole number and a unit, such as 500ms or 2s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        for wrong in
            ["", "s", "5", "-1s", "1.5s", "49ms", "0s", "99999999999999999999s", "18446744073709551615s"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
