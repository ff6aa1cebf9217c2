//! The text formats: Prometheus' 0.0.4, and OpenMetrics 1.0.

use std::fmt::Write;

use crate::{ClassicBuckets, Families, Histogram, Kind, Metric, Sample, Value, catalog};

use super::number::{real, real_with_point};

/// Writing to a string fails only when memory does, which aborts.
const INFALLIBLE: &str = "writing to a string cannot fail";

/// In what the two formats differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0: families have no `_total` in their name, bounds a point, counts the time they began, and
    /// the page an end.
    OpenMetrics,
}

/// Every family that has series.
pub(super) fn write(families: &Families, classic: ClassicBuckets, dialect: Dialect) -> String {
    let mut page = Page { text: String::new(), dialect, classic };
    for metric in catalog::ALL {
        let Some(series) = families.of(metric) else { continue };
        page.head(metric);
        for (labels, sample) in series {
            page.sample(metric, &render(labels), sample);
        }
    }
    if dialect == Dialect::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// `name="value"`, separated by commas. A value may hold any character; three of them are written in another way.
fn render<'l>(labels: impl Iterator<Item = (&'static str, &'l str)>) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

/// A page being written.
struct Page {
    text: String,
    dialect: Dialect,
    classic: ClassicBuckets,
}

impl Page {
    fn head(&mut self, metric: &Metric) {
        let Metric { name, help, kind, .. } = metric;
        let family = self.family(metric);
        // The catalog's tests see to it that no help needs escaping.
        write!(self.text, "# HELP {family} {help}\n# TYPE {family} {}\n", kind.name()).expect(INFALLIBLE);
        let unit = metric.unit.name();
        let has_unit = family.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
        if self.dialect == Dialect::OpenMetrics && has_unit {
            writeln!(self.text, "# UNIT {family} {unit}").expect(INFALLIBLE);
        }
        debug_assert!(name.starts_with(family));
    }

    /// The name of a family, which the names of its series begin with.
    fn family(&self, metric: &Metric) -> &'static str {
        match (self.dialect, metric.kind) {
            (Dialect::OpenMetrics, Kind::Counter) => metric.name.trim_end_matches("_total"),
            _ => metric.name,
        }
    }

    fn sample(&mut self, metric: &Metric, labels: &str, sample: &Sample) {
        match &sample.value {
            Value::Histogram(histogram) => self.histogram(metric, labels, histogram),
            Value::Whole(number) => self.line(metric.name, "", labels, number),
            Value::Real(number) => self.line(metric.name, "", labels, &real(*number)),
        }
        if self.dialect == Dialect::OpenMetrics
            && metric.kind != Kind::Gauge
            && let Some(created) = sample.created
        {
            let created = format!("{}.{:03}", created.as_secs(), created.subsec_millis());
            self.line(self.family(metric), "_created", labels, &created);
        }
    }

    fn histogram(&mut self, metric: &Metric, labels: &str, histogram: &Histogram) {
        let mut count = 0;
        for (bound, cumulative) in histogram.cumulative(self.classic, metric.unit) {
            let bound = match self.dialect {
                Dialect::Prometheus => real(bound),
                Dialect::OpenMetrics => real_with_point(bound),
            };
            let separator = if labels.is_empty() { "" } else { "," };
            let labels = format!("{labels}{separator}le=\"{bound}\"");
            self.line(metric.name, "_bucket", &labels, &cumulative);
            count = cumulative;
        }
        self.line(metric.name, "_sum", labels, &real(metric.unit.sum(histogram.sum)));
        // The count is the sum of the buckets by construction: it is never stored beside them.
        self.line(metric.name, "_count", labels, &count);
    }

    /// `name{labels} number`, without braces when they would be empty.
    fn line(&mut self, name: &str, suffix: &str, labels: &str, number: &dyn std::fmt::Display) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        if !labels.is_empty() {
            self.text.push('{');
            self.text.push_str(labels);
            self.text.push('}');
        }
        writeln!(self.text, " {number}").expect(INFALLIBLE);
    }
}
