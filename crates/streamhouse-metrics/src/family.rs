//! Series of one scrape, by metric and labels.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;

use streamhouse_abi::page::Gauge;
use streamhouse_abi::{Site, Status, bucket};

use crate::sources::{Counted, Reading, of_gauge, of_site};
use crate::{Buckets, Counts, Detail, Kind, Label, Metric, Unit};

/// How many classic buckets a histogram is served with: a subset of the bounds it is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassicBuckets {
    per_octave: u32,
}

impl ClassicBuckets {
    /// How many may be asked for.
    pub const CHOICES: [u32; 4] = [1, 2, 4, 8];

    /// `None` unless it is one of [`ClassicBuckets::CHOICES`].
    pub fn per_octave(per_octave: u32) -> Option<ClassicBuckets> {
        ClassicBuckets::CHOICES.contains(&per_octave).then_some(ClassicBuckets { per_octave })
    }

    /// Buckets that a histogram is served with, that of everything included.
    pub fn count(self) -> usize {
        bucket::REGULAR / self.step() + 2
    }

    /// Distance between the indexes of two bounds that are served.
    fn step(self) -> usize {
        8 / self.per_octave as usize
    }
}

impl Default for ClassicBuckets {
    /// Two an octave.
    fn default() -> ClassicBuckets {
        ClassicBuckets { per_octave: 2 }
    }
}

/// The values that labels may take; each metric takes those it has.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelValues<'a> {
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
    /// The name of a machine.
    pub host: &'a str,
    /// Where a file system is mounted.
    pub mountpoint: &'a str,
}

impl<'a> LabelValues<'a> {
    /// With what a site tells apart itself.
    pub fn with_detail(self, detail: Detail) -> LabelValues<'a> {
        match detail {
            Detail::None => self,
            Detail::Operation(operation) => LabelValues { operation: operation.name(), ..self },
            Detail::Method(method) => LabelValues { method: method.name(), ..self },
        }
    }

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
                Label::Host => values.push_str(self.host),
                Label::Mountpoint => values.push_str(self.mountpoint),
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
pub struct Sample {
    /// What it holds.
    pub value: Value,
    /// Since when it counts, from 1970; `None` where that is not known.
    pub created: Option<Duration>,
}

/// What a series holds.
#[derive(Debug)]
pub enum Value {
    /// Whole numbers stay whole: a double has no room for every u64.
    Whole(u64),
    /// Any other number.
    Real(f64),
    /// Buckets and their sum.
    Histogram(Box<Histogram>),
}

/// A histogram: what its buckets hold and the sum of what was observed, in nanoseconds, records or bytes.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// What was observed, by bucket.
    pub buckets: Buckets,
    /// The sum of it.
    pub sum: u64,
}

impl Histogram {
    /// The classic buckets of a metric in this unit: the upper bound of each, infinite for that of everything, and what it and
    /// those below it hold.
    pub fn cumulative(&self, classic: ClassicBuckets, unit: Unit) -> Vec<(f64, u64)> {
        let mut cumulative = 0u64;
        let mut buckets = Vec::with_capacity(classic.count());
        for (index, count) in self.buckets.iter().enumerate() {
            cumulative = cumulative.wrapping_add(*count);
            if index <= bucket::REGULAR && index % classic.step() == 0 {
                buckets.push((unit.bound(index), cumulative));
            }
        }
        buckets.push((f64::INFINITY, cumulative));
        buckets
    }

    /// The native buckets above the zero bucket that hold something, as Prometheus' formats write them. Bucket `i` of its
    /// schema 3 ends at `2^(i/8)`.
    pub fn native(&self, unit: Unit) -> NativeBuckets {
        let mut native = NativeBuckets::default();
        let (mut next, mut before) = (0, 0);
        for (index, &count) in self.buckets.iter().enumerate().skip(1).filter(|(_, count)| **count > 0) {
            let index = 8 * unit.exponent_min() + index as i32;
            match native.spans.last_mut() {
                Some((_, length)) if index == next => *length += 1,
                Some(_) => native.spans.push((index - next, 1)),
                None => native.spans.push((index, 1)),
            }
            native.deltas.push(count.wrapping_sub(before) as i64);
            (next, before) = (index + 1, count);
        }
        native
    }
}

/// Native buckets, sparse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeBuckets {
    /// Buckets that stand one behind the other: an offset, and how many there are. The first offset is the index of a bucket,
    /// others are how many were left out since the span before.
    pub spans: Vec<(i32, u32)>,
    /// What each holds more than the one before it.
    pub deltas: Vec<i64>,
}

/// All series of one scrape. Series whose labels are equal, because the metric leaves some out, are added.
#[derive(Debug, Default)]
pub struct Families {
    families: HashMap<&'static str, BTreeMap<SeriesLabels, Sample>>,
}

impl Families {
    /// Adds a whole number to a series of a counter or gauge.
    pub fn count(
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
    pub fn value(
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
    pub fn histogram(
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

    /// Adds what was counted at a site. `labels` gives the labels for what ended so.
    pub fn site<'l>(
        &mut self,
        site: Site,
        counts: &Counts,
        created: Option<Duration>,
        labels: impl Fn(Status) -> LabelValues<'l>,
    ) {
        let metrics = of_site(site);
        let all = labels(Status::Ok);
        if let Some(metric) = metrics.records {
            self.count(metric, &all, counts.records_with(Status::Ok), created);
        }
        if let Some(metric) = metrics.bytes {
            self.count(metric, &all, counts.bytes, created);
        }
        for status in Status::ALL {
            let operations = counts.operations_with(status);
            // A series that never counted anything is left out, but that of success shows that someone looks.
            if operations == 0 && status != Status::Ok {
                continue;
            }
            let labels = LabelValues { status: status.name(), ..labels(status) };
            if let Some(metric) = metrics.operations {
                self.count(metric, &labels, operations, created);
            }
            if let Some((counted, metric)) = metrics.errors
                && status != Status::Ok
            {
                let errors = match counted {
                    Counted::Records => counts.records_with(status),
                    Counted::Operations => operations,
                };
                self.count(metric, &labels, errors, created);
            }
        }
        self.histogram(metrics.duration, &all, &counts.durations, counts.duration_ns, created);
        if let (Some((records, bytes)), Some(sizes)) = (metrics.sizes, &counts.sizes) {
            self.histogram(records, &all, &sizes.records, counts.records_with(Status::Ok), created);
            self.histogram(bytes, &all, &sizes.bytes, counts.bytes, created);
        }
    }

    /// Sets the metric of a gauge of the state page. `now_ns` is CLOCK_MONOTONIC.
    pub fn gauge(&mut self, gauge: Gauge, labels: &LabelValues<'_>, value: u64, now_ns: u64) {
        let source = of_gauge(gauge);
        match (source.reading, value) {
            (Reading::Whole, value) => self.count(source.metric, labels, value, None),
            (Reading::Milliseconds, value) => self.value(source.metric, labels, value as f64 / 1e3, None),
            (Reading::Since, 0) => self.value(source.metric, labels, 0.0, None),
            (Reading::Since, since_ns) => {
                self.value(source.metric, labels, now_ns.saturating_sub(since_ns) as f64 / 1e9, None);
            }
        }
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
    pub fn of<'f>(
        &'f self,
        metric: &'static Metric,
    ) -> Option<impl Iterator<Item = (impl Iterator<Item = (&'static str, &'f str)>, &'f Sample)>> {
        let series = self.families.get(metric.name)?;
        Some(series.iter().map(move |(labels, sample)| (labels.iter(metric), sample)))
    }
}
