//! A page of a probe in its most exact format, and what has changed from one to the next.

use std::collections::BTreeMap;

use anyhow::Context;
use prost::Message;
use streamhouse_metrics::Metric;

use crate::encode::protobuf::{self, MetricFamily};

/// Names and values of a series' labels.
type LabelSet = BTreeMap<String, String>;

/// What a probe said at one time, or what has changed between two.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    families: BTreeMap<String, BTreeMap<LabelSet, Value>>,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Counter(f64),
    Gauge(f64),
    Histogram(Histogram),
}

/// A native histogram: bucket `i` of schema `s` ends at `2^(i / 2^s)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    /// The sum of all values.
    pub(crate) sum: f64,
    schema: i32,
    zero: u64,
    buckets: BTreeMap<i32, u64>,
}

impl Snapshot {
    /// Reads length-delimited families.
    pub(crate) fn parse(mut page: &[u8]) -> anyhow::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        while !page.is_empty() {
            let family =
                MetricFamily::decode_length_delimited(&mut page).context("the page is no probe's")?;
            let series = snapshot.families.entry(family.name).or_default();
            for metric in family.metric {
                let labels = metric.label.into_iter().map(|label| (label.name, label.value)).collect();
                let value = match (metric.counter, metric.gauge, metric.histogram) {
                    (Some(counter), ..) => Value::Counter(counter.value),
                    (_, Some(gauge), _) => Value::Gauge(gauge.value),
                    (.., Some(histogram)) => Value::Histogram(Histogram::read(&histogram)),
                    _ => continue,
                };
                series.insert(labels, value);
            }
        }
        Ok(snapshot)
    }

    /// What counters and histograms have gained since `before`; gauges as they are. One that is less than it was began
    /// anew: all of it is gain.
    pub(crate) fn since(&self, before: &Snapshot) -> Snapshot {
        let mut gained = self.clone();
        for (name, series) in &mut gained.families {
            let Some(earlier) = before.families.get(name) else { continue };
            for (labels, value) in series {
                match (value, earlier.get(labels)) {
                    (Value::Counter(now), Some(Value::Counter(then))) if *then <= *now => *now -= then,
                    (Value::Histogram(now), Some(Value::Histogram(then))) => now.subtract(then),
                    _ => {}
                }
            }
        }
        gained
    }

    /// Every series of a metric with its number; of a histogram there is none.
    pub(crate) fn numbers(&self, metric: &Metric) -> impl Iterator<Item = (&LabelSet, f64)> {
        self.series(metric).filter_map(|(labels, value)| match value {
            Value::Counter(number) | Value::Gauge(number) => Some((labels, *number)),
            Value::Histogram(_) => None,
        })
    }

    /// Every series of a histogram.
    pub(crate) fn histograms(&self, metric: &Metric) -> impl Iterator<Item = (&LabelSet, &Histogram)> {
        self.series(metric).filter_map(|(labels, value)| match value {
            Value::Histogram(histogram) => Some((labels, histogram)),
            Value::Counter(_) | Value::Gauge(_) => None,
        })
    }

    fn series(&self, metric: &Metric) -> impl Iterator<Item = (&LabelSet, &Value)> {
        self.families.get(metric.name).into_iter().flatten()
    }
}

impl Histogram {
    fn read(message: &protobuf::Histogram) -> Histogram {
        let mut buckets = BTreeMap::new();
        let (mut index, mut count) = (0i32, 0i64);
        let mut deltas = message.positive_delta.iter();
        for span in &message.positive_span {
            index = index.wrapping_add(span.offset);
            for delta in deltas.by_ref().take(span.length as usize) {
                count = count.wrapping_add(*delta);
                buckets.insert(index, count as u64);
                index = index.wrapping_add(1);
            }
        }
        let (sum, schema, zero) = (message.sample_sum, message.schema, message.zero_count);
        Histogram { sum, schema, zero, buckets }
    }

    /// Adds what another one holds.
    pub(crate) fn add(&mut self, other: &Histogram) {
        self.sum += other.sum;
        self.schema = other.schema;
        self.zero += other.zero;
        for (index, count) in &other.buckets {
            *self.buckets.entry(*index).or_default() += count;
        }
    }

    fn subtract(&mut self, before: &Histogram) {
        let earlier = |index: &i32| before.buckets.get(index).copied().unwrap_or(0);
        let grew = self.zero >= before.zero
            && before
                .buckets
                .iter()
                .all(|(index, then)| self.buckets.get(index).is_some_and(|now| now >= then));
        if grew {
            self.sum -= before.sum;
            self.zero -= before.zero;
            self.buckets.iter_mut().for_each(|(index, count)| *count -= earlier(index));
            self.buckets.retain(|_, count| *count > 0);
        }
    }

    /// How many values it holds.
    pub(crate) fn count(&self) -> u64 {
        self.zero + self.buckets.values().sum::<u64>()
    }

    /// Their mean; `None` when there is none.
    pub(crate) fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// The value below which the share `q` of all lies, estimated inside its bucket as Prometheus does for native
    /// histograms: exponentially. `None` when it is empty.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = q * count as f64;
        let mut below = self.zero as f64;
        if count == 0 {
            return None;
        }
        if rank <= below {
            return Some(0.0);
        }
        let resolution = 2f64.powi(self.schema);
        for (index, held) in &self.buckets {
            let held = *held as f64;
            if rank <= below + held {
                let share = (rank - below) / held;
                return Some(((f64::from(*index) - 1.0 + share) / resolution).exp2());
            }
            below += held;
        }
        self.buckets.keys().next_back().map(|last| (f64::from(*last) / resolution).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(sum: f64, zero: u64, buckets: &[(i32, u64)]) -> Histogram {
        Histogram { sum, schema: 3, zero, buckets: buckets.iter().copied().collect() }
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let one = histogram(8.0, 0, &[(-8, 90), (0, 10)]);
        for (q, above, most) in [(0.5, 0.45, 0.5), (0.9, 0.45, 0.5), (0.99, 0.91, 1.0), (1.0, 0.99, 1.0)] {
            let value = one.quantile(q).expect("it holds values");
            assert!(above < value && value <= most, "{q}: {value}");
        }
        assert_eq!(histogram(0.0, 3, &[]).quantile(0.5), Some(0.0));
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(Histogram::default().mean(), None);
    }

    #[test]
    fn what_was_gained_is_the_difference_unless_it_began_anew() {
        let mut now = histogram(10.0, 1, &[(1, 5), (3, 2)]);
        now.subtract(&histogram(4.0, 1, &[(1, 3)]));
        assert_eq!(now, histogram(6.0, 0, &[(1, 2), (3, 2)]));
        let mut restarted = histogram(1.0, 0, &[(3, 1)]);
        restarted.subtract(&histogram(4.0, 1, &[(1, 3)]));
        assert_eq!(restarted, histogram(1.0, 0, &[(3, 1)]));
    }

    #[test]
    fn spans_are_read_as_they_are_written() {
        let message = protobuf::Histogram {
            sample_sum: 1.5,
            schema: 3,
            zero_count: 1,
            positive_span: vec![
                protobuf::Span { offset: -5, length: 2 },
                protobuf::Span { offset: 3, length: 1 },
            ],
            positive_delta: vec![4, -3, 6],
            ..protobuf::Histogram::default()
        };
        assert_eq!(Histogram::read(&message), histogram(1.5, 1, &[(-5, 4), (-4, 1), (0, 7)]));
    }

    #[test]
    fn what_is_no_page_is_refused() {
        assert!(Snapshot::parse(b"# HELP x").is_err());
        assert_eq!(Snapshot::parse(b"").expect("an empty page"), Snapshot::default());
    }
}
