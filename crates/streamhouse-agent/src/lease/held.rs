//! The leases that the agent holds, as far as it knows.

use std::collections::{BTreeMap, HashSet};
use streamhouse_core::TopicPartition;
use tokio::time::Instant;

/// What is held, in order, so that equal runs make equal calls. The database has the last word: a commit checks the lease there (invariant 1).
#[derive(Debug, Default)]
pub(super) struct HeldLeases(BTreeMap<TopicPartition, Held>);

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    /// Until when the lease holds at least: counted from before it was asked for.
    until: Instant,
    /// Since when it is being handed over.
    leaving: Option<Instant>,
}

impl HeldLeases {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn holds(&self, partition: &TopicPartition) -> bool {
        self.0.contains_key(partition)
    }

    pub(super) fn has(&self, partition: &TopicPartition, epoch: u64) -> bool {
        self.0.get(partition).is_some_and(|held| held.epoch == epoch)
    }

    /// Every lease, and its epoch.
    pub(super) fn all(&self) -> Vec<(TopicPartition, u64)> {
        self.0.iter().map(|(partition, held)| (partition.clone(), held.epoch)).collect()
    }

    /// Those that are not being handed over.
    pub(super) fn staying(&self) -> impl Iterator<Item = &TopicPartition> {
        self.0.iter().filter(|(_, held)| held.leaving.is_none()).map(|(partition, _)| partition)
    }

    /// Until when at least one of them holds.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.values().map(|held| held.until).max()
    }

    pub(super) fn insert(&mut self, partition: TopicPartition, epoch: u64, until: Instant) {
        self.0.insert(partition, Held { epoch, until, leaving: None });
    }

    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        self.0.remove(partition);
    }

    /// Forgets the lease of this very epoch.
    pub(super) fn remove_epoch(&mut self, partition: &TopicPartition, epoch: u64) {
        if self.has(partition, epoch) {
            self.0.remove(partition);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets every lease, and gives how many had expired.
    pub(super) fn reset(&mut self, now: Instant) -> usize {
        let expired = self.expire(now, None).len();
        self.clear();
        expired
    }

    /// Of the leases that were to be renewed, those that were hold until then; the others are gone, and given.
    pub(super) fn renewed(
        &mut self,
        asked: Vec<(TopicPartition, u64)>,
        renewed: Vec<TopicPartition>,
        until: Instant,
    ) -> Vec<TopicPartition> {
        let renewed: HashSet<_> = renewed.into_iter().collect();
        self.0.retain(|partition, _| renewed.contains(partition));
        self.0.values_mut().for_each(|held| held.until = until);
        asked
            .into_iter()
            .map(|(partition, _)| partition)
            .filter(|partition| !renewed.contains(partition))
            .collect()
    }

    /// Notes that those of the partitions that stay are being handed over from now on, and gives them.
    pub(super) fn leave(&mut self, partitions: Vec<TopicPartition>, now: Instant) -> Vec<TopicPartition> {
        let mut leaving = partitions;
        leaving.retain(|partition| {
            self.0
                .get_mut(partition)
                .is_some_and(|held| held.leaving.replace(held.leaving.unwrap_or(now)).is_none())
        });
        leaving
    }

    /// Forgets those that have expired, and those that are being handed over since before `left`; gives them.
    pub(super) fn expire(&mut self, now: Instant, left: Option<Instant>) -> Vec<TopicPartition> {
        let expired = self
            .0
            .extract_if(.., |_, held| held.until <= now || (held.leaving.is_some() && held.leaving <= left));
        expired.map(|(partition, _)| partition).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: "orders".parse().unwrap(), partition }
    }

    #[test]
    fn a_hand_over_begins_once_and_does_not_last_for_ever() {
        let (mut held, start) = (HeldLeases::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        (0..2).for_each(|partition| held.insert(at(partition), 1, after(60)));
        assert_eq!(held.leave(vec![at(0), at(7)], after(1)), [at(0)]);
        assert_eq!(held.leave(vec![at(0)], after(2)), []);
        assert_eq!(held.staying().collect::<Vec<_>>(), [&at(1)]);
        assert_eq!(held.expire(after(10), Some(start)), []);
        assert_eq!(held.expire(after(11), Some(after(1))), [at(0)]);
        assert_eq!(held.expire(after(60), None), [at(1)]);
        assert!(held.is_empty());
    }

    #[test]
    fn what_had_expired_is_lost_when_all_is_forgotten() {
        let (mut held, now) = (HeldLeases::default(), Instant::now());
        (0..3).for_each(|number| held.insert(at(number), 1, now + Duration::from_secs(number.into())));
        held.leave(vec![at(2)], now);
        assert_eq!(held.reset(now + Duration::from_secs(1)), 2);
        assert!(held.is_empty());
    }

    #[test]
    fn what_is_not_renewed_is_gone() {
        let (mut held, now) = (HeldLeases::default(), Instant::now());
        (0..2).for_each(|partition| held.insert(at(partition), 3, now));
        let until = now + Duration::from_secs(1);
        assert_eq!(held.renewed(vec![(at(0), 3), (at(1), 3)], vec![at(1)], until), [at(0)]);
        assert_eq!((held.all(), held.until()), (vec![(at(1), 3)], Some(until)));
        held.remove_epoch(&at(1), 2);
        assert!(held.has(&at(1), 3));
        held.remove_epoch(&at(1), 3);
        assert!(held.is_empty());
    }
}
