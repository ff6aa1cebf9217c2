//! Who sees every step and says when one breaks an invariant of `docs/architecture.md`.
//!
//! It keeps books of its own, of leases and of the log, and never looks at why a store decided as it did.

mod leases;
mod log;

use crate::database::Tables;
use crate::objects::{Object, Objects};
use crate::plan::ORPHAN_GRACE;
use crate::world::Node;
use bytes::Bytes;
use leases::Leases;
use log::Log;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use streamhouse_core::{AgentId, TopicPartition, batch::BatchHeader};
use streamhouse_metadata::{Flush, FlushRange, Lease, RangeOutcome, SegmentRange};

/// What must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's number in `docs/architecture.md`; 0 for what no number has: something panicked, or never ended.
    pub invariant: u8,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.invariant {
            0 => f.write_str(&self.what),
            number => write!(f, "invariant {number}: {}", self.what),
        }
    }
}

/// The witness of one run.
#[derive(Default)]
pub(crate) struct Witness {
    /// The first.
    pub(crate) violation: Option<Violation>,
    leases: Leases,
    logs: BTreeMap<TopicPartition, Log>,
    /// Objects in which something committed is, or was.
    ranged: BTreeSet<String>,
    /// Batches acknowledged.
    pub(crate) acknowledged: u64,
}

impl Witness {
    pub(crate) fn violated(&mut self, invariant: u8, what: String) {
        self.violation.get_or_insert(Violation { invariant, what });
    }

    fn note(&mut self, found: Result<(), Violation>) {
        if let Err(violation) = found {
            self.violation.get_or_insert(violation);
        }
    }

    /// After every step, whatever it was. Invariant 2: watermarks move in commits only, and ranges are dense up to them.
    pub(crate) fn look(&mut self, tables: &Tables) {
        for (at, row) in &tables.partitions {
            let log = self.logs.entry(at.clone()).or_default();
            if let Err(violation) = log.look(at, row) {
                self.violation.get_or_insert(violation);
            }
        }
    }

    pub(crate) fn granted(&mut self, agent: &AgentId, leases: &[Lease], term: Duration, now_ms: u64) {
        let found = self.leases.granted(agent, leases, term, now_ms);
        self.note(found);
    }

    pub(crate) fn renewed(
        &mut self,
        agent: &AgentId,
        asked: &[(TopicPartition, u64)],
        renewed: &[TopicPartition],
        term: Duration,
        now_ms: u64,
    ) {
        let found = self.leases.renewed(agent, asked, renewed, term, now_ms);
        self.note(found);
    }

    pub(crate) fn released(&mut self, agent: &AgentId, leases: &[(TopicPartition, u64)]) {
        self.leases.released(agent, leases);
    }

    pub(crate) fn released_all(&mut self, agent: &AgentId) {
        self.leases.released_all(agent);
    }

    pub(crate) fn expired_all(&mut self) {
        self.leases = Leases::default();
    }

    /// A commit. Invariants 1 to 4, as far as it can break them.
    pub(crate) fn committed(
        &mut self,
        flush: &Flush,
        outcomes: &[RangeOutcome],
        objects: &Objects,
        now_ms: u64,
    ) {
        for (range, outcome) in flush.ranges.iter().zip(outcomes) {
            if *outcome == RangeOutcome::Committed {
                let found = self.committed_range(flush, range, objects, now_ms);
                self.note(found);
            }
        }
    }

    fn committed_range(
        &mut self,
        flush: &Flush,
        range: &FlushRange,
        objects: &Objects,
        now_ms: u64,
    ) -> Result<(), Violation> {
        self.leases.commits(&flush.agent, range, now_ms)?;
        let object = objects.get(&flush.object).ok_or_else(|| Violation {
            invariant: 3,
            what: format!("{} is committed, and its object is not stored", range.partition),
        })?;
        self.ranged.insert(flush.object.clone());
        self.logs.entry(range.partition.clone()).or_default().append(range, object)
    }

    /// Retention moved log starts.
    pub(crate) fn retained(&mut self, moved: &[(TopicPartition, u64)]) {
        for (at, log_start) in moved {
            self.logs.entry(at.clone()).or_default().log_start = *log_start;
        }
    }

    /// A reader was told where records are. Invariant 2: all of them are below the high watermark.
    pub(crate) fn shown(&mut self, at: &TopicPartition, offset: u64, ranges: &[SegmentRange]) {
        let found = self.logs.entry(at.clone()).or_default().shown(at, offset, ranges);
        self.note(found);
    }

    /// Somebody reads an object. Invariant 5: it was committed.
    pub(crate) fn read(&mut self, key: &str, number: usize, tables: &Tables) {
        if !tables.segments.values().any(|segment| segment.object == key) {
            self.violated(5, format!("object {number} is read, and was not committed"));
        }
    }

    /// An object was removed. Invariant 5, from the other side: nothing is read from it any more, and nothing will be.
    pub(crate) fn removed(&mut self, key: &str, object: &Object, by: Node, tables: &Tables, now_ms: u64) {
        let number = object.number;
        let is_over = |since_ms: u64| since_ms + ORPHAN_GRACE.as_millis() as u64 <= now_ms;
        let row = tables.segments.values().find(|segment| segment.object == key);
        if self.ranged.contains(key) {
            // Who learned of a range before retention dropped it still reads.
            if !row.and_then(|row| row.dead_since_ms).is_some_and(is_over) {
                self.violated(5, format!("{by} removes object {number}, in which are committed records"));
            }
        } else if object.by != by && !is_over(object.stored_ms) {
            self.violated(
                5,
                format!("{by} removes object {number} of {}, whose time is not over", object.by),
            );
        }
    }

    /// An agent acknowledges a batch. Invariants 3 and 4.
    pub(crate) fn answered(&mut self, at: &TopicPartition, batch: &BatchHeader, base_offset: u64) {
        self.acknowledged += 1;
        let found = self.logs.entry(at.clone()).or_default().answered(at, batch, base_offset);
        self.note(found);
    }

    /// A producer learns where its record is. Invariant 3.
    pub(crate) fn delivered(&mut self, at: &TopicPartition, offset: u64, value: &[u8]) {
        if self.record(at, offset).is_none_or(|logged| logged != value) {
            self.violated(
                3,
                format!("a record is acknowledged at {at} {offset}, and another or none is there"),
            );
        }
    }

    /// The record at an offset, if it was ever committed.
    pub(crate) fn record(&self, at: &TopicPartition, offset: u64) -> Option<&Bytes> {
        self.logs.get(at)?.records.get(offset as usize)
    }

    /// Where the log of a partition ends.
    pub(crate) fn end(&self, at: &TopicPartition) -> u64 {
        self.logs.get(at).map_or(0, |log| log.records.len() as u64)
    }
}
