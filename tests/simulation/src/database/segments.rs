//! Commits, ranges, retention.

use super::{PartitionRow, SegmentRow, Tables};
use crate::bug::Bug;
use std::time::Duration;
use streamhouse_core::{SegmentId, TopicPartition};
use streamhouse_metadata::*;

impl Tables {
    /// A commit is on its way.
    pub(super) fn begin_commit(&mut self, flush: &Flush) {
        *self.committing.entry(flush.segment).or_default() += 1;
        if self.has(Bug::ShowsUncommitted) {
            for range in &flush.ranges {
                if let Some(row) = self.partitions.get_mut(&range.partition) {
                    row.uncommitted = Some(committed(flush, range, 0));
                }
            }
        }
    }

    /// A commit is over, one way or the other.
    pub(super) fn end_commit(&mut self, flush: &Flush) {
        if let Some(count) = self.committing.get_mut(&flush.segment) {
            *count -= 1;
            if *count == 0 {
                self.committing.remove(&flush.segment);
            }
        }
        for range in &flush.ranges {
            if let Some(row) = self.partitions.get_mut(&range.partition) {
                row.uncommitted = None;
            }
        }
    }

    pub(super) fn is_committing(&self, segment: SegmentId) -> bool {
        self.committing.contains_key(&segment)
    }

    pub(super) fn commit(&mut self, flush: &Flush, now_ms: u64) -> Vec<RangeOutcome> {
        if let Some(outcomes) = self.outcome(flush) {
            return outcomes;
        }
        let expired_too = self.has(Bug::CommitsUnderExpiredLease);
        let gap = u64::from(self.has(Bug::SkipsOffset));
        let mut outcomes = Vec::with_capacity(flush.ranges.len());
        for range in &flush.ranges {
            let row = self.partitions.get_mut(&range.partition).filter(|row| {
                let holder = row.lease.as_ref().filter(|lease| lease.expires_ms > now_ms || expired_too);
                holder.is_some_and(|lease| lease.agent == flush.agent)
                    && row.epoch == range.epoch
                    && row.high_watermark == range.base_offset
            });
            let Some(row) = row else {
                outcomes.push(RangeOutcome::Fenced);
                continue;
            };
            row.high_watermark = range.base_offset + range.records + gap;
            row.ranges.push(committed(flush, range, now_ms));
            for producer in &range.producers {
                row.producers.insert((producer.producer_id, producer.epoch), producer.batches.clone());
            }
            outcomes.push(RangeOutcome::Committed);
        }
        let has_range = outcomes.contains(&RangeOutcome::Committed);
        let dead_since_ms = (!has_range).then_some(now_ms);
        self.segments.insert(flush.segment, SegmentRow { object: flush.object.clone(), dead_since_ms });
        outcomes
    }

    pub(super) fn outcome(&self, flush: &Flush) -> Option<Vec<RangeOutcome>> {
        self.segments.get(&flush.segment)?;
        let outcome = |range: &FlushRange| {
            let ranges = self.partitions.get(&range.partition).map(|row| &row.ranges);
            let stands = ranges.into_iter().flatten().any(|committed| {
                committed.segment == flush.segment && committed.base_offset == range.base_offset
            });
            if stands { RangeOutcome::Committed } else { RangeOutcome::Fenced }
        };
        Some(flush.ranges.iter().map(outcome).collect())
    }

    pub(super) fn committed_segments(&self, segments: &[SegmentId]) -> Vec<SegmentId> {
        if self.has(Bug::ForgetsCommittedSegments) {
            return Vec::new();
        }
        segments.iter().copied().filter(|segment| self.segments.contains_key(segment)).collect()
    }

    pub(super) fn ranges(&self, at: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>> {
        let row = self.row(at)?;
        let shown = row.ranges.iter().chain(&row.uncommitted);
        Ok(shown.filter(|range| range.end_offset > offset).take(max as usize).cloned().collect())
    }

    /// Only by age: what goes by size goes the same way.
    pub(super) fn apply_retention(&mut self, now_ms: u64) -> Vec<(TopicPartition, u64)> {
        let mut moved = Vec::new();
        for (at, row) in &mut self.partitions {
            let Some(age) = self.topics.get(&at.topic).and_then(|topic| topic.retention.age) else {
                continue;
            };
            let log_start = row.log_start;
            row.drop_older(now_ms.saturating_sub(age.as_millis() as u64));
            if row.log_start != log_start {
                moved.push((at.clone(), row.log_start));
            }
        }
        let live: Vec<_> =
            self.partitions.values().flat_map(|row| &row.ranges).map(|range| range.segment).collect();
        for (segment, row) in &mut self.segments {
            if !live.contains(segment) {
                row.dead_since_ms.get_or_insert(now_ms);
            }
        }
        moved
    }

    pub(super) fn dead_segments(&self, grace: Duration, max: u32, now_ms: u64) -> Vec<DeadSegment> {
        let over = now_ms.saturating_sub(grace.as_millis() as u64);
        let mut dead: Vec<_> = self
            .segments
            .iter()
            .filter_map(|(segment, row)| Some((row.dead_since_ms?, self.numbers.get(segment), segment, row)))
            .filter(|(since_ms, ..)| *since_ms <= over)
            .collect();
        dead.sort_by_key(|(since_ms, number, ..)| (*since_ms, *number));
        dead.into_iter()
            .take(max as usize)
            .map(|(_, _, segment, row)| DeadSegment { segment: *segment, object: row.object.clone() })
            .collect()
    }

    pub(super) fn forget_segments(&mut self, segments: &[SegmentId]) {
        for segment in segments {
            if self.segments.get(segment).is_some_and(|row| row.dead_since_ms.is_some()) {
                self.segments.remove(segment);
            }
        }
    }
}

impl PartitionRow {
    fn drop_older(&mut self, than_ms: u64) {
        let old = self.ranges.iter().take_while(|range| (range.committed_ms as u64) < than_ms).count();
        if let Some(last) = self.ranges.drain(..old).next_back() {
            self.log_start = last.end_offset;
        }
    }
}

fn committed(flush: &Flush, range: &FlushRange, now_ms: u64) -> SegmentRange {
    SegmentRange {
        segment: flush.segment,
        object: flush.object.clone(),
        base_offset: range.base_offset,
        end_offset: range.base_offset + range.records,
        position: range.position,
        bytes: range.bytes,
        index_position: range.index_position,
        index_bytes: range.index_bytes,
        committed_ms: now_ms as i64,
    }
}
