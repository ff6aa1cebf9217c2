//! The protobuf format: native histograms, and classic ones in the same messages.
//!
//! The messages are those of Prometheus' `io/prometheus/client/metrics.proto`, with the fields that are written here.

use std::time::Duration;

use crate::{
    ClassicBuckets, Families, Histogram as Counted, Kind, Metric as Catalogued, NativeBuckets, Sample, Value,
    catalog,
};
use prost::Message;
use streamhouse_abi::bucket;

/// One family: the messages stand one behind the other, each after its length.
#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub help: String,
    #[prost(enumeration = "Type", tag = "3")]
    pub kind: i32,
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
}

/// The types of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Type {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

/// One series, or all those of a histogram.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Gauge>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Counter>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Gauge {
    #[prost(double, tag = "1")]
    pub value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Counter {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(message, optional, tag = "3")]
    pub created: Option<Timestamp>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(uint64, tag = "1")]
    pub sample_count: u64,
    #[prost(double, tag = "2")]
    pub sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    pub schema: i32,
    #[prost(double, tag = "6")]
    pub zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    pub zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<Span>,
    #[prost(sint64, repeated, tag = "13")]
    pub positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    pub created: Option<Timestamp>,
}

/// A classic bucket.
#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    #[prost(uint64, tag = "1")]
    pub cumulative_count: u64,
    #[prost(double, tag = "2")]
    pub upper_bound: f64,
}

/// Native buckets that stand one behind the other.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// Of the first span the index of its first bucket, of others the buckets left out since the one before.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// Every family that has series.
pub(super) fn write(families: &Families, classic: ClassicBuckets) -> Vec<u8> {
    let mut page = Vec::new();
    for metric in catalog::ALL {
        let Some(series) = families.of(metric) else { continue };
        let family = MetricFamily {
            name: metric.name.to_owned(),
            help: metric.help.to_owned(),
            kind: match metric.kind {
                Kind::Counter => Type::Counter,
                Kind::Gauge => Type::Gauge,
                Kind::Histogram => Type::Histogram,
            } as i32,
            metric: series.map(|(labels, sample)| message(metric, labels, sample, classic)).collect(),
        };
        family.encode_length_delimited(&mut page).expect("a vector has room");
    }
    page
}

fn message<'l>(
    metric: &Catalogued,
    labels: impl Iterator<Item = (&'static str, &'l str)>,
    sample: &Sample,
    classic: ClassicBuckets,
) -> Metric {
    let label = labels.map(|(name, value)| LabelPair { name: name.to_owned(), value: value.to_owned() });
    let mut message = Metric { label: label.collect(), ..Metric::default() };
    let created = sample.created.map(timestamp);
    let value = match &sample.value {
        Value::Histogram(counted) => {
            message.histogram = Some(histogram(metric, counted, created, classic));
            return message;
        }
        Value::Whole(number) => *number as f64,
        Value::Real(number) => *number,
    };
    match metric.kind {
        Kind::Counter => message.counter = Some(Counter { value, created }),
        Kind::Gauge | Kind::Histogram => message.gauge = Some(Gauge { value }),
    }
    message
}

fn timestamp(unix: Duration) -> Timestamp {
    Timestamp { seconds: unix.as_secs() as i64, nanos: unix.subsec_nanos() as i32 }
}

fn histogram(
    metric: &Catalogued,
    counted: &Counted,
    created: Option<Timestamp>,
    classic: ClassicBuckets,
) -> Histogram {
    let cumulative = counted.cumulative(classic, metric.unit);
    let bucket =
        cumulative.iter().map(|&(upper_bound, cumulative_count)| Bucket { cumulative_count, upper_bound });
    let NativeBuckets { spans, deltas } = counted.native(metric.unit);
    Histogram {
        // The count is the sum of the buckets by construction: it is never stored beside them.
        sample_count: cumulative.last().map_or(0, |(_, count)| *count),
        sample_sum: metric.unit.sum(counted.sum),
        bucket: bucket.collect(),
        schema: bucket::SCHEMA.into(),
        zero_threshold: metric.unit.bound(0),
        zero_count: counted.buckets[0],
        positive_span: spans.into_iter().map(|(offset, length)| Span { offset, length }).collect(),
        positive_delta: deltas,
        created,
    }
}
