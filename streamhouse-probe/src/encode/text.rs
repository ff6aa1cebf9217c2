//! The text format, version 0.0.4.

use std::fmt::Write;

use streamhouse_abi::bucket;
use streamhouse_metrics::{Kind, Metric, Unit, catalog};

use super::ClassicBuckets;
use super::family::{Families, Histogram, Number};

/// Writing to a string fails only when memory does, which aborts.
const INFALLIBLE: &str = "writing to a string cannot fail";

/// Every family that has series.
pub(super) fn write(families: &Families, classic: ClassicBuckets) -> String {
    let mut page = String::new();
    for metric in catalog::ALL {
        if metric.kind == Kind::Histogram {
            let Some(series) = families.histograms_of(metric) else { continue };
            write_head(&mut page, metric);
            for (labels, histogram) in series {
                write_histogram(&mut page, metric, labels, histogram, classic);
            }
        } else if let Some(series) = families.numbers_of(metric) {
            write_head(&mut page, metric);
            for (labels, number) in series {
                write_name(&mut page, metric.name, "", labels, None);
                match number {
                    Number::Whole(number) => writeln!(page, "{number}").expect(INFALLIBLE),
                    Number::Real(number) => writeln!(page, "{}", real(*number)).expect(INFALLIBLE),
                }
            }
        }
    }
    page
}

fn write_head(page: &mut String, metric: &Metric) {
    let Metric { name, help, kind, .. } = metric;
    // The catalog's tests see to it that no help needs escaping.
    write!(page, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()).expect(INFALLIBLE);
}

/// `name_suffix{labels,le="bound"} `, without braces when they would be empty.
fn write_name(page: &mut String, name: &str, suffix: &str, labels: &str, bound: Option<&str>) {
    page.push_str(name);
    page.push_str(suffix);
    match (labels, bound) {
        ("", None) => {}
        (labels, None) => write!(page, "{{{labels}}}").expect(INFALLIBLE),
        ("", Some(bound)) => write!(page, "{{le=\"{bound}\"}}").expect(INFALLIBLE),
        (labels, Some(bound)) => write!(page, "{{{labels},le=\"{bound}\"}}").expect(INFALLIBLE),
    }
    page.push(' ');
}

fn write_histogram(
    page: &mut String,
    metric: &Metric,
    labels: &str,
    histogram: &Histogram,
    classic: ClassicBuckets,
) {
    let mut cumulative = 0u64;
    for (index, count) in histogram.buckets.iter().enumerate() {
        cumulative = cumulative.wrapping_add(*count);
        if index <= bucket::REGULAR && index % classic.step() == 0 {
            let bound = real(bound(metric.unit, index));
            write_name(page, metric.name, "_bucket", labels, Some(&bound));
            writeln!(page, "{cumulative}").expect(INFALLIBLE);
        }
    }
    write_name(page, metric.name, "_bucket", labels, Some("+Inf"));
    writeln!(page, "{cumulative}").expect(INFALLIBLE);
    write_name(page, metric.name, "_sum", labels, None);
    match metric.unit {
        Unit::Seconds => writeln!(page, "{}", real(histogram.sum as f64 / 1e9)).expect(INFALLIBLE),
        _ => writeln!(page, "{}", histogram.sum).expect(INFALLIBLE),
    }
    // The count is the sum of the buckets by construction: it is never stored beside them.
    write_name(page, metric.name, "_count", labels, None);
    writeln!(page, "{cumulative}").expect(INFALLIBLE);
}

/// The upper bound of a bucket, in the metric's unit.
pub(super) fn bound(unit: Unit, index: usize) -> f64 {
    let exponent_min = match unit {
        Unit::Seconds => bucket::DURATION_EXPONENT_MIN,
        Unit::Bytes | Unit::Count | Unit::Offset | Unit::Records => bucket::SIZE_EXPONENT_MIN,
    };
    // Powers of two come out exact, so that bounds of all resolutions are the same numbers.
    let octave = exponent_min + (index / 8) as i32;
    2f64.powi(octave) * 2f64.powf((index % 8) as f64 / 8.0)
}

/// The shortest decimal that reads back as the same double, as Go writes it: an exponent where it is below -4 or
/// above 20.
pub(super) fn real(number: f64) -> String {
    let magnitude = number.abs();
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let scientific = format!("{number:e}");
        let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |below| ('-', below));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number}")
}
