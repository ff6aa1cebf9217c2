//! Values of flags: durations, sizes, rates, addresses.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A duration with its unit: `500us`, `5ms`, `2s`, `1.5m`, `12h`, `7d`; `0` needs none.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write a number and us, ms, s, m, h or d, such as 5ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let seconds_per_unit = match &text[unit_at..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..unit_at].parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| wrong())
}

/// A number of seconds above 0, with or without a unit: `10`, `0.5`, `10s`, `5m`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(number) => Duration::try_from_secs_f64(number).ok(),
        Err(_) => duration(text).ok(),
    };
    let positive = parsed.filter(|duration| !duration.is_zero());
    positive.ok_or_else(|| format!("{text:?} is no time above 0; write seconds, such as 10 or 0.5"))
}

/// How long records are kept: a duration above 0, or `none` for ever.
pub(crate) fn retention_age(text: &str) -> Result<Limit<Duration>, String> {
    match duration(text) {
        _ if text == "none" => Ok(Limit(None)),
        Ok(age) if age >= Duration::from_millis(1) => Ok(Limit(Some(age))),
        _ => Err(format!("{text:?} is no retention; write a time of at least 1ms, such as 7d, or none")),
    }
}

/// How many bytes of a partition are kept: at least 1, or `none` for all.
pub(crate) fn retention_bytes(text: &str) -> Result<Limit<u64>, String> {
    match bytes(text) {
        _ if text == "none" => Ok(Limit(None)),
        Ok(bytes) if bytes > 0 => Ok(Limit(Some(bytes as u64))),
        _ => Err(format!("{text:?} is no retention; write bytes, such as 1GiB, or none")),
    }
}

/// A limit that was given, which may be that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit<T>(pub(crate) Option<T>);

/// A number of bytes: `100`, `1KiB` or `1k` (1024), `2MiB` or `2m`, `1GiB`, `1TiB`.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[unit_at..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        _ => None,
    };
    let number = text[..unit_at].parse::<usize>().ok();
    let product = factor.zip(number).and_then(|(factor, number)| number.checked_mul(factor));
    product.ok_or_else(|| format!("{text:?} is no size; write bytes, such as 100, 4KiB or 1MiB"))
}

/// Records per second that can be asked for: less is no load, more is none either on any machine.
const RATES: RangeInclusive<f64> = 0.001..=1e9;

/// Records per second: `1000` or `1000/s`.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    let in_range = number.filter(|rate| RATES.contains(rate));
    in_range.ok_or_else(|| format!("{text:?} is no rate; write records per second, such as 1000"))
}

/// How often a consumer commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitEvery {
    /// After this many records.
    Records(u64),
    /// After this much time.
    Time(Duration),
}

/// `10000` (records) or `5s` (time).
pub(crate) fn commit_every(text: &str) -> Result<CommitEvery, String> {
    match text.parse::<u64>() {
        Ok(0) => Err("0 records is no interval; write at least 1, or --no-commit".to_owned()),
        Ok(records) => Ok(CommitEvery::Records(records)),
        Err(_) => match duration(text) {
            Ok(time) => Ok(CommitEvery::Time(time)),
            Err(_) => {
                Err(format!("{text:?} is no interval; write records, such as 10000, or a time, such as 5s"))
            }
        },
    }
}

/// What a binary without metrics of its own says when it shall serve them.
const COUNTS_NOTHING: &str = "this binary counts nothing itself; let streamhouse-probe serve its metrics, or build it \
                              with the feature metrics";

/// Where a run serves its own metrics: nowhere in a binary that is built without them.
pub(crate) fn metrics_listen_address(text: &str) -> Result<SocketAddr, String> {
    if cfg!(not(feature = "metrics")) {
        return Err(COUNTS_NOTHING.to_owned());
    }
    text.parse()
        .map_err(|_| format!("{text:?} is no address; write an IP and a port, such as 127.0.0.1:9100"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        for wrong in ["", "5", "ms", "-1s", "5 parsecs", "nans", "1e300s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_do_not() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["0", "0s", "-1", "inf", "NaN", "soon"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("4KiB"), Ok(4096));
        assert_eq!(bytes("1m"), Ok(1 << 20));
        for wrong in ["", "KiB", "-1", "1.5k", "1PiB", "99999999999999999999", "18446744073709551615k"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn retention_is_a_limit_above_zero_or_none() {
        assert_eq!(retention_age("none"), Ok(Limit(None)));
        assert_eq!(retention_age("12h"), Ok(Limit(Some(Duration::from_secs(12 * 3600)))));
        assert_eq!(retention_bytes("none"), Ok(Limit(None)));
        assert_eq!(retention_bytes("1GiB"), Ok(Limit(Some(1 << 30))));
        for wrong in ["0", "1us", "7", "never"] {
            assert!(retention_age(wrong).is_err(), "{wrong}");
        }
        assert!(retention_bytes("0").is_err() && retention_bytes("much").is_err());
    }

    #[test]
    fn rates_and_intervals() {
        assert_eq!(rate("1000/s"), Ok(1000.0));
        assert!(rate("0").is_err() && rate("inf").is_err() && rate("fast").is_err());
        assert_eq!(commit_every("10000"), Ok(CommitEvery::Records(10_000)));
        assert_eq!(commit_every("5s"), Ok(CommitEvery::Time(Duration::from_secs(5))));
        assert!(commit_every("0").is_err() && commit_every("often").is_err());
    }

    #[test]
    fn metrics_are_served_where_they_are_counted() {
        let parsed = metrics_listen_address("127.0.0.1:9100");
        if cfg!(feature = "metrics") {
            assert_eq!(parsed, Ok(SocketAddr::from(([127, 0, 0, 1], 9100))));
            assert!(metrics_listen_address("9100").unwrap_err().contains("an IP and a port"));
        } else {
            assert!(parsed.unwrap_err().contains("the feature metrics"));
        }
    }
}
