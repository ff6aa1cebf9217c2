//! Series of one scrape, by metric and labels.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use streamhouse_metrics::{Kind, Label, Metric};

use crate::collect::Buckets;

/// The values that labels may take; each metric takes those it has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LabelValues<'a> {
    /// `agent`, `producer` or `consumer`.
    pub role: &'a str,
    /// Agent or client id.
    pub instance_id: &'a str,
    /// Consumer group.
    pub group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Partition, when there is one.
    pub partition: Option<u32>,
    /// What an object-store operation did.
    pub operation: &'a str,
    /// What a gRPC request asked for.
    pub method: &'a str,
    /// How an operation ended.
    pub status: &'a str,
    /// Why something was refused.
    pub reason: &'a str,
    /// `attached` or `refused`.
    pub state: &'a str,
    /// A kernel map.
    pub map: &'a str,
    /// The version of a binary.
    pub version: &'a str,
}

impl LabelValues<'_> {
    /// The labels of a metric as the format writes them between its braces.
    fn render(&self, labels: &[Label]) -> String {
        let mut text = String::new();
        for label in labels {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(label.name());
            text.push_str("=\"");
            match label {
                Label::Role => push_escaped(&mut text, self.role),
                Label::InstanceId => push_escaped(&mut text, self.instance_id),
                Label::Group => push_escaped(&mut text, self.group),
                Label::Topic => push_escaped(&mut text, self.topic),
                Label::Partition => push_number(&mut text, self.partition),
                Label::Operation => push_escaped(&mut text, self.operation),
                Label::Method => push_escaped(&mut text, self.method),
                Label::Status => push_escaped(&mut text, self.status),
                Label::Reason => push_escaped(&mut text, self.reason),
                Label::State => push_escaped(&mut text, self.state),
                Label::Map => push_escaped(&mut text, self.map),
                Label::Version => push_escaped(&mut text, self.version),
            }
            text.push('"');
        }
        text
    }
}

/// A label value may hold any character; three of them are written in another way.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

fn push_number(text: &mut String, number: Option<u32>) {
    if let Some(number) = number {
        write!(text, "{number}").expect("writing to a string cannot fail");
    }
}

/// A counter's or gauge's number. Whole ones stay whole: a double has no room for every u64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

/// A histogram: what its buckets hold and the sum of what was observed, in nanoseconds, records or bytes.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    pub(super) buckets: Buckets,
    pub(super) sum: u64,
}

/// All series of one scrape. Series whose labels are equal, because the metric leaves some out, are added.
#[derive(Debug, Default)]
pub(crate) struct Families {
    numbers: HashMap<&'static str, BTreeMap<String, Number>>,
    histograms: HashMap<&'static str, BTreeMap<String, Box<Histogram>>>,
}

impl Families {
    /// Adds a whole number to a series of a counter or gauge.
    pub(crate) fn count(&mut self, metric: &'static Metric, labels: &LabelValues<'_>, value: u64) {
        debug_assert_ne!(metric.kind, Kind::Histogram);
        let series = self.numbers.entry(metric.name).or_default();
        let number = series.entry(labels.render(metric.labels)).or_insert(Number::Whole(0));
        *number = match *number {
            Number::Whole(sum) => Number::Whole(sum.wrapping_add(value)),
            Number::Real(sum) => Number::Real(sum + value as f64),
        };
    }

    /// Sets a series of a counter or gauge.
    pub(crate) fn value(&mut self, metric: &'static Metric, labels: &LabelValues<'_>, value: f64) {
        debug_assert_ne!(metric.kind, Kind::Histogram);
        let series = self.numbers.entry(metric.name).or_default();
        series.insert(labels.render(metric.labels), Number::Real(value));
    }

    /// Adds to a series of a histogram.
    pub(crate) fn histogram(
        &mut self,
        metric: &'static Metric,
        labels: &LabelValues<'_>,
        buckets: &Buckets,
        sum: u64,
    ) {
        debug_assert_eq!(metric.kind, Kind::Histogram);
        let series = self.histograms.entry(metric.name).or_default();
        let empty = || Box::new(Histogram { buckets: [0; _], sum: 0 });
        let histogram = series.entry(labels.render(metric.labels)).or_insert_with(empty);
        for (total, more) in histogram.buckets.iter_mut().zip(buckets) {
            *total = total.wrapping_add(*more);
        }
        histogram.sum = histogram.sum.wrapping_add(sum);
    }

    pub(super) fn numbers_of(&self, metric: &Metric) -> Option<&BTreeMap<String, Number>> {
        self.numbers.get(metric.name)
    }

    pub(super) fn histograms_of(&self, metric: &Metric) -> Option<&BTreeMap<String, Box<Histogram>>> {
        self.histograms.get(metric.name)
    }
}
