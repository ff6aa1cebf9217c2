//! Where a consumer is in one partition, and how it reads on from there.

use crate::consumer::{ConsumedRecord, OffsetReset, told::Told};
use crate::error::{ClientError, Result};
use std::collections::VecDeque;
use std::{sync::Arc, time::Duration};
use streamhouse_core::{Clock, ErrorKind, Record, SystemClock, TopicPartition};
use streamhouse_hooks::{Instance, Poll, Scope, Started, poll};
use streamhouse_metadata::{ClientStore, GroupOffset, SegmentRange, Watermarks};
use streamhouse_storage::{PartitionReader, RangeLocation, SegmentStore, StorageError};
use tokio::time::Instant;

/// Ranges that are asked of metadata at one time.
const RANGES_AHEAD: u32 = 64;

/// What all cursors of a consumer have in common.
pub(crate) struct Source {
    pub(crate) instance: Instance,
    pub(crate) segments: SegmentStore,
    pub(crate) reset: OffsetReset,
}

/// A partition that is read.
pub(crate) struct Cursor {
    pub(crate) partition: TopicPartition,
    /// Of the claim under which it is read; 0 without membership.
    pub(crate) generation: u64,
    /// One past the last record that a poll has returned.
    pub(crate) position: u64,
    /// What the group has committed, as far as this consumer knows.
    pub(crate) committed: Option<u64>,
    /// The position at first.
    start: u64,
    /// Since when it belongs to another member, and is to be handed over.
    leaving: Option<Leaving>,
    /// One past the last record that was read; ahead of `position` only while a poll is under way.
    fetched: u64,
    /// As far as metadata was last seen to go.
    high_watermark: u64,
    ranges: VecDeque<SegmentRange>,
    reader: PartitionReader,
    reset: OffsetReset,
    segments: SegmentStore,
    /// Where the ranges were listed again because an object was gone.
    relisted: Option<u64>,
    scope: Arc<Scope>,
    told: Arc<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    since: Instant,
    /// Whether a poll has returned because of it.
    told: bool,
}

/// How much a poll may still take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Cursor {
    /// Starts where the group stands, or where the reset policy says when it stands nowhere that can be read.
    pub(crate) fn new(source: &Source, start: &GroupOffset, generation: u64) -> Self {
        let Source { instance, segments, reset } = source;
        let GroupOffset { partition, watermarks, .. } = start;
        let (topic, number) = (partition.topic.as_str(), Some(partition.partition));
        let mut cursor = Cursor {
            partition: partition.clone(),
            generation,
            position: 0,
            committed: start.committed,
            start: 0,
            leaving: None,
            fetched: 0,
            high_watermark: watermarks.high_watermark,
            ranges: VecDeque::new(),
            reader: PartitionReader::new(segments.clone(), partition.clone()),
            reset: *reset,
            segments: segments.clone(),
            relisted: None,
            scope: Arc::new(instance.scope(topic, number)),
            told: Arc::new(Told::new(instance, partition)),
        };
        cursor.fetched = start.committed.unwrap_or_else(|| reset.offset(*watermarks));
        cursor.keep_within(*watermarks);
        cursor.position = cursor.fetched;
        cursor.start = cursor.fetched;
        cursor.progress(start, SystemClock.monotonic_ns());
        cursor
    }

    /// What it tells of the partition.
    pub(crate) fn told(&self) -> &Arc<Told> {
        &self.told
    }

    /// Whether records are known to be there, and to be read here.
    pub(crate) fn has_more(&self) -> bool {
        self.fetched < self.high_watermark && self.leaving.is_none()
    }

    /// Whether a consumer that started now would not start at the position.
    pub(crate) fn is_uncommitted(&self) -> bool {
        let moved = self.position != self.start;
        let unsettled = self.committed.is_none() && self.reset == OffsetReset::Latest;
        self.committed != Some(self.position) && (moved || unsettled)
    }

    /// Is to be handed over: nothing more is read. What was read and not returned is read again by whoever comes next.
    pub(crate) fn leave(&mut self) {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving { since: Instant::now(), told: false });
            self.ranges.clear();
            self.fetched = self.position;
        }
    }

    /// Is not to be handed over any more.
    pub(crate) fn stay(&mut self) {
        self.leaving = None;
    }

    /// Whether it is to be handed over.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether it is to be handed over and nothing keeps it: all is committed, or it was waited for long enough.
    pub(crate) fn may_go(&self, wait: Duration) -> bool {
        self.leaving.is_some_and(|leaving| !self.is_uncommitted() || leaving.since.elapsed() >= wait)
    }

    /// Whether a commit has come to be awaited since this was asked last.
    pub(crate) fn asks_for_commit(&mut self) -> bool {
        let uncommitted = self.is_uncommitted();
        self.leaving
            .as_mut()
            .is_some_and(|leaving| uncommitted && !std::mem::replace(&mut leaving.told, true))
    }

    /// Reads from `offset` on.
    pub(crate) fn seek(&mut self, offset: u64, watermarks: Watermarks) {
        self.ranges.clear();
        self.high_watermark = watermarks.high_watermark;
        self.fetched = offset;
        self.position = offset;
    }

    /// Takes news of how far the partition goes.
    pub(crate) fn watermarks(&mut self, watermarks: Watermarks) {
        self.high_watermark = watermarks.high_watermark;
        self.keep_within(watermarks);
    }

    /// What was read has been returned.
    pub(crate) fn hand_over(&mut self, now_ns: u64) {
        if self.position != self.fetched {
            self.position = self.fetched;
            self.told.position(self.position, now_ns);
        }
    }

    /// Takes news of how far the group is.
    pub(crate) fn progress(&mut self, offset: &GroupOffset, now_ns: u64) {
        self.committed = offset.committed;
        self.told.progress(offset, self.position, now_ns);
    }

    /// Applies the reset policy when the position can no longer be read.
    fn keep_within(&mut self, watermarks: Watermarks) {
        let Watermarks { log_start, high_watermark } = watermarks;
        if (log_start..=high_watermark).contains(&self.fetched) {
            return;
        }
        let offset = self.reset.offset(watermarks);
        tracing::warn!(
            partition = %self.partition, position = self.fetched, log_start, high_watermark, offset,
            "the position is outside of what can be read; reading goes on at `offset`"
        );
        self.ranges.clear();
        self.fetched = offset;
    }

    /// Appends records to `out`: at most what `share` says, at least one unless there is none. Cancel safe: what was
    /// appended stays read.
    ///
    /// # Errors
    ///
    /// When ranges cannot be listed or read. What was appended before stands, and the next call meets the error again.
    pub(crate) async fn read(
        &mut self,
        store: &dyn ClientStore,
        share: Share,
        out: &mut Vec<ConsumedRecord>,
    ) -> Result<Share> {
        let mut visit = Visit::new(Arc::clone(&self.scope));
        while let Some(room) = visit.room(share)
            && self.has_more()
        {
            let read = match self.open(store).await {
                Ok(true) => self.read_open(room, &mut visit, out).await,
                Ok(false) => break,
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                visit.status = error.kind().number();
                return Err(error);
            }
        }
        Ok(visit.taken)
    }

    /// Reads from the open range.
    async fn read_open(
        &mut self,
        room: Share,
        visit: &mut Visit,
        out: &mut Vec<ConsumedRecord>,
    ) -> Result<()> {
        let TopicPartition { topic, partition } = &self.partition;
        let fetched = &mut self.fetched;
        let read = self.reader.read(room.records, room.bytes, |offset, record| {
            let Record { timestamp_ms, key, value, headers } = record;
            *fetched = offset + 1;
            out.push(ConsumedRecord {
                topic: topic.clone(),
                partition: *partition,
                offset,
                timestamp_ms,
                key,
                value,
                headers,
            });
        });
        match read.await {
            Ok(taken) => {
                visit.taken.records += taken.records as usize;
                visit.taken.bytes += taken.bytes as usize;
                Ok(())
            }
            // Retention has removed the object since its range was listed: the next list begins behind it.
            Err(StorageError::NotFound { .. }) if self.relisted != Some(self.fetched) => {
                self.ranges.clear();
                self.reader = PartitionReader::new(self.segments.clone(), self.partition.clone());
                self.relisted = Some(self.fetched);
                Ok(())
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Makes sure that the reader stands at the next record; `false` when metadata lists nothing from there on.
    async fn open(&mut self, store: &dyn ClientStore) -> Result<bool> {
        if !self.reader.is_at_end() && self.reader.offset() == Some(self.fetched) {
            return Ok(true);
        }
        loop {
            while self.ranges.front().is_some_and(|range| range.end_offset <= self.fetched) {
                self.ranges.pop_front();
            }
            if self.ranges.is_empty() {
                self.ranges = store.ranges(&self.partition, self.fetched, RANGES_AHEAD).await?.into();
            }
            let Some(range) = self.ranges.front() else {
                // The watermarks will say more when they are asked for next.
                self.high_watermark = self.fetched;
                return Ok(false);
            };
            if range.base_offset <= self.fetched {
                let opened = self.reader.open(location(range), self.fetched);
                return opened.map(|()| true).map_err(|source| self.failed(source));
            }
            // Retention has passed the position.
            let log_start = range.base_offset;
            self.keep_within(Watermarks { log_start, high_watermark: self.high_watermark });
            if !self.has_more() {
                return Ok(false);
            }
        }
    }

    fn failed(&self, source: StorageError) -> ClientError {
        let range = self.ranges.front();
        let next_offset = match &source {
            StorageError::Malformed { end_offset, .. } => Some(*end_offset),
            // Where damage ends is not known: a damaged batch may lie about its own end.
            source if source.kind() == ErrorKind::Corrupt => range.map(|range| range.end_offset),
            _ => None,
        };
        ClientError::Storage {
            partition: self.partition.clone(),
            offset: self.fetched,
            next_offset,
            object: range.map_or("", |range| range.object.as_str()).into(),
            source: Arc::new(source),
        }
    }
}

fn location(range: &SegmentRange) -> RangeLocation {
    RangeLocation {
        segment: range.segment,
        object: range.object.clone(),
        base_offset: range.base_offset,
        end_offset: range.end_offset,
        position: range.position,
        bytes: range.bytes,
        index_position: range.index_position,
        index_bytes: range.index_bytes,
    }
}

/// What one poll takes from one partition. Tells the hooks when it is over, also when it is cancelled.
struct Visit {
    scope: Arc<Scope>,
    started: Started,
    taken: Share,
    status: u8,
}

impl Visit {
    fn new(scope: Arc<Scope>) -> Self {
        Visit { scope, started: poll::start(), taken: Share { records: 0, bytes: 0 }, status: 0 }
    }

    /// What may still be taken, if anything.
    fn room(&self, share: Share) -> Option<Share> {
        let records = share.records.checked_sub(self.taken.records).filter(|records| *records > 0)?;
        let bytes = share.bytes.checked_sub(self.taken.bytes).filter(|bytes| *bytes > 0)?;
        Some(Share { records, bytes })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Visit { scope, started, taken, status } = self;
        if taken.records > 0 || *status != 0 {
            let (records, bytes) = (taken.records as u64, taken.bytes as u64);
            // What was returned counts as returned, whatever came behind it.
            let status = if records > 0 { 0 } else { *status };
            poll(scope, Poll { records, bytes, started: *started, status });
        }
    }
}
