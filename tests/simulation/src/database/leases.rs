//! Leases.

use super::{LeaseRowEnd, PartitionRow, Tables, not_registered};
use crate::bug::Bug;
use std::time::Duration;
use streamhouse_core::{AgentId, TopicPartition};
use streamhouse_metadata::*;

impl Tables {
    pub(super) fn lease_table(&self, now_ms: u64) -> Vec<LeaseRow> {
        let row = |(at, row): (&TopicPartition, &PartitionRow)| LeaseRow {
            partition: at.clone(),
            holder: row.holder(now_ms).cloned(),
            epoch: row.epoch,
        };
        self.partitions.iter().map(row).collect()
    }

    pub(super) fn any_lease_free(&self, now_ms: u64) -> bool {
        self.partitions.values().any(|row| row.holder(now_ms).is_none())
    }

    pub(super) fn acquire(
        &mut self,
        agent: &AgentId,
        term: Duration,
        wanted: &[TopicPartition],
        now_ms: u64,
    ) -> Result<Vec<Lease>> {
        if !self.agents.contains_key(agent) {
            return Err(not_registered(agent));
        }
        let grants_held = self.has(Bug::GrantsHeldLease);
        let forgets = self.has(Bug::ForgetsNewestBatch);
        let mut leases = Vec::new();
        for at in wanted {
            let Some(row) = self.partitions.get_mut(at) else { continue };
            if row.holder(now_ms).is_some() && !grants_held {
                continue;
            }
            row.epoch += 1;
            let expires_ms = now_ms + term.as_millis() as u64;
            row.lease = Some(LeaseRowEnd { agent: agent.clone(), expires_ms });
            let producers = row.producers.iter().map(|(&(producer_id, epoch), batches)| {
                let known = if forgets { batches.len().saturating_sub(1) } else { batches.len() };
                ProducerState { producer_id, epoch, batches: batches[..known].to_vec() }
            });
            leases.push(Lease {
                partition: at.clone(),
                epoch: row.epoch,
                watermarks: row.watermarks(),
                producers: producers.collect(),
            });
        }
        Ok(leases)
    }

    pub(super) fn renew(
        &mut self,
        agent: &AgentId,
        leases: &[(TopicPartition, u64)],
        term: Duration,
        now_ms: u64,
    ) -> Vec<TopicPartition> {
        let mut renewed = Vec::new();
        for (at, epoch) in leases {
            let Some(row) = self.partitions.get_mut(at) else { continue };
            if row.holder(now_ms) == Some(agent)
                && row.epoch == *epoch
                && let Some(lease) = &mut row.lease
            {
                lease.expires_ms = now_ms + term.as_millis() as u64;
                renewed.push(at.clone());
            }
        }
        renewed
    }

    pub(super) fn release(&mut self, agent: &AgentId, leases: &[(TopicPartition, u64)]) {
        for (at, epoch) in leases {
            if let Some(row) = self.partitions.get_mut(at)
                && row.epoch == *epoch
            {
                row.lease.take_if(|lease| lease.agent == *agent);
            }
        }
    }

    pub(super) fn release_all(&mut self, agent: &AgentId) {
        for row in self.partitions.values_mut() {
            row.lease.take_if(|lease| lease.agent == *agent);
        }
    }

    pub(super) fn deregister(&mut self, agent: &AgentId) {
        self.release_all(agent);
        self.agents.remove(agent);
        self.duty.take_if(|(holder, _)| holder == agent);
    }

    pub(super) fn expire_all(&mut self) {
        self.partitions.values_mut().for_each(|row| row.lease = None);
        self.duty = None;
    }
}
