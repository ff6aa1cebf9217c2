//! Invariant 1: who held which lease until when, from what the agents were told.

use super::Violation;
use std::collections::BTreeMap;
use std::time::Duration;
use streamhouse_core::{AgentId, TopicPartition};
use streamhouse_metadata::{FlushRange, Lease};

/// The newest lease of every partition.
#[derive(Default)]
pub(super) struct Leases(BTreeMap<TopicPartition, Held>);

struct Held {
    agent: AgentId,
    epoch: u64,
    expires_ms: u64,
}

fn violation(what: String) -> Violation {
    Violation { invariant: 1, what }
}

impl Leases {
    pub(super) fn granted(
        &mut self,
        agent: &AgentId,
        leases: &[Lease],
        term: Duration,
        now_ms: u64,
    ) -> Result<(), Violation> {
        for Lease { partition, epoch, .. } in leases {
            let expires_ms = now_ms + term.as_millis() as u64;
            let lease = Held { agent: agent.clone(), epoch: *epoch, expires_ms };
            let Some(before) = self.0.insert(partition.clone(), lease) else { continue };
            if before.expires_ms > now_ms {
                let holder = before.agent;
                return Err(violation(format!("{agent} is granted {partition} while {holder} holds it")));
            }
            if before.epoch >= *epoch {
                return Err(violation(format!("{partition} is granted under epoch {epoch} once more")));
            }
        }
        Ok(())
    }

    pub(super) fn renewed(
        &mut self,
        agent: &AgentId,
        asked: &[(TopicPartition, u64)],
        renewed: &[TopicPartition],
        term: Duration,
        now_ms: u64,
    ) -> Result<(), Violation> {
        for (partition, epoch) in asked.iter().filter(|(partition, _)| renewed.contains(partition)) {
            let holds = |lease: &&mut Held| {
                lease.agent == *agent && lease.epoch == *epoch && lease.expires_ms > now_ms
            };
            match self.0.get_mut(partition).filter(holds) {
                Some(lease) => lease.expires_ms = now_ms + term.as_millis() as u64,
                None => {
                    let what = format!("{agent} renews epoch {epoch} of {partition}, which it does not hold");
                    return Err(violation(what));
                }
            }
        }
        Ok(())
    }

    /// A lease that was given back has expired; its epoch stays known.
    pub(super) fn released(&mut self, agent: &AgentId, leases: &[(TopicPartition, u64)]) {
        for (partition, epoch) in leases {
            if let Some(lease) = self.0.get_mut(partition)
                && lease.agent == *agent
                && lease.epoch == *epoch
            {
                lease.expires_ms = 0;
            }
        }
    }

    pub(super) fn released_all(&mut self, agent: &AgentId) {
        self.0.values_mut().filter(|lease| lease.agent == *agent).for_each(|lease| lease.expires_ms = 0);
    }

    pub(super) fn commits(&self, agent: &AgentId, range: &FlushRange, now_ms: u64) -> Result<(), Violation> {
        let FlushRange { partition, epoch, .. } = range;
        match self.0.get(partition) {
            Some(lease) if lease.agent != *agent || lease.epoch != *epoch => Err(violation(format!(
                "{agent} commits to {partition} under epoch {epoch}; {} holds it under epoch {}",
                lease.agent, lease.epoch
            ))),
            Some(lease) if lease.expires_ms <= now_ms => Err(violation(format!(
                "{agent} commits to {partition} {} ms after its lease",
                now_ms - lease.expires_ms
            ))),
            Some(_) => Ok(()),
            None => Err(violation(format!("{agent} commits to {partition}, which nobody ever held"))),
        }
    }
}
