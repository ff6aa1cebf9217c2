//! The catalog: name, type, unit, help and labels of every metric that StreamHouse exposes.
//!
//! It is their one home. Whoever serves metrics (the probe, a process by itself) takes the [`Metric`] from here, so that
//! both planes serve the same series and documents can be generated. What the numbers come from is said by [`sources`]:
//! which metrics a site feeds, and which one a gauge of the state page is. [`Counts`] is what is counted at one site, and
//! [`Families`] what becomes of it: both planes fill the same, so that they cannot disagree.
//!
//! - Feature `recorder`: `recorder`, what a process that serves metrics itself counts in; with the feature `collector`, how
//!   an application serves that with prometheus-client.
//! - Feature `encode`: `encode`, the formats in which probe and agent serve.
//! - Feature `host`: `host`, what the machine has left.

pub mod catalog;
mod counts;
#[cfg(feature = "encode")]
pub mod encode;
mod family;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "recorder")]
pub mod recorder;
pub mod sources;

pub use counts::{Buckets, Counts, Detail, SizeCounts};
pub use family::{ClassicBuckets, Families, Histogram, LabelValues, NativeBuckets, Sample, Value};

use streamhouse_abi::bucket;

/// One metric family.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The exposed name, in full: counters end in `_total`, histograms in their base unit.
    pub name: &'static str,
    /// What it counts.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// One sentence for the operator; no line break.
    pub help: &'static str,
    /// Label names, in the order they are written.
    pub labels: &'static [Label],
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for a restart.
    Counter,
    /// A value now.
    Gauge,
    /// Buckets with the bounds of [`streamhouse_abi::bucket`], a sum and a count.
    Histogram,
}

impl Kind {
    /// The word of the exposition formats.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a metric's values are measured in. Base units only: no milliseconds, no kilobytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things that have no unit of their own: operations, partitions, connections, yes or no.
    Count,
    /// A position in a partition.
    Offset,
    /// Records.
    Records,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// The unit as documents write it.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Count => "count",
            Unit::Offset => "offset",
            Unit::Records => "records",
            Unit::Seconds => "seconds",
        }
    }

    /// The exponent of the lowest bound of a unit's histograms: it is that power of two.
    pub const fn exponent_min(self) -> i32 {
        match self {
            Unit::Seconds => bucket::DURATION_EXPONENT_MIN,
            Unit::Bytes | Unit::Count | Unit::Offset | Unit::Records => bucket::SIZE_EXPONENT_MIN,
        }
    }

    /// The upper bound of a histogram's bucket, in the unit.
    pub fn bound(self, index: usize) -> f64 {
        // Powers of two come out exact, so that bounds of all resolutions are the same numbers.
        let octave = self.exponent_min() + (index / 8) as i32;
        2f64.powi(octave) * 2f64.powf((index % 8) as f64 / 8.0)
    }

    /// The sum of a histogram, which is kept in nanoseconds, records or bytes, in the unit.
    pub const fn sum(self, sum: u64) -> f64 {
        match self {
            Unit::Seconds => sum as f64 / 1e9,
            Unit::Bytes | Unit::Count | Unit::Offset | Unit::Records => sum as f64,
        }
    }
}

/// A label name. The first six say whose a series is, in the order they are always written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// `agent`, `producer` or `consumer`.
    Role,
    /// Agent or client id.
    InstanceId,
    /// Consumer group.
    Group,
    /// Topic.
    Topic,
    /// Partition number.
    Partition,
    /// What an object-store operation did.
    Operation,
    /// What a gRPC request asked for.
    Method,
    /// How an operation ended: `ok` or an error kind.
    Status,
    /// Why something was refused.
    Reason,
    /// `attached` or `refused`.
    State,
    /// A kernel map.
    Map,
    /// The version of a binary.
    Version,
    /// The name of a machine.
    Host,
    /// Where a file system is mounted.
    Mountpoint,
}

impl Label {
    /// The label as it is exposed.
    pub const fn name(self) -> &'static str {
        match self {
            Label::Role => "role",
            Label::InstanceId => "instance_id",
            Label::Group => "group",
            Label::Topic => "topic",
            Label::Partition => "partition",
            Label::Operation => "operation",
            Label::Method => "method",
            Label::Status => "status",
            Label::Reason => "reason",
            Label::State => "state",
            Label::Map => "map",
            Label::Version => "version",
            Label::Host => "host",
            Label::Mountpoint => "mountpoint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_thresholds() {
        for (unit, thresholds, scale) in [
            (Unit::Seconds, &bucket::DURATION_THRESHOLDS_NS, 1e9),
            (Unit::Records, &bucket::SIZE_THRESHOLDS, 1.0),
        ] {
            for (index, threshold) in thresholds.iter().enumerate().take(bucket::REGULAR + 1) {
                // The threshold is the largest whole number that the bound takes in.
                let whole = *threshold as f64;
                let bound = unit.bound(index) * scale;
                assert!(whole <= bound * (1.0 + 1e-12) && bound < whole + 1.0, "{index}: {whole} {bound}");
            }
        }
        assert_eq!(Unit::Seconds.bound(160), 1.0);
        assert_eq!(Unit::Bytes.bound(80), 1024.0);
    }
}
