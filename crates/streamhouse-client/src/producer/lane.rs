//! One partition's way from `send()` to the agent.
//!
//! ```text
//!   send() ──► open ──sealed by size, records, linger──► sealed ──at most 5, one request at a time──► in flight ──► ended
//!                                                          ▲                                            │
//!                                                          └───────────── again, same bytes ────────────┘
//! ```
//!
//! Order: a batch leaves only with or after every batch before it, and the next request of a lane goes out when the one
//! before was answered, so two requests never race. Sequence numbers are given when a batch is first sent.
//!
//! When a batch that was sent fails for good, the agent still waits for its sequence. Every later batch that carries a
//! sequence too is then given up with it (whether it was stored may be unknown, and sending it again under another
//! number could store it twice), and the lane goes on in the next epoch of its producer id from sequence 0: once the agent
//! has seen that, it refuses what may still be on its way from the epoch before, which would be stored out of order.

use crate::error::{ClientError, Result};
use crate::lock;
use crate::producer::batch::{Draft, FailedBatch, NewRecord, OpenBatch, SealedBatch};
use crate::producer::builder::Config;
use crate::producer::delivery::{Delivery, Promise};
use crate::producer::partitioner::Sticky;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use streamhouse_core::{
    Clock, ErrorKind, TopicPartition,
    batch::{BatchError, ProducerStamp},
    limits::{BATCH_BYTES_MAX, IDEMPOTENCE_WINDOW, RECORD_BYTES_MAX},
};
use streamhouse_hooks::{Gauge, GaugeId, Instance, Scope, TraceContext};

/// A partition's batches, its identity for hooks, and its place in the sequence.
pub(crate) struct Lane {
    pub(crate) partition: TopicPartition,
    pub(crate) scope: Scope,
    sticky: Arc<Sticky>,
    state: Mutex<State>,
}

struct State {
    open: Option<OpenBatch>,
    /// In order; the first `in_flight` of them are in a request.
    sealed: VecDeque<SealedBatch>,
    in_flight: usize,
    /// What sealed batches have promised and not kept: also of those that were settled and have left `sealed`.
    unkept: VecDeque<Arc<Promise>>,
    /// Whether the dispatcher has the lane on its list.
    listed: bool,
    /// Records neither acknowledged nor failed.
    pending: u64,
    pending_gauge: Gauge,
    /// Bytes and records of the last sealed batch: what the next makes room for.
    last_size: (usize, usize),
    /// Producer id, epoch and next sequence; `None` when the epochs are used up, until a new id has come.
    stamp: Option<ProducerStamp>,
    /// Waits for the dispatcher to find a holder or a producer id.
    asking: bool,
    attempt: u32,
    not_before_ns: u64,
    /// Why the last attempt did not work.
    cause: Arc<str>,
}

/// A record that was added.
pub(crate) struct Pushed {
    pub(crate) delivery: Delivery,
    /// Whether a batch was sealed on the way.
    pub(crate) sealed: bool,
    pub(crate) wake: Wake,
}

/// What a push means for the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Nothing: it knows the lane and will come by.
    No,
    /// Look at once: a batch was sealed.
    Now,
    /// Put the lane on the list.
    Enlist,
}

/// What the dispatcher is to do with a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is left; the lane is off the list.
    Idle,
    /// Nothing before this time, unless something is answered before.
    Wait { until_ns: u64 },
    /// Find a new producer id.
    AskId { deadline_ns: u64 },
    /// Send it to the partition's holder.
    Send { deadline_ns: u64 },
    /// A request is out.
    InFlight,
}

/// A batch that goes into a request.
pub(crate) struct Outgoing {
    pub(crate) bytes: Bytes,
    pub(crate) record_bytes: u64,
    pub(crate) trace: TraceContext,
}

/// An agent's word on a batch.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Stored and committed; offset of the first record.
    Stored(u64),
    /// Not now, or no answer at all.
    Again(Arc<str>),
    /// Not by this agent: another holds the partition, or soon will.
    Moved(Arc<str>),
    /// Never.
    Refused(ErrorKind, Arc<str>),
}

/// What an answered request has ended.
#[derive(Default)]
pub(crate) struct Settled {
    pub(crate) stored: Vec<(SealedBatch, u64)>,
    pub(crate) failed: Vec<FailedBatch>,
    /// When batches are to be sent again: ask who holds the partition, then [`Lane::pause`].
    pub(crate) again: Option<Again>,
}

/// Why batches are to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    /// Failures in a row.
    pub(crate) attempt: u32,
    /// Whether the agent said that it does not hold the partition.
    pub(crate) moved: bool,
}

impl Lane {
    pub(crate) fn new(
        partition: TopicPartition,
        sticky: Arc<Sticky>,
        producer_id: u64,
        instance: &Instance,
    ) -> Arc<Lane> {
        let (topic, number) = (partition.topic.as_str(), Some(partition.partition));
        let state = State {
            open: None,
            sealed: VecDeque::new(),
            in_flight: 0,
            unkept: VecDeque::new(),
            listed: false,
            pending: 0,
            pending_gauge: instance.gauge(GaugeId::ProducerPendingRecords, topic, number),
            last_size: (0, 0),
            stamp: Some(first_stamp(producer_id)),
            asking: false,
            attempt: 0,
            not_before_ns: 0,
            cause: "no agent has answered yet".into(),
        };
        let scope = instance.scope(topic, number);
        Arc::new(Lane { partition, scope, sticky, state: Mutex::new(state) })
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// When the record fits no batch; nothing has changed then.
    pub(crate) fn push(
        &self,
        record: &NewRecord<'_>,
        (sent_ns, cost_bytes): (u64, usize),
        config: &Config,
        clock: &dyn Clock,
    ) -> Result<Pushed> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let mut sealed = false;
        // A window that is full has to be answered first: what a longer batch collects meanwhile goes out with the next.
        let backlog = state.sealed.len() >= IDEMPOTENCE_WINDOW;
        let batch_bytes = if backlog { BATCH_BYTES_MAX } else { config.batch_bytes };
        if state.open.as_ref().is_some_and(|open| !open.fits(record, batch_bytes)) {
            sealed = self.seal_open(state);
        }
        let mut open = state.open.take().unwrap_or_else(|| {
            OpenBatch::new(self.partition.clone(), config.compression, state.last_size, clock)
        });
        let pushed = open.push(record, sent_ns, cost_bytes);
        let full = open.records() >= config.batch_records || open.encoded_bytes() >= batch_bytes;
        if open.records() > 0 {
            state.open = Some(open);
        }
        let delivery = pushed?;
        state.pending += 1;
        state.pending_gauge.set(state.pending, sent_ns);
        if full {
            sealed = self.seal_open(state);
        }
        let wake = match (std::mem::replace(&mut state.listed, true), sealed && state.in_flight == 0) {
            (false, _) => Wake::Enlist,
            (true, true) => Wake::Now,
            (true, false) => Wake::No,
        };
        Ok(Pushed { delivery, sealed, wake })
    }

    /// Seals what is open and gives one delivery for every batch that has not ended.
    pub(crate) fn seal(&self) -> Vec<Delivery> {
        let mut state = lock(&self.state);
        self.seal_open(&mut state);
        state.unkept.iter().map(|promise| promise.delivery(0, 0)).collect()
    }

    fn seal_open(&self, state: &mut State) -> bool {
        let Some(open) = state.open.take() else { return false };
        // One that grew behind a full window says nothing about the next.
        if state.sealed.len() < IDEMPOTENCE_WINDOW {
            state.last_size = (open.encoded_bytes(), open.records());
        }
        let sealed = open.seal();
        state.unkept.push_back(Arc::clone(&sealed.promise));
        state.sealed.push_back(sealed);
        self.sticky.leave(self.partition.partition);
        true
    }

    /// What to do with the lane now. Fails what is over its time. `hurry`: do not wait for linger.
    pub(crate) fn step(&self, now_ns: u64, hurry: bool, config: &Config) -> (Step, Vec<FailedBatch>) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.in_flight > 0 {
            return (Step::InFlight, Vec::new());
        }
        let failed = state.expire(now_ns, &self.partition, config);
        let linger_ns = config.linger.as_nanos() as u64;
        let lingered = |open: &OpenBatch| hurry || now_ns >= open.opened_ns().saturating_add(linger_ns);
        if state.sealed.len() < IDEMPOTENCE_WINDOW && state.open.as_ref().is_some_and(lingered) {
            self.seal_open(state);
        }
        let Some(first) = state.sealed.front() else {
            let step = match &state.open {
                Some(open) => Step::Wait { until_ns: open.opened_ns().saturating_add(linger_ns) },
                None => {
                    state.listed = false;
                    Step::Idle
                }
            };
            return (step, failed);
        };
        let deadline_ns = first.opened_ns().saturating_add(config.delivery_timeout.as_nanos() as u64);
        let step = if state.asking {
            Step::Wait { until_ns: deadline_ns }
        } else if state.not_before_ns > now_ns {
            Step::Wait { until_ns: state.not_before_ns.min(deadline_ns) }
        } else if first.stamp().is_none() && state.stamp.is_none() {
            Step::AskId { deadline_ns }
        } else {
            Step::Send { deadline_ns }
        };
        (step, failed)
    }

    /// Takes the next batches for a request with room for `room_bytes` and `batches_max`: none when not even the first
    /// fits.
    pub(crate) fn take(&self, room_bytes: usize, batches_max: usize) -> Vec<Outgoing> {
        let drafts = lock(&self.state).draft(room_bytes, batches_max);
        // Only the dispatcher touches the front of the queue, so it is the same after the lock was given up.
        let finished: Vec<_> = drafts
            .into_iter()
            .map(|(draft, record_bytes, trace)| Outgoing { bytes: draft.finish(), record_bytes, trace })
            .collect();
        let mut state = lock(&self.state);
        for (batch, outgoing) in state.sealed.iter_mut().zip(&finished) {
            batch.finished(outgoing.bytes.clone());
        }
        finished
    }

    /// When the first batch in flight is over its time.
    pub(crate) fn deadline_ns(&self, config: &Config) -> u64 {
        let state = lock(&self.state);
        let opened_ns = state.sealed.front().map_or(u64::MAX, SealedBatch::opened_ns);
        opened_ns.saturating_add(config.delivery_timeout.as_nanos() as u64)
    }

    /// Takes the answers to the batches in flight, in their order.
    pub(crate) fn settle(&self, answers: Vec<Answer>) -> Settled {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let in_flight = std::mem::take(&mut state.in_flight);
        let mut settled = Settled::default();
        let mut again = Vec::new();
        let mut moved = false;
        let mut broken = None;
        for (batch, answer) in state.sealed.drain(..in_flight).zip(answers) {
            match answer {
                Answer::Stored(offset) => settled.stored.push((batch, offset)),
                Answer::Again(cause) => {
                    state.cause = cause;
                    again.push(batch);
                }
                Answer::Moved(cause) => {
                    moved = true;
                    state.cause = cause;
                    again.push(batch);
                }
                Answer::Refused(kind, message) => {
                    broken = Some(Arc::clone(&message));
                    let partition = self.partition.clone();
                    settled.failed.push((batch, ClientError::Refused { partition, kind, message }));
                }
            }
        }
        state.attempt = if again.is_empty() { 0 } else { state.attempt.saturating_add(1) };
        for batch in again.into_iter().rev() {
            state.sealed.push_front(batch);
        }
        if let Some(cause) = broken {
            state.give_up_stamped(&cause, &self.partition, &mut settled.failed);
        }
        settled.again = (state.attempt > 0).then_some(Again { attempt: state.attempt, moved });
        settled
    }

    /// Lets the lane wait for the dispatcher to find something out, until [`answered`](Self::answered).
    pub(crate) fn ask(&self) {
        lock(&self.state).asking = true;
    }

    /// Ends the wait; on failure says why. Gives the number of failures in a row.
    pub(crate) fn answered(&self, failure: Option<Arc<str>>) -> u32 {
        let mut state = lock(&self.state);
        state.asking = false;
        if let Some(cause) = failure {
            state.attempt = state.attempt.saturating_add(1);
            state.cause = cause;
        }
        state.attempt
    }

    /// What is asked for was not found, for this reason; the wait goes on.
    pub(crate) fn still_asking(&self, cause: &Arc<str>) {
        lock(&self.state).cause = Arc::clone(cause);
    }

    /// Fails every sealed batch: what the lane waits for will not come, and whoever sends more is told the same.
    pub(crate) fn refuse(&self, kind: ErrorKind, message: &Arc<str>) -> Vec<FailedBatch> {
        let mut state = lock(&self.state);
        state.asking = false;
        if state.in_flight > 0 {
            return Vec::new();
        }
        let any_stamped = state.sealed.iter().any(|batch| batch.stamp().is_some());
        let refused = |batch| {
            let (partition, message) = (self.partition.clone(), Arc::clone(message));
            (batch, ClientError::NotSent { partition, kind, message })
        };
        let failed = state.sealed.drain(..).map(refused).collect();
        if any_stamped {
            state.stamp = state.stamp.and_then(next_epoch);
        }
        state.attempt = 0;
        failed
    }

    /// Goes on under a new producer id.
    pub(crate) fn set_producer_id(&self, producer_id: u64) {
        lock(&self.state).stamp = Some(first_stamp(producer_id));
    }

    /// Sends nothing before this time.
    pub(crate) fn pause(&self, until_ns: u64) {
        lock(&self.state).not_before_ns = until_ns;
    }

    /// Counts records as ended.
    pub(crate) fn ended(&self, records: usize, now_ns: u64) {
        let mut state = lock(&self.state);
        state.pending = state.pending.saturating_sub(records as u64);
        state.pending_gauge.set(state.pending, now_ns);
    }

    /// A batch has ended and its deliveries know it: nobody needs to wait for it any more.
    pub(crate) fn kept(&self, promise: &Arc<Promise>) {
        let mut state = lock(&self.state);
        // Almost always the first.
        if let Some(index) = state.unkept.iter().position(|unkept| Arc::ptr_eq(unkept, promise)) {
            state.unkept.remove(index);
        }
    }

    /// Records neither acknowledged nor failed.
    pub(crate) fn pending(&self) -> u64 {
        lock(&self.state).pending
    }

    /// Takes everything out, in flight or not: for a dispatcher that ends.
    pub(crate) fn abandon(&self) -> Vec<SealedBatch> {
        let mut state = lock(&self.state);
        self.seal_open(&mut state);
        state.in_flight = 0;
        state.sealed.drain(..).collect()
    }
}

impl State {
    /// Fails the batches that are over their time; nothing is in flight.
    fn expire(&mut self, now_ns: u64, partition: &TopicPartition, config: &Config) -> Vec<FailedBatch> {
        let timeout_ns = config.delivery_timeout.as_nanos() as u64;
        let mut failed = Vec::new();
        while let Some(first) = self.sealed.front()
            && now_ns >= first.opened_ns().saturating_add(timeout_ns)
        {
            let stamped = first.stamp().is_some();
            let Some(batch) = self.sealed.pop_front() else { break };
            let error = ClientError::DeliveryTimeout {
                partition: partition.clone(),
                waited: config.delivery_timeout,
                cause: Arc::clone(&self.cause),
            };
            failed.push((batch, error));
            if stamped {
                self.give_up_stamped(&Arc::clone(&self.cause), partition, &mut failed);
            }
        }
        failed
    }

    /// After a sent batch has failed for good: fails the others that carry a sequence, and begins a new epoch.
    fn give_up_stamped(
        &mut self,
        cause: &Arc<str>,
        partition: &TopicPartition,
        failed: &mut Vec<FailedBatch>,
    ) {
        let stamped = self.sealed.iter().take_while(|batch| batch.stamp().is_some()).count();
        let given_up = self.sealed.drain(..stamped).map(|batch| {
            let error = ClientError::Abandoned { partition: partition.clone(), cause: Arc::clone(cause) };
            (batch, error)
        });
        failed.extend(given_up);
        self.stamp = self.stamp.and_then(next_epoch);
        self.attempt = 0;
    }

    /// Chooses what goes into a request, gives it its sequence and counts it as in flight.
    fn draft(&mut self, room_bytes: usize, batches_max: usize) -> Vec<(Draft, u64, TraceContext)> {
        let mut drafts = Vec::new();
        let mut room = room_bytes;
        // The agent keeps order by sequence, that is within one epoch: a request has batches of one only.
        let Some(first) = self.sealed.front().and_then(|first| first.stamp().or(self.stamp)) else {
            return drafts;
        };
        let is_same =
            |stamp: &ProducerStamp| (stamp.producer_id, stamp.epoch) == (first.producer_id, first.epoch);
        for batch in self.sealed.iter_mut().take(IDEMPOTENCE_WINDOW.min(batches_max)) {
            let size = batch.wire_bytes_max();
            if size > room {
                break;
            }
            let stamp = match (batch.stamp(), &mut self.stamp) {
                (Some(stamp), _) if is_same(&stamp) => stamp,
                (None, Some(next)) if is_same(next) => {
                    let Some(end) = next.base_sequence.checked_add(batch.records() as i32) else {
                        // The numbers are used up: go on from 0 in the next epoch, once these are answered.
                        self.stamp = next_epoch(*next);
                        break;
                    };
                    let base_sequence = std::mem::replace(&mut next.base_sequence, end);
                    ProducerStamp { base_sequence, ..*next }
                }
                (Some(_) | None, _) => break,
            };
            room -= size;
            drafts.push((batch.draft(stamp), batch.record_bytes, batch.trace));
        }
        self.in_flight = drafts.len();
        drafts
    }
}

fn first_stamp(producer_id: u64) -> ProducerStamp {
    ProducerStamp { producer_id, epoch: 0, base_sequence: 0 }
}

fn next_epoch(stamp: ProducerStamp) -> Option<ProducerStamp> {
    stamp.epoch.checked_add(1).map(|epoch| ProducerStamp { epoch, base_sequence: 0, ..stamp })
}

/// The error of a record that fits no batch, before it waits for room it would never get.
pub(crate) fn check_size(record: &NewRecord<'_>, buffer_bytes: usize) -> Result<usize> {
    let cost = record.cost_bytes();
    if cost > RECORD_BYTES_MAX {
        let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.len() + headers;
        if bytes > RECORD_BYTES_MAX {
            return Err(BatchError::RecordTooLarge { bytes }.into());
        }
    }
    if cost > buffer_bytes {
        return Err(ClientError::Invalid(format!(
            "a record that takes {cost} bytes does not fit the producer's buffer of {buffer_bytes}; raise `buffer_bytes`"
        )));
    }
    Ok(cost)
}

#[cfg(test)]
mod tests;
