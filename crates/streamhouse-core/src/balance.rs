//! Who takes what: fair shares of partitions, the same for everybody who looks at the same table.
//!
//! Agents share the partitions of a log, members of a group those of its topics. Nobody assigns: each computes the shares
//! from the same table, keeps and takes what is its own, and gives up what is not. The table's transactions see to it
//! that nothing has two owners, whatever somebody computed from an older one.
//!
//! Shares differ by at most one. What is held moves only when its holder has too much or is gone. What is free goes by
//! rendezvous hashing, to the owner with room whose hash with the partition is highest.

use crate::TopicPartition;

/// The fair share of each owner: for every partition the index in `owners` of whom it belongs to, in order; all `None`
/// without owners.
///
/// `held` says for each partition which owner has it now; an owner that is not in `owners` counts as gone. Neither the
/// order of the partitions nor that of the owners changes what belongs to whom.
///
/// ```
/// use streamhouse_core::{TopicPartition, balance::shares};
///
/// let at = |partition| TopicPartition { topic: "orders".parse().expect("a valid name"), partition };
/// let partitions = [at(0), at(1), at(2)];
/// // "a" has all, "b" is new: one moves.
/// let held = partitions.each_ref().map(|partition| (partition, Some("a")));
/// let shares = shares(&held, &["a", "b"]);
/// assert_eq!(shares.iter().filter(|owner| **owner == Some(1)).count(), 1);
/// ```
pub fn shares(held: &[(&TopicPartition, Option<&str>)], owners: &[&str]) -> Vec<Option<usize>> {
    if owners.is_empty() {
        return vec![None; held.len()];
    }
    let mut holdings = vec![Vec::new(); owners.len()];
    for (index, (_, holder)) in held.iter().enumerate() {
        if let Some(owner) = holder.and_then(|holder| owners.iter().position(|owner| *owner == holder)) {
            holdings[owner].push(index);
        }
    }
    let room = room(&holdings, held.len(), owners);
    let mut shares = vec![None; held.len()];
    for (owner, mut indexes) in holdings.into_iter().enumerate() {
        let score = |index: &usize| (score(held[*index].0, owners[owner]), held[*index].0);
        indexes.sort_unstable_by(|a, b| score(b).cmp(&score(a)));
        indexes.iter().take(room[owner]).for_each(|index| shares[*index] = Some(owner));
    }
    place_free(held, owners, room, &mut shares);
    shares
}

/// How many partitions each owner may have. The larger shares go to those that hold as many, so that the least moves;
/// that one of them holds more than that makes no difference, so that the shares stay the same while it gives up what is
/// too much.
fn room(holdings: &[Vec<usize>], partitions: usize, owners: &[&str]) -> Vec<usize> {
    let most = partitions.div_ceil(owners.len());
    let holds = |owner: &usize| holdings[*owner].len().min(most);
    let mut order: Vec<usize> = (0..owners.len()).collect();
    order.sort_unstable_by(|a, b| holds(b).cmp(&holds(a)).then_with(|| owners[*a].cmp(owners[*b])));
    let larger = partitions % owners.len();
    let mut room = vec![partitions / owners.len(); owners.len()];
    order.iter().take(larger).for_each(|owner| room[*owner] += 1);
    room
}

/// Places what nobody keeps, partition after partition in their own order.
fn place_free(
    held: &[(&TopicPartition, Option<&str>)],
    owners: &[&str],
    mut room: Vec<usize>,
    shares: &mut [Option<usize>],
) {
    shares.iter().flatten().for_each(|owner| room[*owner] -= 1);
    let mut free: Vec<usize> = (0..held.len()).filter(|index| shares[*index].is_none()).collect();
    free.sort_unstable_by_key(|index| held[*index].0);
    for index in free {
        let with_room = (0..owners.len()).filter(|owner| room[*owner] > 0);
        let owner = with_room.max_by_key(|owner| (score(held[index].0, owners[*owner]), owners[*owner]));
        if let Some(owner) = owner {
            room[owner] -= 1;
            shares[index] = Some(owner);
        }
    }
}

/// The rendezvous hash of a partition and an owner: FNV-1a over both, then a finalizer that spreads near inputs apart
/// (Stafford's variant 13 of MurmurHash3's). The same on every machine and in every version.
fn score(partition: &TopicPartition, owner: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let number = partition.partition.to_be_bytes();
    // No name has a zero byte, so that no two inputs are the same bytes.
    let bytes = [owner.as_bytes(), &[0], partition.topic.as_str().as_bytes(), &[0], &number];
    let bytes = bytes.into_iter().flatten();
    let mut hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn partitions(count: u32) -> Vec<TopicPartition> {
        let at = |partition| TopicPartition { topic: "orders".parse().unwrap(), partition };
        (0..count).map(at).collect()
    }

    fn counts(shares: &[Option<usize>], owners: usize) -> Vec<usize> {
        (0..owners).map(|owner| shares.iter().filter(|share| **share == Some(owner)).count()).collect()
    }

    fn assign(
        partitions: &[TopicPartition],
        before: &[Option<String>],
        owners: &[&str],
    ) -> Vec<Option<String>> {
        let held: Vec<_> = partitions.iter().zip(before.iter().map(Option::as_deref)).collect();
        shares(&held, owners).into_iter().map(|owner| owner.map(|owner| owners[owner].to_owned())).collect()
    }

    #[test]
    fn nobody_gets_anything_without_owners() {
        let partitions = partitions(2);
        let held: Vec<_> = partitions.iter().map(|partition| (partition, Some("gone"))).collect();
        assert_eq!(shares(&held, &[]), [None, None]);
        assert!(shares(&[], &["a"]).is_empty());
    }

    #[test]
    fn free_partitions_are_spread_by_the_hash() {
        let partitions = partitions(1000);
        let before = vec![None; 1000];
        let now = assign(&partitions, &before, &["a", "b", "c"]);
        let runs = now.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(runs > 500, "neighbours have the same owner: {runs} changes");
    }

    proptest! {
        #[test]
        fn shares_are_fair_and_move_no_more_than_they_must(
            count in 0u32..60, before in proptest::collection::vec(0usize..6, 60), owners in 1usize..6,
        ) {
            let names = ["a", "b", "c", "d", "e", "gone"];
            let partitions = partitions(count);
            let held: Vec<_> = partitions.iter().zip(before.iter().map(|owner| Some(names[*owner]))).collect();
            let shares = shares(&held, &names[..owners]);
            let now = counts(&shares, owners);
            let (fewest, most) = (now.iter().min().unwrap(), now.iter().max().unwrap());
            prop_assert!(most - fewest <= 1, "{now:?}");
            prop_assert!(shares.iter().all(Option::is_some));
            let had: BTreeMap<usize, usize> = before[..count as usize].iter().fold(BTreeMap::new(), |mut had, owner| {
                *had.entry(*owner).or_default() += 1;
                had
            });
            for (owner, share) in now.iter().enumerate() {
                let kept = (0..count as usize).filter(|at| before[*at] == owner && shares[*at] == Some(owner)).count();
                prop_assert_eq!(kept, (*share).min(had.get(&owner).copied().unwrap_or(0)), "{} moved needlessly", owner);
            }
        }

        #[test]
        fn what_stays_at_first_stays_while_the_rest_moves_step_by_step(
            count in 1u32..40, holders in 1usize..4, joiners in 1usize..4, steps in proptest::collection::vec(0usize..40, 80),
        ) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let partitions = partitions(count);
            let owners = &names[..holders + joiners];
            let before = assign(&partitions, &vec![None; count as usize], &names[..holders]);
            let end = assign(&partitions, &before, owners);
            let mut now = before.clone();
            for index in steps.into_iter().map(|step| step % count as usize) {
                let share = assign(&partitions, &now, owners);
                // It is given back before anybody can take it.
                let is_free = now[index].is_none() || now[index] == share[index];
                now[index] = if is_free { share[index].clone() } else { None };
                for at in 0..count as usize {
                    prop_assert!(end[at] != before[at] || now[at] == before[at], "{} moved needlessly", at);
                }
            }
        }

        #[test]
        fn order_changes_nothing_and_what_was_computed_stays(count in 1u32..40, owners in 1usize..5) {
            let names = ["a", "b", "c", "d"];
            let partitions = partitions(count);
            let before = vec![None; count as usize];
            let now = assign(&partitions, &before, &names[..owners]);
            let mut turned: Vec<_> = partitions.clone();
            turned.reverse();
            let mut owners_turned = names[..owners].to_vec();
            owners_turned.reverse();
            let mut other = assign(&turned, &before, &owners_turned);
            other.reverse();
            prop_assert_eq!(&now, &other);
            prop_assert_eq!(&assign(&partitions, &now, &names[..owners]), &now);
        }
    }
}
