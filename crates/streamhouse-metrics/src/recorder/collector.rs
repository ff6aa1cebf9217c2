//! How families reach a registry of prometheus-client.

use super::Recorder;
use crate::{ClassicBuckets, Histogram, Kind, Metric, NativeBuckets, Sample, Unit, Value, catalog};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, LabelSetEncoder};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::encoding::{NativeHistogram, NativeHistogramBuckets};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use streamhouse_abi::bucket;

#[derive(Debug)]
struct Source(Arc<Recorder>);

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.0.families();
        for metric in catalog::ALL {
            let Some(series) = families.of(metric) else { continue };
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            // The encoder appends it.
            let name = metric.name.trim_end_matches("_total");
            let mut family = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for (labels, sample) in series {
                let labels = Pairs(labels.collect());
                encode(family.encode_family(&labels)?, metric, sample)?;
            }
        }
        Ok(())
    }
}

fn encode(mut encoder: MetricEncoder<'_>, metric: &Metric, sample: &Sample) -> fmt::Result {
    match (&sample.value, metric.kind) {
        (Value::Whole(number), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, f64>(number, None),
        (Value::Real(number), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, f64>(number, None),
        (Value::Whole(number), _) => encoder.encode_gauge(number),
        (Value::Real(number), _) => encoder.encode_gauge(number),
        (Value::Histogram(histogram), _) => encode_histogram(encoder, metric.unit, histogram),
    }
}

/// With classic buckets, and native ones for an encoder that has them.
fn encode_histogram(mut encoder: MetricEncoder<'_>, unit: Unit, histogram: &Histogram) -> fmt::Result {
    // What prometheus-client wants is not cumulative.
    let mut count = 0;
    let mut classic = histogram.cumulative(ClassicBuckets::default(), unit);
    for (_, here) in &mut classic {
        (*here, count) = (*here - count, *here);
    }
    let NativeBuckets { spans, deltas } = histogram.native(unit);
    let native = NativeHistogram {
        schema: bucket::SCHEMA.into(),
        zero_threshold: unit.bound(0),
        zero_count: histogram.buckets[0],
        positive: NativeHistogramBuckets { spans: &spans, deltas: &deltas },
        negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
        created: None,
    };
    let sum = unit.sum(histogram.sum);
    encoder.encode_histogram_with_native::<NoLabelSet>(sum, count, &classic, None, native)
}

/// Labels with their values; those that are empty are left out, which is the same to Prometheus.
struct Pairs<'a>(Vec<(&'static str, &'a str)>);

impl EncodeLabelSet for Pairs<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for pair in self.0.iter().filter(|(_, value)| !value.is_empty()) {
            pair.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl Recorder {
    /// Has a registry serve what is counted here, under the catalog's names: in a sub-registry with a prefix they would have
    /// others.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(Source(Arc::clone(self))));
    }
}
