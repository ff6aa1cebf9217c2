//! The duplicate check: what is known of the last batches of one producer's epoch in one partition (invariant 4).
//!
//! The check covers batches that wait or are in flight as well as committed ones. A producer numbers its records from 0
//! in each partition and epoch; a batch's base sequence must be the one after the last record received. A producer that
//! gives up on batches it has sent raises its epoch: once a batch of an epoch was received, those of lower ones that are
//! still on their way are refused, so that none is stored behind what was sent after it.

use std::collections::VecDeque;
use streamhouse_core::{ErrorKind, limits::IDEMPOTENCE_WINDOW};
use streamhouse_metadata::{ProducerState, SequencedBatch};

/// Sequences wrap to 0 after `i32::MAX`; a distance below half of the ring is ahead, above is behind.
const HALF_RING: u32 = 1 << 30;

/// What a batch's sequence says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one: write it.
    Next,
    /// Batches before it have not arrived yet.
    Ahead,
    /// It is being written: [`Window::attach`] to it.
    Pending,
    /// It was written, at this offset.
    Committed(u64),
}

/// Why a batch's sequence is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SequenceError {
    #[error(
        "the batch with sequence {sequence} came before the one with {expected}, which has not come; send both again, in order. A producer that cannot raises its epoch"
    )]
    Gap { sequence: i32, expected: i32 },
    #[error(
        "the batch with sequence {sequence} is older than the last {IDEMPOTENCE_WINDOW} of its producer, or overlaps one of them (next is {expected}); it was received before, do not send it again"
    )]
    Old { sequence: i32, expected: i32 },
    #[error(
        "the batch with sequence {sequence} was sent before with another number of records ({before}, now {records}); a retry must be the very batch"
    )]
    Changed { sequence: i32, before: u32, records: u32 },
    #[error(
        "{IDEMPOTENCE_WINDOW} batches of this producer wait already; send the next when one is acknowledged"
    )]
    WindowFull,
    #[error(
        "the batch is of the producer's epoch {epoch}, which ended when a batch of a higher one came; it was given up by its producer, do not send it again"
    )]
    Superseded { epoch: i16 },
}

impl SequenceError {
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            SequenceError::Gap { .. } | SequenceError::WindowFull => ErrorKind::Retry,
            SequenceError::Old { .. } | SequenceError::Changed { .. } | SequenceError::Superseded { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}

/// A producer and its epoch.
pub(super) type ProducerEpoch = (u64, i16);

/// One epoch of a producer in one partition. `W` waits for the outcome of a retry.
#[derive(Debug)]
pub(super) struct Window<W> {
    /// Oldest first, at most [`IDEMPOTENCE_WINDOW`].
    committed: VecDeque<SequencedBatch>,
    /// Waiting or in flight, in the order of their sequences, at most [`IDEMPOTENCE_WINDOW`].
    pending: VecDeque<PendingBatch<W>>,
}

#[derive(Debug)]
struct PendingBatch<W> {
    base_sequence: i32,
    records: u32,
    /// Set when the batch goes into a segment.
    offset: Option<u64>,
    /// Retries that arrived meanwhile.
    retries: Vec<W>,
}

impl<W> Default for Window<W> {
    fn default() -> Self {
        Window { committed: VecDeque::new(), pending: VecDeque::new() }
    }
}

impl<W> Window<W> {
    /// The window as it was stored with the last commit.
    pub(super) fn load(batches: &[SequencedBatch]) -> Window<W> {
        let skip = batches.len().saturating_sub(IDEMPOTENCE_WINDOW);
        Window { committed: batches[skip..].iter().copied().collect(), pending: VecDeque::new() }
    }

    /// What to do with a batch.
    ///
    /// # Errors
    ///
    /// `Old` and `Changed` (the producer has a defect), `WindowFull` (it is too fast).
    pub(super) fn check(&self, sequence: i32, records: u32) -> Result<Verdict, SequenceError> {
        let same = |before: u32| match before == records {
            true => Ok(()),
            false => Err(SequenceError::Changed { sequence, before, records }),
        };
        if let Some(batch) = self.pending.iter().find(|batch| batch.base_sequence == sequence) {
            return same(batch.records).map(|()| Verdict::Pending);
        }
        if let Some(batch) = self.committed.iter().rev().find(|batch| batch.base_sequence == sequence) {
            return same(batch.records).map(|()| Verdict::Committed(batch.base_offset));
        }
        let expected = self.next_sequence();
        match distance(expected, sequence) {
            0 if self.pending.len() == IDEMPOTENCE_WINDOW => Err(SequenceError::WindowFull),
            0 => Ok(Verdict::Next),
            1..HALF_RING => Ok(Verdict::Ahead),
            HALF_RING.. => Err(SequenceError::Old { sequence, expected }),
        }
    }

    /// The sequence that the next batch must have.
    pub(super) fn next_sequence(&self) -> i32 {
        let pending = self.pending.back().map(|batch| (batch.base_sequence, batch.records));
        let last =
            pending.or_else(|| self.committed.back().map(|batch| (batch.base_sequence, batch.records)));
        last.map_or(0, |(base, records)| sequence_after(base, records))
    }

    /// Takes a batch that [`check`](Self::check) called `Next`.
    pub(super) fn push(&mut self, base_sequence: i32, records: u32) {
        self.pending.push_back(PendingBatch { base_sequence, records, offset: None, retries: Vec::new() });
    }

    /// Lets a retry wait for the pending batch that it repeats.
    pub(super) fn attach(&mut self, base_sequence: i32, retry: W) {
        if let Some(batch) = self.pending.iter_mut().find(|batch| batch.base_sequence == base_sequence) {
            batch.retries.push(retry);
        }
    }

    /// The batch goes into a segment at this offset.
    pub(super) fn place(&mut self, base_sequence: i32, offset: u64) {
        if let Some(batch) = self.pending.iter_mut().find(|batch| batch.base_sequence == base_sequence) {
            batch.offset = Some(offset);
        }
    }

    /// The state to store with a commit of `batches`, which are the oldest pending ones.
    pub(super) fn state_after(
        &self,
        (producer_id, epoch): ProducerEpoch,
        batches: &[SequencedBatch],
    ) -> ProducerState {
        let skip = (self.committed.len() + batches.len()).saturating_sub(IDEMPOTENCE_WINDOW);
        let batches = self.committed.iter().chain(batches).skip(skip).copied().collect();
        ProducerState { producer_id, epoch, batches }
    }

    /// The oldest pending batch was committed: gives the retries that wait for it.
    pub(super) fn commit(&mut self, committed: SequencedBatch) -> Vec<W> {
        if self.committed.len() == IDEMPOTENCE_WINDOW {
            self.committed.pop_front();
        }
        self.committed.push_back(committed);
        let is_first =
            self.pending.front().is_some_and(|batch| batch.base_sequence == committed.base_sequence);
        if is_first {
            self.pending.pop_front().map_or_else(Vec::new, |batch| batch.retries)
        } else {
            Vec::new()
        }
    }

    /// What was not committed from this offset on, and what waits behind it, failed: forgets it, and gives the retries
    /// that wait for it.
    pub(super) fn fail_from(&mut self, offset: u64) -> Vec<W> {
        let kept = self.pending.iter().take_while(|batch| batch.offset.is_some_and(|at| at < offset)).count();
        self.pending.drain(kept..).flat_map(|batch| batch.retries).collect()
    }

    /// Offset of the newest batch: what was written last has the highest. Pending batches are newer than all.
    pub(super) fn newest_offset(&self) -> u64 {
        let committed = self.committed.back().map_or(0, |batch| batch.base_offset);
        if self.pending.is_empty() { committed } else { u64::MAX }
    }

    /// Whether nothing is known, so that the window need not be kept.
    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }
}

/// The sequence after a batch's last record.
pub(super) const fn sequence_after(base: i32, records: u32) -> i32 {
    (base as u32).wrapping_add(records) as i32 & i32::MAX
}

const fn distance(from: i32, to: i32) -> u32 {
    (to as u32).wrapping_sub(from as u32) & i32::MAX as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn batch(base_sequence: i32, records: u32, base_offset: u64) -> SequencedBatch {
        SequencedBatch { base_sequence, records, base_offset }
    }

    /// A window with `count` pending batches of 10 records, placed from offset 100 on.
    fn pending(count: i32) -> Window<&'static str> {
        let mut window = Window::default();
        for number in 0..count {
            assert_eq!(window.check(number * 10, 10), Ok(Verdict::Next));
            window.push(number * 10, 10);
            window.place(number * 10, 100 + number as u64 * 10);
        }
        window
    }

    #[test]
    fn a_batch_is_next_then_pending_then_committed() {
        let mut window = pending(1);
        assert_eq!(window.check(0, 10), Ok(Verdict::Pending));
        window.attach(0, "retry");
        assert_eq!(window.commit(batch(0, 10, 100)), ["retry"]);
        assert_eq!(window.check(0, 10), Ok(Verdict::Committed(100)));
        assert_eq!(window.check(10, 1), Ok(Verdict::Next));
    }

    #[test]
    fn gaps_overlaps_and_changed_retries_are_told_apart() {
        let mut window = pending(2);
        window.commit(batch(0, 10, 100));
        assert_eq!(window.check(30, 10), Ok(Verdict::Ahead));
        assert_eq!(window.check(5, 10), Err(SequenceError::Old { sequence: 5, expected: 20 }));
        let changed = SequenceError::Changed { sequence: 0, before: 10, records: 9 };
        assert_eq!(window.check(0, 9), Err(changed));
        assert!(matches!(window.check(10, 11), Err(SequenceError::Changed { .. })));
    }

    #[test]
    fn no_more_than_the_window_may_wait_and_no_more_is_remembered() {
        let mut window = pending(IDEMPOTENCE_WINDOW as i32);
        assert_eq!(window.check(50, 10), Err(SequenceError::WindowFull));
        for number in 0..IDEMPOTENCE_WINDOW as i32 {
            window.commit(batch(number * 10, 10, 100 + number as u64 * 10));
        }
        window.push(50, 10);
        window.commit(batch(50, 10, 150));
        assert!(matches!(window.check(0, 10), Err(SequenceError::Old { .. })));
        assert_eq!(window.check(10, 10), Ok(Verdict::Committed(110)));
    }

    #[test]
    fn what_failed_is_next_again() {
        let mut window = pending(3);
        window.push(30, 10);
        window.attach(20, "retry of 20");
        window.attach(30, "retry of 30");
        assert_eq!(window.fail_from(110), ["retry of 20", "retry of 30"]);
        assert_eq!(window.check(0, 10), Ok(Verdict::Pending));
        assert_eq!(window.check(10, 10), Ok(Verdict::Next));
        window.fail_from(0);
        assert!(window.is_empty());
    }

    #[test]
    fn the_stored_state_is_the_window_after_the_commit() {
        let mut window = pending(4);
        window.commit(batch(0, 10, 100));
        window.commit(batch(10, 10, 110));
        let flush = [batch(20, 10, 120), batch(30, 10, 130)];
        let state = window.state_after((7, 0), &flush);
        assert_eq!(
            state.batches.iter().map(|batch| batch.base_sequence).collect::<Vec<_>>(),
            [0, 10, 20, 30]
        );

        let mut window = Window::<()>::load(&state.batches);
        window.push(40, 1);
        window.push(41, 1);
        let state = window.state_after((7, 0), &[batch(40, 1, 140), batch(41, 1, 141)]);
        assert_eq!(
            state.batches.iter().map(|batch| batch.base_sequence).collect::<Vec<_>>(),
            [10, 20, 30, 40, 41]
        );
    }

    #[test]
    fn sequences_wrap() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        let window = Window::<()>::load(&[batch(i32::MAX - 4, 10, 0)]);
        assert_eq!(window.check(5, 1), Ok(Verdict::Next));
        assert_eq!(window.check(6, 1), Ok(Verdict::Ahead));
        assert!(matches!(window.check(i32::MAX - 20, 1), Err(SequenceError::Old { .. })));
    }

    /// What may happen to a producer's batches.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send {
            records: u32,
        },
        /// The batch this far back is sent again.
        Resend {
            back: usize,
        },
        Skip {
            records: u32,
        },
        CommitOldest,
        /// What is pending from this one on fails.
        Fail {
            from: usize,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..100_u32).prop_map(|records| Step::Send { records }),
            3 => (0..8_usize).prop_map(|back| Step::Resend { back }),
            1 => (1..100_u32).prop_map(|records| Step::Skip { records }),
            4 => Just(Step::CommitOldest),
            1 => (0..IDEMPOTENCE_WINDOW).prop_map(|from| Step::Fail { from }),
        ]
    }

    proptest! {
        /// Invariant 4, against a model that remembers everything. Sequences begin close to where they wrap.
        #[test]
        fn a_batch_is_stored_once_and_its_retries_get_its_offset(steps in vec(step(), 1..200)) {
            let first = batch(i32::MAX - 1000, 1, 0);
            let mut window = Window::<()>::load(&[first]);
            let (mut log, mut pending) = (vec![first], Vec::<SequencedBatch>::new());
            for step in steps {
                let last = *pending.last().or(log.last()).expect("the log begins with a batch");
                let (next_sequence, next_offset) =
                    (sequence_after(last.base_sequence, last.records), last.base_offset + u64::from(last.records));
                match step {
                    Step::Send { records } if pending.len() < IDEMPOTENCE_WINDOW => {
                        prop_assert_eq!(window.check(next_sequence, records), Ok(Verdict::Next));
                        window.push(next_sequence, records);
                        window.place(next_sequence, next_offset);
                        pending.push(batch(next_sequence, records, next_offset));
                    }
                    Step::Send { records } => {
                        prop_assert_eq!(window.check(next_sequence, records), Err(SequenceError::WindowFull));
                    }
                    Step::Resend { back } => {
                        let Some(sent) = log.iter().chain(&pending).rev().nth(back) else { continue };
                        let verdict = window.check(sent.base_sequence, sent.records);
                        if back < pending.len() {
                            prop_assert_eq!(verdict, Ok(Verdict::Pending));
                        } else if back < pending.len() + IDEMPOTENCE_WINDOW {
                            prop_assert_eq!(verdict, Ok(Verdict::Committed(sent.base_offset)));
                        } else {
                            let is_old = matches!(verdict, Err(SequenceError::Old { .. }));
                            prop_assert!(is_old, "{:?}", verdict);
                        }
                    }
                    Step::Skip { records } => {
                        let ahead = sequence_after(next_sequence, records);
                        prop_assert_eq!(window.check(ahead, 1), Ok(Verdict::Ahead));
                    }
                    Step::CommitOldest => {
                        if !pending.is_empty() {
                            let oldest = pending.remove(0);
                            let state = window.state_after((1, 0), &[oldest]);
                            window.commit(oldest);
                            log.push(oldest);
                            let remembered = &log[log.len().saturating_sub(IDEMPOTENCE_WINDOW)..];
                            prop_assert_eq!(state.batches, remembered);
                        }
                    }
                    Step::Fail { from } => {
                        if let Some(failed) = pending.get(from) {
                            window.fail_from(failed.base_offset);
                            pending.truncate(from);
                        }
                    }
                }
            }
        }
    }
}
