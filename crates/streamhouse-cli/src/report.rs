//! What the load generator and the consumer record by themselves: the ground truth that the profiler is measured
//! against. It shares no code with what it checks; latencies are binned in floating point.

use crate::output::kind_name;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use streamhouse_core::{ErrorKind, Partition};

/// Zero bucket, 26 octaves of 8, and one past the range.
const BUCKETS: usize = 210;

/// The bucket of a latency: 0 up to 2^-20 s, then eight an octave with inclusive upper bounds, 209 above 2^6 s.
fn bucket(latency: Duration) -> usize {
    let eighths = 8.0 * (latency.as_secs_f64().log2() + 20.0);
    eighths.ceil().clamp(0.0, (BUCKETS - 1) as f64) as usize
}

/// The inclusive upper bound of a bucket, in seconds.
fn upper_bound(bucket: usize) -> f64 {
    if bucket < BUCKETS - 1 { 2f64.powf(bucket as f64 / 8.0 - 20.0) } else { f64::INFINITY }
}

/// Latencies by bucket.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    counts: [u64; BUCKETS],
    sum_ns: u64,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies { counts: [0; BUCKETS], sum_ns: 0, max: Duration::ZERO }
    }
}

impl Latencies {
    /// Counts one.
    pub(crate) fn add(&mut self, latency: Duration) {
        self.counts[bucket(latency)] += 1;
        self.sum_ns += latency.as_nanos() as u64;
        self.max = self.max.max(latency);
    }

    /// An upper bound of the quantile, at most 9 % above it; zero when there is nothing.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let rank = (quantile * self.counts.iter().sum::<u64>() as f64).ceil() as u64;
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= rank
        };
        let bucket = self.counts.iter().position(reached).unwrap_or(BUCKETS - 1);
        Duration::from_secs_f64(upper_bound(bucket).min(self.max.as_secs_f64()))
    }

    /// The largest, exact.
    pub(crate) fn max(&self) -> Duration {
        self.max
    }
}

/// Records and what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Records.
    pub(crate) records: u64,
    /// Bytes of their keys, values and headers.
    pub(crate) bytes: u64,
}

impl Counts {
    /// Adds records and their bytes.
    pub(crate) fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
    }
}

/// What a producer run has seen so far; of one topic.
#[derive(Debug, Default)]
pub(crate) struct ProduceTally {
    /// Acknowledged.
    pub(crate) total: Counts,
    /// Records that failed, by kind, with the first message of each kind.
    pub(crate) errors: BTreeMap<ErrorKind, (u64, String)>,
    /// Of the acknowledged records.
    pub(crate) latencies: Latencies,
    partitions: Vec<Counts>,
    span: Span,
}

impl ProduceTally {
    /// Marks the first send.
    pub(crate) fn started(&mut self) {
        self.span.start();
    }

    /// Counts an acknowledged record.
    pub(crate) fn acknowledged(&mut self, partition: Partition, bytes: u64, latency: Duration) {
        self.total.add(1, bytes);
        let index = partition as usize;
        if index >= self.partitions.len() {
            self.partitions.resize(index + 1, Counts::default());
        }
        self.partitions[index].add(1, bytes);
        self.latencies.add(latency);
    }

    /// Counts a record that failed; gives true for the first of its kind.
    pub(crate) fn failed(&mut self, kind: ErrorKind, message: &dyn std::fmt::Display) -> bool {
        let (count, _) = self.errors.entry(kind).or_insert_with(|| (0, message.to_string()));
        *count += 1;
        *count == 1
    }

    /// Marks that the deliveries so far were accounted for now.
    pub(crate) fn settled(&mut self) {
        self.span.touch();
    }

    /// Records that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().map(|(count, _)| count).sum()
    }

    /// The record of the whole run.
    pub(crate) fn report(&self, topic: &str) -> ProduceReport {
        let numbered = (0..).zip(&self.partitions).filter(|(_, counts)| counts.records > 0);
        let partitions = numbered.map(|(partition, counts)| (partition, *counts)).collect();
        let buckets = self.latencies.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0);
        ProduceReport {
            records: self.total.records,
            bytes: self.total.bytes,
            errors: self.failures(),
            seconds: self.span.seconds(),
            latency_buckets: buckets.collect(),
            latency_sum_ns: self.latencies.sum_ns,
            latency_max_ns: self.latencies.max.as_nanos() as u64,
            errors_by_kind: self.errors.iter().map(|(kind, (count, _))| (kind_name(*kind), *count)).collect(),
            topics: BTreeMap::from([(topic.to_owned(), TopicCounts { total: self.total, partitions })]),
        }
    }
}

/// What `produce --report` writes.
#[derive(Debug, Serialize)]
pub(crate) struct ProduceReport {
    /// Records acknowledged.
    pub(crate) records: u64,
    /// Bytes of their keys, values and headers.
    pub(crate) bytes: u64,
    /// Records that failed.
    pub(crate) errors: u64,
    /// First send to last acknowledgement.
    pub(crate) seconds: f64,
    /// Acknowledged records by latency bucket; empty ones left out.
    pub(crate) latency_buckets: BTreeMap<usize, u64>,
    /// Sum of those latencies.
    pub(crate) latency_sum_ns: u64,
    /// The largest of them.
    pub(crate) latency_max_ns: u64,
    /// Records that failed, by the kind of error.
    pub(crate) errors_by_kind: BTreeMap<&'static str, u64>,
    /// Acknowledged records by topic and partition.
    pub(crate) topics: BTreeMap<String, TopicCounts<Counts>>,
}

/// A topic's part of a report.
#[derive(Debug, Default, Serialize)]
pub(crate) struct TopicCounts<P> {
    /// All its partitions.
    #[serde(flatten)]
    pub(crate) total: Counts,
    /// Each partition that had records.
    pub(crate) partitions: BTreeMap<Partition, P>,
}

/// A partition's part of a consumer's report.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PolledCounts {
    /// Records that polls returned.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Polls that returned records of this partition.
    pub(crate) polls: u64,
    #[serde(skip)]
    last_poll: u64,
}

/// What a consumer run has seen so far.
#[derive(Debug, Default)]
pub(crate) struct ConsumeTally {
    /// What polls returned.
    pub(crate) total: Counts,
    /// The number of the current poll, from 1.
    poll: u64,
    topics: BTreeMap<String, TopicCounts<PolledCounts>>,
    span: Span,
}

impl ConsumeTally {
    /// Begins to count a poll that returned something.
    pub(crate) fn polled(&mut self) {
        self.poll += 1;
        self.span.start();
        self.span.touch();
    }

    /// Counts records of one partition that the current poll returned; all of them, or a part.
    pub(crate) fn returned(&mut self, topic: &str, partition: Partition, records: u64, bytes: u64) {
        self.total.add(records, bytes);
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), TopicCounts::default());
        }
        let Some(topic) = self.topics.get_mut(topic) else { return };
        topic.total.add(records, bytes);
        let polled = topic.partitions.entry(partition).or_default();
        polled.counts.add(records, bytes);
        polled.polls += u64::from(polled.last_poll != self.poll);
        polled.last_poll = self.poll;
    }

    /// The record of the whole run.
    pub(crate) fn into_report(self) -> ConsumeReport {
        let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
        ConsumeReport {
            records: self.total.records,
            bytes: self.total.bytes,
            polls: partitions.map(|polled| polled.polls).sum(),
            seconds: self.span.seconds(),
            topics: self.topics,
        }
    }
}

/// What `consume --report` writes.
#[derive(Debug, Serialize)]
pub(crate) struct ConsumeReport {
    /// Records that polls returned.
    pub(crate) records: u64,
    /// Bytes of their keys, values and headers.
    pub(crate) bytes: u64,
    /// Polls that returned at least one record, counted once for each partition they returned records of.
    pub(crate) polls: u64,
    /// First record to last record.
    pub(crate) seconds: f64,
    /// The same by topic and partition.
    pub(crate) topics: BTreeMap<String, TopicCounts<PolledCounts>>,
}

/// From a first event to the last one.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    bounds: Option<(Instant, Instant)>,
}

impl Span {
    fn start(&mut self) {
        if self.bounds.is_none() {
            let now = Instant::now();
            self.bounds = Some((now, now));
        }
    }

    fn touch(&mut self) {
        if let Some((_, last)) = &mut self.bounds {
            *last = Instant::now();
        }
    }

    fn seconds(&self) -> f64 {
        self.bounds.map_or(0.0, |(first, last)| (last - first).as_secs_f64())
    }
}

/// A report's file, made before the first record so that a path that cannot be written is refused in time.
#[derive(Debug)]
pub(crate) struct ReportFile(Option<File>);

impl ReportFile {
    /// Makes the file, if one was asked for.
    pub(crate) fn create(path: Option<&Path>) -> Result<ReportFile> {
        let file = path.map(|path| {
            File::create(path).with_context(|| format!("the report {} cannot be written", path.display()))
        });
        Ok(ReportFile(file.transpose()?))
    }

    /// Writes the report.
    pub(crate) fn write(self, report: &impl Serialize) -> Result<()> {
        match self.0 {
            Some(file) => serde_json::to_writer(file, report).context("the report could not be written"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    /// A number of any size: 64-bit digits, the lowest first.
    #[derive(Clone, PartialEq, Eq)]
    struct Big(Vec<u64>);

    impl Big {
        fn times(mut self, factor: u64) -> Big {
            let mut carry = 0u128;
            for digit in &mut self.0 {
                carry += u128::from(*digit) * u128::from(factor);
                *digit = carry as u64;
                carry >>= 64;
            }
            if carry > 0 {
                self.0.push(carry as u64);
            }
            self
        }

        fn cmp(&self, other: &Big) -> Ordering {
            self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
        }
    }

    /// Whether `ns` is at most 2^(index/8 - 20) s, in whole numbers: ns^8 * 2^160 <= 10^72 * 2^index.
    fn at_most_bound(ns: u64, index: usize) -> bool {
        if ns == 0 {
            return true;
        }
        let left = (0..8).fold(Big(vec![1]), |product, _| product.times(ns));
        let left = (0..160).fold(left, |product, _| product.times(2));
        let right = (0..72).fold(Big(vec![1]), |product, _| product.times(10));
        let right = (0..index).fold(right, |product, _| product.times(2));
        left.cmp(&right) != Ordering::Greater
    }

    #[test]
    fn binning_is_exact_around_every_bound() {
        for index in 0..BUCKETS - 1 {
            let bound_ns = (upper_bound(index) * 1e9) as u64;
            for ns in bound_ns - 2..=bound_ns + 2 {
                let expected = (0..BUCKETS - 1).find(|&i| at_most_bound(ns, i)).unwrap_or(BUCKETS - 1);
                assert_eq!(bucket(Duration::from_nanos(ns)), expected, "{ns} ns around bound {index}");
            }
        }
    }

    #[test]
    fn powers_of_two_are_inclusive_upper_bounds() {
        // 2^-9 s is the smallest power of two that is a whole number of nanoseconds.
        for exponent in -9..=6i32 {
            let ns = (2f64.powi(exponent) * 1e9) as u64;
            let index = (8 * (exponent + 20)) as usize;
            assert_eq!(bucket(Duration::from_nanos(ns - 1)), index, "below 2^{exponent} s");
            assert_eq!(bucket(Duration::from_nanos(ns)), index, "2^{exponent} s");
            assert_eq!(bucket(Duration::from_nanos(ns + 1)), index + 1, "above 2^{exponent} s");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_nanos(953)), 0);
        assert_eq!(bucket(Duration::from_nanos(954)), 1);
        assert_eq!(bucket(Duration::MAX), 209);
    }

    #[test]
    fn quantiles_bound_from_above() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        for ms in 1..=100 {
            latencies.add(Duration::from_millis(ms));
        }
        for (quantile, exact_ms) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let ms = latencies.quantile(quantile).as_secs_f64() * 1e3;
            assert!(ms >= exact_ms && ms < exact_ms * 1.091, "{quantile}: {ms}");
        }
        assert_eq!(latencies.max(), Duration::from_millis(100));
    }

    #[test]
    fn a_report_adds_up() {
        let mut tally = ProduceTally::default();
        tally.started();
        tally.acknowledged(2, 100, Duration::from_millis(1));
        tally.acknowledged(0, 50, Duration::from_millis(3));
        assert!(tally.failed(ErrorKind::Unavailable, &"no agent"));
        assert!(!tally.failed(ErrorKind::Unavailable, &"still no agent"));
        tally.settled();
        let report = serde_json::to_value(tally.report("orders")).unwrap();
        assert_eq!(report["records"], 2);
        assert_eq!(report["bytes"], 150);
        assert_eq!(report["errors"], 2);
        assert_eq!(report["errors_by_kind"], serde_json::json!({"unavailable": 2}));
        assert_eq!(report["latency_sum_ns"], 4_000_000);
        let bins = report["latency_buckets"].as_object().unwrap();
        assert_eq!(bins.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 2);
        assert_eq!(
            report["topics"]["orders"],
            serde_json::json!({"records": 2, "bytes": 150, "partitions": {
                "0": {"records": 1, "bytes": 50}, "2": {"records": 1, "bytes": 100}}})
        );
    }

    #[test]
    fn polls_count_once_for_each_partition() {
        let mut tally = ConsumeTally::default();
        for _ in 0..2 {
            tally.polled();
            tally.returned("orders", 0, 10, 1000);
        }
        tally.returned("orders", 1, 5, 50);
        tally.returned("orders", 0, 1, 1);
        let report = serde_json::to_value(tally.into_report()).unwrap();
        assert_eq!(
            report["topics"]["orders"],
            serde_json::json!({"records": 26, "bytes": 2051, "partitions": {
                "0": {"records": 21, "bytes": 2001, "polls": 2}, "1": {"records": 5, "bytes": 50, "polls": 1}}})
        );
        assert_eq!(report["polls"], 3);
    }
}
