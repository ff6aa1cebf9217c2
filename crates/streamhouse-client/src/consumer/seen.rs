//! A group as one of its members sees it: what it holds, and what belongs to it.

use std::collections::{BTreeMap, BTreeSet};
use streamhouse_core::{MemberId, TopicName, TopicPartition, balance};
use streamhouse_metadata::{Claim, GroupView};

/// A view of a group and what follows from it for one member.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) view: GroupView,
    member: MemberId,
    /// What belongs to the member, claimed or not.
    share: BTreeSet<TopicPartition>,
}

impl Seen {
    /// Computes the member's share of its topics, each with its number of partitions.
    pub(crate) fn new(view: GroupView, member: &MemberId, topics: &[(TopicName, u32)]) -> Seen {
        let share = share(&view, member, topics);
        Seen { view, member: member.clone(), share }
    }

    /// Whether the partition belongs to the member.
    pub(crate) fn is_share(&self, partition: &TopicPartition) -> bool {
        self.share.contains(partition)
    }

    /// The member's claims.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Claim> {
        self.view.claims.iter().filter(|claim| claim.member == self.member)
    }

    /// Whether the member has this very claim.
    pub(crate) fn holds(&self, partition: &TopicPartition, generation: u64) -> bool {
        self.claim(partition)
            .is_some_and(|claim| claim.member == self.member && claim.generation == generation)
    }

    /// Who reads the partition.
    pub(crate) fn reader(&self, partition: &TopicPartition) -> Option<&MemberId> {
        self.claim(partition).map(|claim| &claim.member)
    }

    /// What belongs to the member and nobody has claimed.
    pub(crate) fn to_claim(&self) -> impl Iterator<Item = &TopicPartition> {
        self.share.iter().filter(|partition| self.claim(partition).is_none())
    }

    /// Whether the member holds what belongs to it and nothing else.
    pub(crate) fn is_settled(&self) -> bool {
        self.held().map(|claim| &claim.partition).eq(&self.share)
    }

    /// Claims come by topic and number.
    fn claim(&self, partition: &TopicPartition) -> Option<&Claim> {
        let found = self.view.claims.binary_search_by(|claim| claim.partition.cmp(partition));
        found.ok().map(|index| &self.view.claims[index])
    }
}

/// What belongs to the member. Topics with the same readers are shared together, so that what one reader has too much of
/// one topic makes up for what it has too little of another.
fn share(view: &GroupView, member: &MemberId, topics: &[(TopicName, u32)]) -> BTreeSet<TopicPartition> {
    let mut classes: BTreeMap<Vec<&str>, Vec<TopicPartition>> = BTreeMap::new();
    for (topic, partitions) in topics {
        let readers = view.members.iter().filter(|member| member.topics.contains(topic));
        let numbers = 0..*partitions;
        classes
            .entry(readers.map(|member| member.id.as_str()).collect())
            .or_default()
            .extend(numbers.map(|partition| TopicPartition { topic: topic.clone(), partition }));
    }
    let claims = view.claims.iter().map(|claim| (&claim.partition, claim.member.as_str()));
    let holders: BTreeMap<_, _> = claims.collect();
    let mut share = BTreeSet::new();
    for (readers, partitions) in classes {
        let Some(me) = readers.iter().position(|reader| *reader == member.as_str()) else { continue };
        let held: Vec<_> =
            partitions.iter().map(|partition| (partition, holders.get(partition).copied())).collect();
        let owners = balance::shares(&held, &readers);
        let mine = partitions.into_iter().zip(owners).filter(|(_, owner)| *owner == Some(me));
        share.extend(mine.map(|(partition, _)| partition));
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamhouse_metadata::Member;

    fn at(topic: &str, partition: u32) -> TopicPartition {
        TopicPartition { topic: topic.parse().unwrap(), partition }
    }

    fn view(members: &[(&str, &[&str])], claims: &[(&str, u32, &str)]) -> GroupView {
        let member = |(id, topics): &(&str, &[&str])| Member {
            id: id.parse().unwrap(),
            topics: topics.iter().map(|topic| topic.parse().unwrap()).collect(),
        };
        let claim = |(topic, partition, member): &(&str, u32, &str)| Claim {
            partition: at(topic, *partition),
            member: member.parse().unwrap(),
            generation: 7,
        };
        GroupView {
            generation: 9,
            members: members.iter().map(member).collect(),
            claims: claims.iter().map(claim).collect(),
        }
    }

    fn seen(view: &GroupView, member: &str, topics: &[(&str, u32)]) -> Seen {
        let topics: Vec<_> =
            topics.iter().map(|(topic, partitions)| (topic.parse().unwrap(), *partitions)).collect();
        Seen::new(view.clone(), &member.parse().unwrap(), &topics)
    }

    #[test]
    fn topics_with_the_same_readers_are_shared_together() {
        let both: &[&str] = &["a", "b", "c"];
        let view = view(&[("one", both), ("two", both)], &[]);
        let topics = [("a", 1), ("b", 2), ("c", 1)];
        let shares = ["one", "two"].map(|member| seen(&view, member, &topics).share);
        assert_eq!(shares.each_ref().map(BTreeSet::len), [2, 2]);
        assert!(shares[0].is_disjoint(&shares[1]));
    }

    #[test]
    fn a_topic_is_shared_by_those_who_read_it() {
        let view = view(&[("one", &["a"]), ("three", &["b"]), ("two", &["a", "b"])], &[]);
        let only_a = seen(&view, "one", &[("a", 4)]).share;
        let only_b = seen(&view, "three", &[("b", 4)]).share;
        let both = seen(&view, "two", &[("a", 4), ("b", 4)]).share;
        assert_eq!((only_a.len(), only_b.len(), both.len()), (2, 2, 4));
        let all: BTreeSet<_> = only_a.iter().chain(&only_b).chain(&both).collect();
        assert_eq!(all.len(), 8, "every partition belongs to one");
    }

    #[test]
    fn claims_are_held_by_member_and_generation() {
        let topics: &[&str] = &["a"];
        let view = view(&[("one", topics), ("two", topics)], &[("a", 0, "one"), ("a", 2, "two")]);
        let seen = seen(&view, "one", &[("a", 4)]);
        assert!(seen.holds(&at("a", 0), 7));
        assert!(!seen.holds(&at("a", 0), 8) && !seen.holds(&at("a", 2), 7) && !seen.holds(&at("a", 1), 7));
        assert_eq!(seen.reader(&at("a", 2)).unwrap().as_str(), "two");
        assert_eq!(seen.held().count(), 1);
        assert!(!seen.is_settled());
        let free: Vec<_> = seen.to_claim().collect();
        assert_eq!(free.len(), 1, "{free:?}");
        assert!(seen.is_share(&at("a", 0)) && seen.is_share(free[0]));
    }

    #[test]
    fn what_a_member_holds_and_does_not_read_any_more_is_not_its_share() {
        let view = view(&[("one", &["b"]), ("two", &["a"])], &[("a", 0, "one"), ("b", 0, "one")]);
        let one = seen(&view, "one", &[("b", 1)]);
        assert!(!one.is_share(&at("a", 0)) && one.is_share(&at("b", 0)) && !one.is_settled());
        let two = seen(&view, "two", &[("a", 1)]);
        assert!(two.is_share(&at("a", 0)) && two.to_claim().count() == 0, "it waits for the claim to end");
    }
}
