//! Series of one scrape, by metric and labels.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;

use streamhouse_abi::bucket;
use streamhouse_metrics::{Kind, Label, Metric};

use super::ClassicBuckets;
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
    fn of(&self, metric: &Metric) -> SeriesLabels {
        let mut values = String::new();
        for label in metric.labels {
            match label {
                Label::Role => values.push_str(self.role),
                Label::InstanceId => values.push_str(self.instance_id),
                Label::Group => values.push_str(self.group),
                Label::Topic => values.push_str(self.topic),
                Label::Partition => push_number(&mut values, self.partition),
                Label::Operation => values.push_str(self.operation),
                Label::Method => values.push_str(self.method),
                Label::Status => values.push_str(self.status),
                Label::Reason => values.push_str(self.reason),
                Label::State => values.push_str(self.state),
                Label::Map => values.push_str(self.map),
                Label::Version => values.push_str(self.version),
            }
            values.push(END);
        }
        SeriesLabels(values)
    }
}

fn push_number(text: &mut String, number: Option<u32>) {
    if let Some(number) = number {
        write!(text, "{number}").expect("writing to a string cannot fail");
    }
}

/// Ends each value: no label has one inside, because the strings they come from end at it.
const END: char = '\0';

/// The values of a metric's labels, in their order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesLabels(String);

impl SeriesLabels {
    fn iter<'l>(&'l self, metric: &'static Metric) -> impl Iterator<Item = (&'static str, &'l str)> {
        metric.labels.iter().map(|label| label.name()).zip(self.0.split(END))
    }
}

/// One series, or all those of a histogram.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) value: Value,
    /// Since when it counts, from 1970; `None` where that is not known.
    pub(super) created: Option<Duration>,
}

/// What a series holds.
#[derive(Debug)]
pub(super) enum Value {
    /// Whole numbers stay whole: a double has no room for every u64.
    Whole(u64),
    Real(f64),
    Histogram(Box<Histogram>),
}

/// A histogram: what its buckets hold and the sum of what was observed, in nanoseconds, records or bytes.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    pub(super) buckets: Buckets,
    pub(super) sum: u64,
}

impl Histogram {
    /// The classic buckets: the index of the last bucket in each, none for that of everything, and what it holds.
    pub(super) fn cumulative(&self, classic: ClassicBuckets) -> Vec<(Option<usize>, u64)> {
        let mut cumulative = 0u64;
        let mut buckets = Vec::with_capacity(classic.count());
        for (index, count) in self.buckets.iter().enumerate() {
            cumulative = cumulative.wrapping_add(*count);
            if index <= bucket::REGULAR && index % classic.step() == 0 {
                buckets.push((Some(index), cumulative));
            }
        }
        buckets.push((None, cumulative));
        buckets
    }
}

/// All series of one scrape. Series whose labels are equal, because the metric leaves some out, are added.
#[derive(Debug, Default)]
pub(crate) struct Families {
    families: HashMap<&'static str, BTreeMap<SeriesLabels, Sample>>,
}

impl Families {
    /// Adds a whole number to a series of a counter or gauge.
    pub(crate) fn count(
        &mut self,
        metric: &'static Metric,
        labels: &LabelValues<'_>,
        value: u64,
        created: Option<Duration>,
    ) {
        debug_assert_ne!(metric.kind, Kind::Histogram);
        let sample = self.sample(metric, labels, created, || Value::Whole(0));
        match &mut sample.value {
            Value::Whole(sum) => *sum = sum.wrapping_add(value),
            Value::Real(sum) => *sum += value as f64,
            Value::Histogram(_) => {}
        }
    }

    /// Sets a series of a counter or gauge.
    pub(crate) fn value(
        &mut self,
        metric: &'static Metric,
        labels: &LabelValues<'_>,
        value: f64,
        created: Option<Duration>,
    ) {
        debug_assert_ne!(metric.kind, Kind::Histogram);
        self.sample(metric, labels, created, || Value::Real(0.0)).value = Value::Real(value);
    }

    /// Adds to a histogram.
    pub(crate) fn histogram(
        &mut self,
        metric: &'static Metric,
        labels: &LabelValues<'_>,
        buckets: &Buckets,
        sum: u64,
        created: Option<Duration>,
    ) {
        debug_assert_eq!(metric.kind, Kind::Histogram);
        let empty = || Value::Histogram(Box::new(Histogram { buckets: [0; _], sum: 0 }));
        let Value::Histogram(histogram) = &mut self.sample(metric, labels, created, empty).value else {
            return;
        };
        for (total, more) in histogram.buckets.iter_mut().zip(buckets) {
            *total = total.wrapping_add(*more);
        }
        histogram.sum = histogram.sum.wrapping_add(sum);
    }

    fn sample(
        &mut self,
        metric: &'static Metric,
        labels: &LabelValues<'_>,
        created: Option<Duration>,
        empty: impl FnOnce() -> Value,
    ) -> &mut Sample {
        let series = self.families.entry(metric.name).or_default();
        let sample = series.entry(labels.of(metric)).or_insert_with(|| Sample { value: empty(), created });
        // It counts since the first of those that it adds up.
        sample.created = sample.created.min(created).or(sample.created).or(created);
        sample
    }

    /// The series of a metric, in the order of their labels; `None` when there are none.
    pub(super) fn of<'f>(
        &'f self,
        metric: &'static Metric,
    ) -> Option<impl Iterator<Item = (impl Iterator<Item = (&'static str, &'f str)>, &'f Sample)>> {
        let series = self.families.get(metric.name)?;
        Some(series.iter().map(move |(labels, sample)| (labels.iter(metric), sample)))
    }
}
