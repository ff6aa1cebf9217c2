//! What feeds the catalog: which metrics a site counts into, and which one a gauge of the state page is.

use crate::{Label, Metric, catalog};
use streamhouse_abi::page::Gauge;
use streamhouse_abi::{Site, Status};

/// The metrics that the sums of one site become.
#[derive(Clone, Copy, Debug)]
pub struct SiteMetrics {
    /// Records of operations that succeeded.
    pub records: Option<&'static Metric>,
    /// Bytes of operations that succeeded.
    pub bytes: Option<&'static Metric>,
    /// What failed, by status.
    pub errors: Option<(Counted, &'static Metric)>,
    /// Operations by status, those that succeeded included.
    pub operations: Option<&'static Metric>,
    /// Duration of what succeeded.
    pub duration: &'static Metric,
    /// Records and bytes per operation that succeeded.
    pub sizes: Option<(&'static Metric, &'static Metric)>,
}

impl SiteMetrics {
    /// The metrics that have a series as soon as anything is counted, but for those of [`SiteMetrics::by_status`].
    pub fn always(&self) -> impl Iterator<Item = &'static Metric> + use<> {
        let (by_records, by_bytes) = self.sizes.unzip();
        [self.records, self.bytes, Some(self.duration), by_records, by_bytes].into_iter().flatten()
    }

    /// The metrics that have a series for operations that ended so.
    pub fn by_status(&self, status: Status) -> impl Iterator<Item = &'static Metric> + use<> {
        let errors = self.errors.map(|(_, metric)| metric).filter(|_| status != Status::Ok);
        [self.operations, errors].into_iter().flatten()
    }

    /// Whether one of the metrics has this label.
    pub fn has(&self, label: Label) -> bool {
        let mut all = self.always().chain(self.by_status(Status::Unavailable));
        all.any(|metric| metric.labels.contains(&label))
    }
}

/// What an error counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// The records of the failed operations.
    Records,
    /// The failed operations.
    Operations,
}

/// The metrics of a site.
pub fn of_site(site: Site) -> SiteMetrics {
    use catalog as c;
    let only = |duration| SiteMetrics {
        records: None,
        bytes: None,
        errors: None,
        operations: None,
        duration,
        sizes: None,
    };
    match site {
        Site::Send => SiteMetrics {
            records: Some(&c::PRODUCER_RECORDS_SENT),
            bytes: Some(&c::PRODUCER_BYTES_SENT),
            errors: Some((Counted::Records, &c::PRODUCER_SEND_ERRORS)),
            ..only(&c::PRODUCER_SEND_DURATION)
        },
        Site::Flush => SiteMetrics {
            errors: Some((Counted::Operations, &c::PRODUCER_BATCH_FLUSH_ERRORS)),
            sizes: Some((&c::PRODUCER_BATCH_SIZE_RECORDS, &c::PRODUCER_BATCH_SIZE_BYTES)),
            ..only(&c::PRODUCER_BATCH_FLUSH_DURATION)
        },
        Site::Poll => SiteMetrics {
            records: Some(&c::CONSUMER_RECORDS_CONSUMED),
            bytes: Some(&c::CONSUMER_BYTES_CONSUMED),
            errors: Some((Counted::Operations, &c::CONSUMER_POLL_ERRORS)),
            ..only(&c::CONSUMER_POLL_DURATION)
        },
        Site::Write => SiteMetrics {
            records: Some(&c::AGENT_RECORDS_WRITTEN),
            bytes: Some(&c::AGENT_BYTES_WRITTEN),
            errors: Some((Counted::Records, &c::AGENT_WRITE_ERRORS)),
            ..only(&c::AGENT_WRITE_LATENCY)
        },
        Site::Object => SiteMetrics {
            bytes: Some(&c::OBJECT_STORE_BYTES),
            operations: Some(&c::OBJECT_STORE_OPERATIONS),
            ..only(&c::OBJECT_STORE_DURATION)
        },
        Site::Commit => SiteMetrics {
            errors: Some((Counted::Operations, &c::AGENT_COMMIT_ERRORS)),
            ..only(&c::AGENT_COMMIT_DURATION)
        },
        Site::Request => {
            SiteMetrics { operations: Some(&c::AGENT_GRPC_REQUESTS), ..only(&c::AGENT_GRPC_REQUEST_DURATION) }
        }
    }
}

/// The metric of a gauge of the state page, and how its values become the metric's.
#[derive(Clone, Copy, Debug)]
pub struct GaugeMetric {
    /// The metric.
    pub metric: &'static Metric,
    /// How its values become the metric's.
    pub reading: Reading,
    /// How several slots with equal labels become one series.
    pub merge: Merge,
    /// What of it outlives its process.
    pub left: Left,
}

/// How a value of the state page becomes the metric's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is the metric's.
    Whole,
    /// It is in milliseconds, the metric in seconds.
    Milliseconds,
    /// It is a time of CLOCK_MONOTONIC in nanoseconds, the metric the seconds that have passed since; 0 for 0.
    Since,
}

/// How slots with equal labels, of one or several running processes, become one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The values are added: each holds a part.
    Add,
    /// The largest value.
    Max,
    /// The smallest value that is not 0.
    Min,
    /// The latest update.
    Latest,
}

/// What of a gauge outlives a process that ended without taking it back. A slot that is taken back leaves nothing, but for
/// [`Left::Sum`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing, at once: whoever tells of its subject next is another process, maybe elsewhere.
    Nothing,
    /// That it is 0 now.
    Zero,
    /// The last value, until a running process tells of the same partition.
    Last,
    /// What it had added: a counter.
    Sum,
}

/// The metric of a gauge.
pub fn of_gauge(gauge: Gauge) -> GaugeMetric {
    use catalog as c;
    let (metric, reading, merge, left) = match gauge {
        Gauge::ProducerPendingRecords => {
            (&c::PRODUCER_PENDING_RECORDS, Reading::Whole, Merge::Add, Left::Zero)
        }
        Gauge::ConsumerLagRecords => (&c::CONSUMER_LAG_RECORDS, Reading::Whole, Merge::Latest, Left::Nothing),
        Gauge::ConsumerLagMilliseconds => {
            (&c::CONSUMER_LAG_SECONDS, Reading::Milliseconds, Merge::Latest, Left::Nothing)
        }
        Gauge::ConsumerLastCommittedOffset => {
            (&c::CONSUMER_LAST_COMMITTED_OFFSET, Reading::Whole, Merge::Latest, Left::Last)
        }
        Gauge::ConsumerCurrentOffset => {
            (&c::CONSUMER_CURRENT_OFFSET, Reading::Whole, Merge::Latest, Left::Last)
        }
        Gauge::AgentActivePartitions => (&c::AGENT_ACTIVE_PARTITIONS, Reading::Whole, Merge::Add, Left::Zero),
        Gauge::AgentActiveConnections => {
            (&c::AGENT_ACTIVE_CONNECTIONS, Reading::Whole, Merge::Add, Left::Zero)
        }
        Gauge::AgentLeaseRenewals => (&c::AGENT_LEASE_RENEWALS, Reading::Whole, Merge::Add, Left::Sum),
        Gauge::AgentReady => (&c::AGENT_READY, Reading::Whole, Merge::Max, Left::Zero),
        Gauge::GroupLagRecords => (&c::GROUP_LAG_RECORDS, Reading::Whole, Merge::Max, Left::Nothing),
        Gauge::GroupLagMilliseconds => {
            (&c::GROUP_LAG_SECONDS, Reading::Milliseconds, Merge::Max, Left::Nothing)
        }
        Gauge::AgentUnflushedBytes => (&c::AGENT_UNFLUSHED_BYTES, Reading::Whole, Merge::Add, Left::Zero),
        Gauge::AgentUnflushedSince => (&c::AGENT_UNFLUSHED_AGE, Reading::Since, Merge::Min, Left::Zero),
        Gauge::AgentLeaseLosses => (&c::AGENT_LEASE_LOSSES, Reading::Whole, Merge::Add, Left::Sum),
        Gauge::AgentLeaseFencings => (&c::AGENT_LEASE_FENCINGS, Reading::Whole, Merge::Add, Left::Sum),
        Gauge::GroupCommittedOffset => {
            (&c::GROUP_COMMITTED_OFFSET, Reading::Whole, Merge::Max, Left::Nothing)
        }
    };
    GaugeMetric { metric, reading, merge, left }
}

impl Merge {
    /// The value of two: `later` was updated after `earlier`.
    pub fn of_two(self, earlier: u64, later: u64) -> u64 {
        match self {
            Merge::Add => earlier.saturating_add(later),
            Merge::Max => earlier.max(later),
            Merge::Min => match (earlier, later) {
                (0, other) | (other, 0) => other,
                (one, other) => one.min(other),
            },
            Merge::Latest => later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Unit};
    use std::collections::HashSet;

    /// Every metric that a site feeds.
    fn fed(metrics: SiteMetrics) -> Vec<&'static Metric> {
        metrics.always().chain(metrics.by_status(Status::Retry)).collect()
    }

    #[test]
    fn each_site_feeds_metrics_of_the_right_type() {
        for site in Site::ALL {
            let metrics = of_site(site);
            assert_eq!((metrics.duration.kind, metrics.duration.unit), (Kind::Histogram, Unit::Seconds));
            for counter in [metrics.records, metrics.bytes, metrics.operations].into_iter().flatten() {
                assert_eq!(counter.kind, Kind::Counter, "{}", counter.name);
            }
            assert!(
                metrics.errors.is_some() || metrics.operations.is_some(),
                "failures of {} would be counted nowhere",
                site.name()
            );
            for by_status in metrics.errors.map(|(_, metric)| metric).into_iter().chain(metrics.operations) {
                assert!(by_status.labels.contains(&Label::Status), "{}", by_status.name);
            }
        }
    }

    #[test]
    fn no_metric_has_two_sources() {
        let mut seen = HashSet::new();
        let sites = Site::ALL.into_iter().flat_map(|site| fed(of_site(site)));
        let gauges = Gauge::ALL.into_iter().map(|gauge| of_gauge(gauge).metric);
        for metric in sites.chain(gauges) {
            assert!(seen.insert(metric.name), "{}", metric.name);
            assert!(catalog::ALL.iter().any(|known| known.name == metric.name), "{}", metric.name);
        }
    }

    #[test]
    fn every_metric_of_the_log_has_a_source() {
        let sites = Site::ALL.into_iter().flat_map(|site| fed(of_site(site)));
        let gauges = Gauge::ALL.into_iter().map(|gauge| of_gauge(gauge).metric);
        let fed: HashSet<_> = sites.chain(gauges).map(|metric| metric.name).collect();
        for metric in catalog::ALL {
            let own = ["streamhouse_probe_", "streamhouse_host_", "streamhouse_process_up"]
                .iter()
                .any(|own| metric.name.starts_with(own));
            assert!(own || fed.contains(metric.name), "nothing feeds {}", metric.name);
        }
    }

    #[test]
    fn counters_of_the_page_are_kept_and_gauges_are_not_added_up_for_ever() {
        for gauge in Gauge::ALL {
            let GaugeMetric { metric, merge, left, .. } = of_gauge(gauge);
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(is_counter, left == Left::Sum, "{}", metric.name);
            assert!(!is_counter || merge == Merge::Add, "{}", metric.name);
        }
    }

    #[test]
    fn what_another_process_may_go_on_with_has_a_partition() {
        for gauge in Gauge::ALL {
            let GaugeMetric { metric, left, .. } = of_gauge(gauge);
            let of_a_group =
                [Label::Group, Label::Partition].iter().all(|label| metric.labels.contains(label));
            assert_eq!(of_a_group, matches!(left, Left::Nothing | Left::Last), "{}", metric.name);
        }
    }
}
