//! What a look at the lease table asks for: which partitions to take, to give back, to hand over.
//!
//! Every agent computes the same fair shares from the same table, and acts on its own alone: it takes what is free and its
//! own, and hands over what it holds and is another's. A free partition that is another's is left to that one, as long as
//! it lives: two that reach for it would only move it twice.

use super::held::HeldLeases;
use std::time::Duration;
use streamhouse_core::{AgentId, TopicPartition, balance::shares};
use streamhouse_metadata::{AgentInfo, LeaseRow};

/// What to do about the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Held here, and not in the table: another may have them.
    pub(super) lost: Vec<TopicPartition>,
    /// This agent's in the table, and not held here: left of a grant whose answer was lost, or of a lease that was given
    /// up. They are to be given back before they are taken anew.
    pub(super) strays: Vec<(TopicPartition, u64)>,
    /// Free, or a stray, and this agent's share.
    pub(super) take: Vec<TopicPartition>,
    /// Held, and another's share.
    pub(super) hand_over: Vec<TopicPartition>,
}

impl Plan {
    /// What the agent `own` does, when agents live for a `term` after their last heartbeat.
    pub(super) fn new(
        own: &AgentId,
        held: &HeldLeases,
        table: &[LeaseRow],
        agents: &[AgentInfo],
        term: Duration,
    ) -> Plan {
        let own_index = 0;
        let mut owners = vec![own.as_str()];
        // A heartbeat comes three times in a term. Who is late may be gone: nothing is handed to it.
        let mut in_time = vec![true];
        for agent in agents.iter().filter(|agent| agent.id != *own) {
            let age = Duration::from_millis(agent.heartbeat_age_ms.unsigned_abs());
            if age < term {
                owners.push(agent.id.as_str());
                in_time.push(age < term / 2);
            }
        }
        let mut plan = Plan::default();
        let holders: Vec<_> = table
            .iter()
            .map(|row| {
                let holder = row
                    .holder
                    .as_ref()
                    .filter(|holder| *holder != own || held.has(&row.partition, row.epoch));
                (&row.partition, holder.map(AgentId::as_str))
            })
            .collect();
        for ((row, (_, holder)), owner) in table.iter().zip(&holders).zip(shares(&holders, &owners)) {
            let is_own = *holder == Some(own.as_str());
            if !is_own && held.holds(&row.partition) {
                plan.lost.push(row.partition.clone());
            }
            if holder.is_none() && row.holder.is_some() {
                plan.strays.push((row.partition.clone(), row.epoch));
            }
            match owner {
                Some(owner) if owner == own_index && holder.is_none() => {
                    plan.take.push(row.partition.clone())
                }
                Some(owner) if owner != own_index && is_own && in_time[owner] => {
                    plan.hand_over.push(row.partition.clone());
                }
                Some(_) | None => {}
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const TERM: Duration = Duration::from_secs(10);

    fn id(name: &str) -> AgentId {
        AgentId::new(name).unwrap()
    }

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: "orders".parse().unwrap(), partition }
    }

    /// Partitions `0..`, each of epoch 1.
    fn table(holders: &[Option<&str>]) -> Vec<LeaseRow> {
        let row = |(partition, holder): (usize, &Option<&str>)| LeaseRow {
            partition: at(partition as u32),
            holder: holder.map(id),
            epoch: 1,
        };
        holders.iter().enumerate().map(row).collect()
    }

    fn agent((name, heartbeat_age_ms): (&str, i64)) -> AgentInfo {
        AgentInfo { id: id(name), address: "host:1".into(), heartbeat_age_ms }
    }

    fn held(partitions: impl IntoIterator<Item = u32>) -> HeldLeases {
        let mut held = HeldLeases::default();
        partitions.into_iter().for_each(|partition| held.insert(at(partition), 1, Instant::now() + TERM));
        held
    }

    fn plan(held: &HeldLeases, table: &[LeaseRow], agents: &[(&str, i64)]) -> Plan {
        let agents: Vec<_> = agents.iter().copied().map(agent).collect();
        Plan::new(&id("a"), held, table, &agents, TERM)
    }

    #[test]
    fn an_agent_alone_takes_all_that_is_free() {
        let plan = plan(&held([1]), &table(&[None, Some("a"), Some("gone")]), &[]);
        assert_eq!(plan, Plan { take: vec![at(0)], ..Plan::default() });
    }

    #[test]
    fn one_that_joins_is_handed_its_share_and_no_more() {
        let (held, table) = (held(0..4), table(&[Some("a"); 4]));
        let given = plan(&held, &table, &[("a", 0), ("b", 10)]);
        assert_eq!((given.hand_over.len(), given.take.len(), given.lost.len()), (2, 0, 0));
        // Who is not heard of in time is handed nothing, and who is not heard of for a term has no share.
        assert_eq!(plan(&held, &table, &[("a", 0), ("b", 5_000)]), Plan::default());
        assert_eq!(plan(&held, &table, &[("a", 0), ("b", 10_000)]), Plan::default());
    }

    #[test]
    fn a_free_partition_of_another_that_lives_is_left_to_it() {
        let holders = [Some("a"), None, Some("a"), None];
        assert_eq!(plan(&held([0, 2]), &table(&holders), &[("b", 9_999)]), Plan::default());
        let plan = plan(&held([0, 2]), &table(&holders), &[("b", 10_000)]);
        assert_eq!(plan.take, [at(1), at(3)]);
    }

    #[test]
    fn what_the_table_has_and_the_agent_has_not_is_given_back_and_taken_anew() {
        let mut rows = table(&[Some("a"), Some("a"), Some("b")]);
        rows[1].epoch = 7;
        // Partition 0 is not held, 1 is held of an older epoch, 2 is held and has gone to another.
        let plan = plan(&held([1, 2]), &rows, &[]);
        assert_eq!(plan.lost, [at(1), at(2)]);
        assert_eq!(plan.strays, [(at(0), 1), (at(1), 7)]);
        assert_eq!(plan.take, [at(0), at(1)]);
    }
}
