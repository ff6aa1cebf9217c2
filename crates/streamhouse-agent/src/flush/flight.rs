//! A flush under way: one segment, from its first byte stored to its commit's outcome.

use super::{placed::PlacedBatches, writer::PartitionWriter};
use std::collections::HashMap;
use streamhouse_core::{AgentId, SegmentId, TopicPartition};
use streamhouse_hooks::{TraceContext, trace::Entered};
use streamhouse_metadata::{Flush, FlushRange};
use streamhouse_storage::RangeLayout;
use tokio::time::Instant;
use tracing::span::EnteredSpan;

/// A flush under way.
pub(super) struct Flight {
    pub(super) segment: SegmentId,
    pub(super) object: String,
    pub(super) object_bytes: u64,
    /// When it is given up if it is not committed.
    pub(super) deadline: Instant,
    pub(super) ranges: Vec<FlightRange>,
    /// What its object and its commit belong to: the trace of its first batch that has one.
    pub(super) trace: Option<TraceContext>,
}

/// One partition's batches in a flush, and where they are in the object.
pub(super) struct FlightRange {
    pub(super) batches: PlacedBatches,
    pub(super) layout: RangeLayout,
}

/// Log lines and events belong to a flight's trace as long as this lives.
pub(super) struct InTrace(#[expect(dead_code, reason = "held")] Option<(Entered, EnteredSpan)>);

impl Flight {
    /// Has what follows belong to its trace.
    pub(super) fn enter(&self) -> InTrace {
        InTrace(self.trace.map(|trace| (trace.enter(), trace.span().entered())))
    }

    /// Records, and bytes of keys, values and headers.
    pub(super) fn totals(&self) -> (u64, u64) {
        let records = self.ranges.iter().map(|range| range.layout.records).sum();
        (records, self.ranges.iter().map(|range| range.batches.record_bytes()).sum())
    }

    /// What to commit.
    pub(super) fn flush(&self, agent: &AgentId, writers: &HashMap<TopicPartition, PartitionWriter>) -> Flush {
        let ranges = self.ranges.iter().map(|FlightRange { batches, layout }| FlushRange {
            partition: layout.partition.clone(),
            epoch: batches.epoch,
            base_offset: layout.base_offset,
            records: layout.records,
            position: layout.position,
            bytes: layout.bytes,
            index_position: layout.index_position,
            index_bytes: layout.index_bytes,
            producers: writers
                .get(&layout.partition)
                .map_or_else(Vec::new, |writer| writer.producers_after(batches)),
        });
        Flush {
            segment: self.segment,
            object: self.object.clone(),
            object_bytes: self.object_bytes,
            agent: agent.clone(),
            ranges: ranges.collect(),
        }
    }
}
