//! Catalog + sums + state → the page that Prometheus scrapes.
//!
//! In the [format](Format) that is asked for. Families stand in the order of the catalog and series in the order of
//! their labels, so that equal numbers give equal bytes.

mod clock;
mod family;
mod format;
mod number;
pub(crate) mod protobuf;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use streamhouse_abi::{Status, bucket};
use streamhouse_metrics::catalog;
use streamhouse_metrics::sources::{Counted, of_gauge, of_site};

use crate::collect::{Detail, Labels, SiteSum, Sums};
use crate::own::Own;
use crate::pages::{GaugeKey, State};
pub use clock::WallClock;
pub(crate) use family::{Families, LabelValues};
pub use format::Format;
use text::Dialect;

/// Value of the `instance_id` label of the series that stands for all label sets past the limit.
pub const OVERFLOW: &str = "overflow";

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
    pub(crate) fn count(self) -> usize {
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

/// Everything that one scrape tells.
#[derive(Debug)]
pub struct Scrape<'a> {
    /// What the kernel counted; `None` without a kernel program.
    pub sums: Option<&'a Sums>,
    /// What the pages say.
    pub state: &'a State,
    /// What the probe says of itself.
    pub own: &'a Own,
    /// Made when the probe started.
    pub clock: &'a WallClock,
}

/// The page for one scrape.
pub fn encode(scrape: &Scrape<'_>, format: Format, buckets: ClassicBuckets) -> Vec<u8> {
    let mut families = Families::default();
    for sum in scrape.sums.iter().flat_map(|sums| &sums.sites) {
        add_site(&mut families, sum, scrape.clock.unix(sum.created));
    }
    for (key, value) in &scrape.state.series {
        add_gauge(&mut families, key, *value);
    }
    for (process, up) in &scrape.state.processes {
        let labels = LabelValues {
            role: process.role.name(),
            instance_id: &process.instance_id,
            ..LabelValues::default()
        };
        families.count(&catalog::PROCESS_UP, &labels, u64::from(*up), None);
    }
    scrape.own.add_to(&mut families, scrape);
    match format {
        Format::Text => text::write(&families, buckets, Dialect::Prometheus).into_bytes(),
        Format::OpenMetrics => text::write(&families, buckets, Dialect::OpenMetrics).into_bytes(),
        Format::Protobuf => protobuf::write(&families, buckets),
    }
}

fn add_site(families: &mut Families, sum: &SiteSum, created: Duration) {
    let created = Some(created);
    let SiteSum { key, counts, overflowed, .. } = sum;
    let metrics = of_site(key.site);
    let (labels, overflow) = (labels_of(key.detail, key.labels.as_ref()), labels_of(key.detail, None));
    let with = |status: Status| {
        let labels = if overflowed.has(status) { overflow } else { labels };
        LabelValues { status: status.name(), ..labels }
    };
    if let Some(metric) = metrics.records {
        families.count(metric, &labels, counts.records_with(Status::Ok), created);
    }
    if let Some(metric) = metrics.bytes {
        families.count(metric, &labels, counts.bytes, created);
    }
    for status in Status::ALL {
        let operations = counts.operations_with(status);
        // A series that never counted anything is left out, but that of success shows that someone looks.
        if operations == 0 && status != Status::Ok {
            continue;
        }
        if let Some(metric) = metrics.operations {
            families.count(metric, &with(status), operations, created);
        }
        if let Some((counted, metric)) = metrics.errors
            && status != Status::Ok
        {
            let errors = match counted {
                Counted::Records => counts.records_with(status),
                Counted::Operations => operations,
            };
            families.count(metric, &with(status), errors, created);
        }
    }
    families.histogram(metrics.duration, &labels, &counts.durations, counts.duration_ns, created);
    if let (Some((records, bytes)), Some(sizes)) = (metrics.sizes, &counts.sizes) {
        families.histogram(records, &labels, &sizes.records, counts.records_with(Status::Ok), created);
        families.histogram(bytes, &labels, &sizes.bytes, counts.bytes, created);
    }
}

/// The overflow series' without labels.
fn labels_of(detail: Detail, labels: Option<&Labels>) -> LabelValues<'_> {
    let (operation, method) = match detail {
        Detail::None => ("", ""),
        Detail::Operation(operation) => (operation.name(), ""),
        Detail::Method(method) => ("", method.name()),
    };
    match labels {
        Some(labels) => LabelValues {
            role: labels.role.name(),
            instance_id: &labels.instance_id,
            group: &labels.group,
            topic: &labels.topic,
            partition: labels.partition,
            operation,
            method,
            ..LabelValues::default()
        },
        None => LabelValues { instance_id: OVERFLOW, operation, method, ..LabelValues::default() },
    }
}

fn add_gauge(families: &mut Families, key: &GaugeKey, value: u64) {
    let source = of_gauge(key.gauge);
    let labels = LabelValues {
        instance_id: &key.labels.instance_id,
        group: &key.labels.group,
        topic: &key.labels.topic,
        partition: key.labels.partition,
        ..LabelValues::default()
    };
    match source.divisor {
        1 => families.count(source.metric, &labels, value, None),
        divisor => families.value(source.metric, &labels, value as f64 / divisor as f64, None),
    }
}
