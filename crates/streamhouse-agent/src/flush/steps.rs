//! The two steps of a flush: store, commit.

use super::commit::{Commit, commit};
use super::flight::{Flight, FlightRange};
use super::{Flusher, LeaseEvent};
use crate::error::WriteError;
use futures::future::{BoxFuture, FutureExt};
use std::{future::pending, sync::Arc};
use streamhouse_core::{ErrorKind, SegmentId, limits::SEGMENT_BYTES_MAX};
use streamhouse_hooks::{Commit as Event, Started, TraceContext, commit as hook};
use streamhouse_metadata::RangeOutcome;
use streamhouse_storage::{Segment, SegmentBuilder};
use tokio::time::{Instant, timeout_at};

/// A flush in one of its steps.
pub(super) struct Step<T> {
    pub(super) flight: Flight,
    started: Started,
    done: BoxFuture<'static, T>,
}

/// The step's result, when there is a step.
pub(super) async fn done<T>(step: &mut Option<Step<T>>) -> T {
    match step {
        Some(step) => (&mut step.done).await,
        None => pending().await,
    }
}

impl Flusher {
    /// Begins a flush of what waits, unless one is being stored or waits for its commit.
    pub(super) fn start_store(&mut self) {
        if self.storing.is_some() || self.stored.is_some() {
            return;
        }
        let Some((segment, ranges)) = self.collect() else { return };
        let flush_time = self.tools.flush_time;
        let deadline = Instant::now() + flush_time;
        let (object, object_bytes) = (segment.object.clone(), segment.bytes);
        let trace = ranges.iter().find_map(|range| range.batches.trace()).map(|trace| trace.child());
        let flight = Flight { segment: segment.id, object, object_bytes, deadline, ranges, trace };
        let store = self.tools.segments.clone();
        let done = in_trace(trace, async move {
            match timeout_at(deadline, store.put(&segment)).await {
                Ok(stored) => stored.map_err(|error| WriteError::Store(Arc::new(error))),
                Err(_) => Err(WriteError::StoreTimeout(flush_time)),
            }
        });
        self.storing = Some(Step { flight, started: Started::UNTIMED, done });
    }

    /// The next segment: what waits, up to its limit, the partitions in turn.
    fn collect(&mut self) -> Option<(Segment, Vec<FlightRange>)> {
        let mut builder = SegmentBuilder::new();
        let mut taken = Vec::new();
        for _ in 0..self.ready.len() {
            let Some(partition) = self.ready.pop_front() else { break };
            let Some(writer) = self.writers.get_mut(&partition) else { continue };
            let room = SEGMENT_BYTES_MAX.saturating_sub(builder.bytes() as usize);
            let (contents, batches) = writer.take(room);
            if writer.queue() {
                self.ready.push_back(partition.clone());
            }
            if batches.is_empty() {
                continue;
            }
            match builder.add(partition, batches.base_offset, contents) {
                Ok(()) => taken.push(batches),
                Err(error) => {
                    let error = WriteError::Store(Arc::new(error));
                    writer.fail_from(batches.base_offset, &error);
                    batches.fail(&error);
                }
            }
        }
        if taken.is_empty() {
            return None;
        }
        let segment = builder.finish(new_segment_id());
        let ranges = taken.into_iter().zip(segment.ranges.iter().cloned());
        let ranges = ranges.map(|(batches, layout)| FlightRange { batches, layout }).collect();
        Some((segment, ranges))
    }

    /// The segment was stored, or surely will not be committed.
    pub(super) fn was_stored(&mut self, result: Result<(), WriteError>) {
        let Some(Step { flight, .. }) = self.storing.take() else { return };
        let _trace = flight.enter();
        match result {
            Ok(()) => self.stored = Some(flight),
            Err(error) => {
                self.tell_failure(&flight, &error);
                // After a timeout the object may still come to be.
                self.discard(&flight);
                self.roll_back(flight.ranges, &error);
            }
        }
    }

    /// Begins to commit the flush that is stored, unless the one before it is being committed.
    pub(super) fn start_commit(&mut self) {
        if self.committing.is_some() {
            return;
        }
        let Some(flight) = self.stored.take() else { return };
        if flight.ranges.is_empty() {
            return self.discard(&flight);
        }
        if flight.deadline <= Instant::now() {
            self.discard(&flight);
            return self.roll_back(flight.ranges, &WriteError::TooLate(self.tools.flush_time));
        }
        let flush = flight.flush(&self.tools.agent, &self.writers);
        let (store, deadline) = (Arc::clone(&self.tools.metadata), flight.deadline);
        let started = hook::start();
        let done = in_trace(flight.trace, async move { commit(&*store, &flush, deadline).await });
        self.committing = Some(Step { flight, started, done });
    }

    /// The commit's outcome is there, or was not to be had.
    pub(super) fn committed(&mut self, commit: Commit) {
        let Some(Step { flight, started, .. }) = self.committing.take() else { return };
        let _trace = flight.enter();
        let (records, bytes) = flight.totals();
        let status = status(&commit);
        hook::commit(&self.scope, Event { records, bytes, started, status });
        match commit {
            Commit::Done(outcomes) => self.settle(flight, &outcomes),
            Commit::Refused(error) => {
                let error = WriteError::Commit(error);
                self.tell_failure(&flight, &error);
                self.discard(&flight);
                self.roll_back(flight.ranges, &error);
            }
            Commit::Unknown => self.abandon(flight),
        }
    }

    /// Says that a flush failed: aloud for the first of a row, since a full disk fails many a second.
    fn tell_failure(&mut self, flight: &Flight, error: &WriteError) {
        let segment = &flight.segment;
        self.tools.readiness.failed(error);
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(%segment, %error, "a flush failed");
        } else {
            tracing::warn!(%segment, %error, "a flush failed; those that follow are told at level DEBUG until one succeeds");
        }
    }

    fn settle(&mut self, flight: Flight, outcomes: &[RangeOutcome]) {
        self.tools.readiness.succeeded();
        if std::mem::take(&mut self.failing) {
            tracing::info!("flushes succeed again");
        }
        if outcomes.iter().all(|outcome| *outcome == RangeOutcome::Fenced) {
            self.discard(&flight);
        }
        let mut fenced = Vec::new();
        for (range, outcome) in flight.ranges.into_iter().zip(outcomes) {
            let writer = self.writers.get_mut(&range.layout.partition);
            let writer = writer.filter(|writer| writer.id == range.batches.writer);
            match outcome {
                RangeOutcome::Committed => {
                    if let Some(writer) = writer {
                        writer.committed(&range.batches);
                    }
                    range.batches.acknowledge();
                }
                RangeOutcome::Fenced => {
                    let partition = range.layout.partition;
                    tracing::warn!(%partition, epoch = range.batches.epoch, "a commit was fenced: the lease is lost");
                    // Nobody listens when the agent shuts down.
                    let _ = self.leases.send(LeaseEvent::Fenced(partition.clone(), range.batches.epoch));
                    range.batches.fail(&WriteError::LeaseLost(partition.clone()));
                    fenced.extend(writer.map(|_| partition));
                }
            }
        }
        self.close(fenced, |partition| WriteError::LeaseLost(partition.clone()));
    }

    /// The flush may have been committed or not: no partition's next offset is certain.
    fn abandon(&mut self, flight: Flight) {
        let error = WriteError::Abandoned(self.tools.flush_time);
        tracing::error!(segment = %flight.segment, %error, "a flush was given up; taking every lease anew");
        self.tools.readiness.failed(&error);
        flight.ranges.into_iter().for_each(|range| range.batches.fail(&error));
        self.close(self.partitions(), |_| error.clone());
        let _ = self.leases.send(LeaseEvent::Reset);
    }

    /// Removes an object that surely is not and will not be committed. What is left of it costs only space (invariant 5).
    fn discard(&self, flight: &Flight) {
        let (store, object) = (self.tools.segments.clone(), flight.object.clone());
        let in_outage = self.failing;
        let discarded = async move {
            match store.delete(&object).await {
                Ok(()) => {}
                // Most often it never came to be, and what is wrong was told.
                Err(error) if in_outage => tracing::debug!(%error, "an object could not be removed"),
                Err(error) => tracing::warn!(%error, "an object that was not committed could not be removed"),
            }
        };
        tokio::spawn(in_trace(flight.trace, discarded));
    }
}

/// A step that belongs to a trace, if there is one.
fn in_trace<T>(
    trace: Option<TraceContext>,
    step: impl Future<Output = T> + Send + 'static,
) -> BoxFuture<'static, T> {
    match trace {
        Some(trace) => trace.of(step).boxed(),
        None => step.boxed(),
    }
}

fn status(commit: &Commit) -> u8 {
    match commit {
        Commit::Done(outcomes) if outcomes.contains(&RangeOutcome::Committed) => 0,
        Commit::Done(_) => ErrorKind::Fenced.number(),
        Commit::Refused(error) => error.kind().number(),
        Commit::Unknown => ErrorKind::Retry.number(),
    }
}

/// An id that no segment has: 128 random bits.
pub(crate) fn new_segment_id() -> SegmentId {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .expect("16 bytes from the kernel's generator: it neither fails nor gives fewer, once it is seeded");
    SegmentId(u128::from_ne_bytes(bytes))
}
