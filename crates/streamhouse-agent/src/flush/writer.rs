//! A leased partition: where it stands, what waits for its next flush, and what is known of its producers.

use super::early::EarlyKey;
use super::placed::PlacedBatches;
use super::window::{ProducerEpoch, SequenceError, Verdict, Window};
use crate::append::{Batch, Waiter};
use crate::error::WriteError;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::{ops::Bound, sync::Arc};
use streamhouse_core::{batch::ProducerStamp, limits::IDEMPOTENCE_WINDOW};
use streamhouse_hooks::Scope;
use streamhouse_metadata::{Lease, ProducerState, SequencedBatch};
use tokio::time::Instant;

/// Producers that a partition's duplicate check remembers, at about 200 bytes each. Those that wrote last are kept; one
/// that is forgotten and comes back is told that batches are missing, and raises its epoch.
const PRODUCERS_MAX: usize = 1 << 16;

/// One lease's writer. A new grant makes a new writer.
pub(super) struct PartitionWriter {
    /// Never reused: tells this writer from the one of a later grant.
    pub(super) id: u64,
    epoch: u64,
    scope: Arc<Scope>,
    /// Offset of the next record that goes into a segment: the high watermark and what is in flight (invariant 2).
    next_offset: u64,
    windows: BTreeMap<ProducerEpoch, Window<Waiter>>,
    waiting: VecDeque<Batch>,
    /// Whether the flusher has it in its queue of partitions to flush.
    queued: bool,
    /// It is handed over: nothing new is taken, for this reason.
    leaving: Option<WriteError>,
    /// Batches that overtook another of their producer on the way, by producer, epoch and sequence.
    early: BTreeMap<EarlyKey, Early>,
}

struct Early {
    batch: Batch,
    since: Instant,
}

/// What became of a batch that was handed to its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It waits for the next flush.
    Waits,
    /// It is answered, or will be when the batch is that it repeats.
    Settled,
    /// It waits for the batches before it; [`PartitionWriter::expire`] gives it up.
    Early(EarlyKey),
}

impl PartitionWriter {
    pub(super) fn new(id: u64, lease: &Lease, scope: Scope) -> PartitionWriter {
        let windows = lease
            .producers
            .iter()
            .map(|producer| ((producer.producer_id, producer.epoch), Window::load(&producer.batches)));
        let mut windows: BTreeMap<_, _> = windows.collect();
        forget_oldest(&mut windows, PRODUCERS_MAX);
        PartitionWriter {
            id,
            epoch: lease.epoch,
            scope: Arc::new(scope),
            next_offset: lease.watermarks.high_watermark,
            windows,
            waiting: VecDeque::new(),
            queued: false,
            leaving: None,
            early: BTreeMap::new(),
        }
    }

    /// Lets a batch wait for the next flush, or settles it when it is a retry or out of its producer's sequence.
    pub(super) fn admit(&mut self, batch: Batch, now: Instant) -> Admitted {
        let Some(stamp) = batch.stamp else {
            return match self.leaving.clone() {
                Some(error) => self.refuse(batch, error),
                None => {
                    self.waiting.push_back(batch);
                    Admitted::Waits
                }
            };
        };
        let producer = producer_epoch(&stamp);
        if self.is_superseded(producer) {
            return self.refuse(batch, SequenceError::Superseded { epoch: stamp.epoch }.into());
        }
        let window = self.windows.entry(producer).or_default();
        match (window.check(stamp.base_sequence, batch.records), self.leaving.clone()) {
            (Ok(Verdict::Next | Verdict::Ahead), Some(error)) => self.refuse(batch, error),
            (Ok(Verdict::Next), None) => {
                window.push(stamp.base_sequence, batch.records);
                self.waiting.push_back(batch);
                self.admit_followers(producer);
                Admitted::Waits
            }
            (Ok(Verdict::Committed(offset)), _) => {
                batch.waiter.of_retry().resolve(&self.scope, Ok(offset));
                Admitted::Settled
            }
            (Ok(Verdict::Pending), _) => {
                window.attach(stamp.base_sequence, batch.waiter.of_retry());
                Admitted::Settled
            }
            (Ok(Verdict::Ahead), None) => self.hold(stamp, batch, now),
            (Err(error), _) => self.refuse(batch, error.into()),
        }
    }

    /// Whether a batch of a higher epoch of the producer waits or was stored.
    fn is_superseded(&self, (producer_id, epoch): ProducerEpoch) -> bool {
        let higher = (Bound::Excluded((producer_id, epoch)), Bound::Included((producer_id, i16::MAX)));
        self.windows.range(higher).any(|(_, window)| !window.is_empty())
    }

    /// Requests of one producer race each other through the agent, so a batch may arrive before its predecessor.
    fn hold(&mut self, stamp: ProducerStamp, batch: Batch, now: Instant) -> Admitted {
        let producer = producer_epoch(&stamp);
        let key = (producer, stamp.base_sequence);
        let held = self.early_of(producer).count();
        if held >= IDEMPOTENCE_WINDOW - 1 && !self.early.contains_key(&key) {
            return self.refuse(batch, SequenceError::WindowFull.into());
        }
        // A second copy takes the place of the first, whose requester has given up on it.
        if let Some(first) = self.early.insert(key, Early { batch, since: now }) {
            self.refuse_gap(first.batch);
        }
        Admitted::Early(key)
    }

    fn early_of(&self, producer: ProducerEpoch) -> impl Iterator<Item = &Early> {
        self.early.range((producer, 0)..=(producer, i32::MAX)).map(|(_, early)| early)
    }

    fn admit_followers(&mut self, producer: ProducerEpoch) {
        let Some(window) = self.windows.get_mut(&producer) else { return };
        while let Some(early) = self.early.remove(&(producer, window.next_sequence())) {
            let base_sequence = early.batch.stamp.map_or(0, |stamp| stamp.base_sequence);
            match window.check(base_sequence, early.batch.records) {
                Ok(_) => {
                    window.push(base_sequence, early.batch.records);
                    self.waiting.push_back(early.batch);
                }
                Err(error) => early.batch.waiter.resolve(&self.scope, Err(error.into())),
            }
        }
    }

    /// Gives up on an early batch that was held at `since` and still is.
    pub(super) fn expire(&mut self, key: EarlyKey, since: Instant) {
        if self.early.get(&key).is_some_and(|early| early.since == since)
            && let Some(early) = self.early.remove(&key)
        {
            self.refuse_gap(early.batch);
            self.forget_if_empty(key.0);
        }
    }

    fn refuse_gap(&self, batch: Batch) {
        let Some(stamp) = batch.stamp else { return };
        let expected = self.windows.get(&producer_epoch(&stamp)).map_or(0, Window::next_sequence);
        let gap = SequenceError::Gap { sequence: stamp.base_sequence, expected };
        batch.waiter.resolve(&self.scope, Err(gap.into()));
    }

    fn refuse(&mut self, batch: Batch, error: WriteError) -> Admitted {
        batch.waiter.resolve(&self.scope, Err(error));
        if let Some(stamp) = batch.stamp {
            self.forget_if_empty(producer_epoch(&stamp));
        }
        Admitted::Settled
    }

    fn forget_if_empty(&mut self, producer: ProducerEpoch) {
        if self.early_of(producer).next().is_none()
            && self.windows.get(&producer).is_some_and(Window::is_empty)
        {
            self.windows.remove(&producer);
        }
    }

    /// Takes nothing new from now on; retries of what was taken are answered as before.
    pub(super) fn leave(&mut self, error: &WriteError) {
        self.leaving = Some(error.clone());
        self.fail_early(error);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Of the lease that it writes under.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether batches wait and the flusher does not have the partition in its queue yet; from now on it does.
    pub(super) fn queue(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.queued, true)
    }

    /// Takes what waits, up to `bytes_max`, and gives it offsets: the bytes of each batch, and the batches.
    pub(super) fn take(&mut self, bytes_max: usize) -> (Vec<Bytes>, PlacedBatches) {
        self.queued = false;
        let mut placed = PlacedBatches::new(self.id, self.epoch, self.next_offset, Arc::clone(&self.scope));
        let (mut contents, mut taken) = (Vec::new(), 0);
        while let Some(batch) = self.waiting.pop_front_if(|batch| taken + batch.bytes.len() <= bytes_max) {
            let Batch { bytes, records, stamp, waiter } = batch;
            taken += bytes.len();
            contents.push(bytes);
            if let Some(stamp) = stamp
                && let Some(window) = self.windows.get_mut(&producer_epoch(&stamp))
            {
                window.place(stamp.base_sequence, self.next_offset);
            }
            placed.push(self.next_offset, records, stamp, waiter);
            self.next_offset += u64::from(records);
        }
        (contents, placed)
    }

    /// The state of the producers that wrote `batches`, to be stored with their commit.
    pub(super) fn producers_after(&self, batches: &PlacedBatches) -> Vec<ProducerState> {
        let state = |(producer, batches): (ProducerEpoch, Vec<SequencedBatch>)| {
            self.windows.get(&producer).map(|window| window.state_after(producer, &batches))
        };
        batches.by_producer().into_iter().filter_map(state).collect()
    }

    /// Batches are committed: remembers them and answers their retries.
    pub(super) fn committed(&mut self, batches: &PlacedBatches) {
        for (producer, batches) in batches.by_producer() {
            let Some(window) = self.windows.get_mut(&producer) else { continue };
            for batch in batches {
                for retry in window.commit(batch) {
                    retry.resolve(&self.scope, Ok(batch.base_offset));
                }
            }
        }
        forget_oldest(&mut self.windows, PRODUCERS_MAX);
    }

    /// Nothing from `base_offset` on was committed: the offset is next again, and all that waits fails too, for it
    /// comes after what failed. Batches in flight are the caller's to answer.
    pub(super) fn fail_from(&mut self, base_offset: u64, error: &WriteError) {
        self.next_offset = base_offset;
        let retries: Vec<_> =
            self.windows.values_mut().flat_map(|window| window.fail_from(base_offset)).collect();
        self.windows.retain(|_, window| !window.is_empty());
        for waiter in self.waiting.drain(..).map(|batch| batch.waiter).chain(retries) {
            waiter.resolve(&self.scope, Err(error.clone()));
        }
        self.fail_early(error);
    }

    /// Gives up on every early batch: no more will come.
    pub(super) fn fail_early(&mut self, error: &WriteError) {
        for early in std::mem::take(&mut self.early).into_values() {
            early.batch.waiter.resolve(&self.scope, Err(error.clone()));
        }
    }
}

fn producer_epoch(stamp: &ProducerStamp) -> ProducerEpoch {
    (stamp.producer_id, stamp.epoch)
}

/// When there are more windows than `max`, keeps the newer half, so that it is seldom done.
fn forget_oldest<W>(windows: &mut BTreeMap<ProducerEpoch, Window<W>>, max: usize) {
    if windows.len() > max {
        let mut offsets: Vec<_> = windows.values().map(Window::newest_offset).collect();
        let (_, oldest_kept, _) = offsets.select_nth_unstable(windows.len() - max / 2);
        let oldest_kept = *oldest_kept;
        windows.retain(|_, window| window.newest_offset() >= oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_that_wrote_last_are_remembered() {
        let window =
            |base_offset| Window::<()>::load(&[SequencedBatch { base_sequence: 0, records: 1, base_offset }]);
        let mut windows: BTreeMap<_, _> = (0..10).map(|number| ((number, 0), window(number * 100))).collect();
        forget_oldest(&mut windows, 10);
        assert_eq!(windows.len(), 10);
        let mut waits = window(0);
        waits.push(1, 1);
        windows.insert((10, 0), waits);
        forget_oldest(&mut windows, 10);
        assert!(windows.into_keys().map(|(producer_id, _)| producer_id).eq(6..=10));
    }
}
