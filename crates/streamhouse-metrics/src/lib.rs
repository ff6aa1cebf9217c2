//! The catalog: name, type, unit, help and labels of every metric that StreamHouse exposes.
//!
//! It is their one home. Whoever serves metrics (the probe, a process by itself) takes the [`Metric`] from here, so that
//! both planes serve the same series and documents can be generated. What the numbers come from is said by [`sources`]:
//! which metrics a site feeds, and which one a gauge of the state page is.

pub mod catalog;
pub mod sources;

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
        }
    }
}
