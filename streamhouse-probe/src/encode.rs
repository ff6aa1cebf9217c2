//! Catalog + sums + state → the page that Prometheus scrapes.
//!
//! What becomes families here is written by [`streamhouse_metrics::encode`], as in a process that serves its own.

mod clock;
#[cfg(test)]
mod tests;

use std::time::Duration;

use streamhouse_abi::Status;
use streamhouse_metrics::{Families, LabelValues, catalog};

use crate::collect::{Labels, SiteSum, Sums};
use crate::own::Own;
use crate::pages::State;
pub use clock::WallClock;
pub use streamhouse_metrics::ClassicBuckets;
pub use streamhouse_metrics::encode::Format;
pub(crate) use streamhouse_metrics::encode::protobuf;

/// Value of the `instance_id` label of the series that stands for all label sets past the limit.
pub const OVERFLOW: &str = "overflow";

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
        let labels = LabelValues {
            instance_id: &key.labels.instance_id,
            group: &key.labels.group,
            topic: &key.labels.topic,
            partition: key.labels.partition,
            ..LabelValues::default()
        };
        families.gauge(key.gauge, &labels, *value, scrape.clock.monotonic_ns());
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
    streamhouse_metrics::encode::write(&families, format, buckets)
}

fn add_site(families: &mut Families, sum: &SiteSum, created: Duration) {
    let SiteSum { key, counts, overflowed, .. } = sum;
    let (own, overflow) = (labels_of(key.labels.as_ref()), labels_of(None));
    families.site(key.site, counts, Some(created), |status: Status| {
        if overflowed.has(status) { overflow } else { own }.with_detail(key.detail)
    });
}

/// The overflow series' without labels.
fn labels_of(labels: Option<&Labels>) -> LabelValues<'_> {
    match labels {
        Some(labels) => LabelValues {
            role: labels.role.name(),
            instance_id: &labels.instance_id,
            group: &labels.group,
            topic: &labels.topic,
            partition: labels.partition,
            ..LabelValues::default()
        },
        None => LabelValues { instance_id: OVERFLOW, ..LabelValues::default() },
    }
}
