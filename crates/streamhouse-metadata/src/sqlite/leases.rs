//! Leases. A lease is its partition's row: holder, epoch and the time it ends.

use super::{SqliteMetadataStore, json, json_partitions, now_ms};
use crate::check::{PRODUCER_SILENCE_MAX, millis, not_registered, term_ms};
use crate::error::Result;
use crate::model::{Lease, LeaseRow, ProducerState};
use crate::store::Leases;
use crate::stored::{self, LeaseTableRow, unsigned};
use async_trait::async_trait;
use sqlx::SqliteConnection;
use std::collections::HashMap;
use std::time::Duration;
use streamhouse_core::{AgentId, TopicPartition};

const SELECT_LEASES: &str = concat!(
    "SELECT t.name, p.partition, (SELECT name FROM agents WHERE id = p.agent_id AND p.expires_ms > ",
    now_ms!(),
    "), p.epoch
    FROM topics t CROSS JOIN partitions p ON p.topic_id = t.id
    ORDER BY t.name, p.partition"
);

const SELECT_ANY_FREE: &str =
    concat!("SELECT EXISTS (SELECT 1 FROM partitions WHERE expires_ms <= ", now_ms!(), ")");

/// Materialized for the same reason as [`RENEW`]'s.
pub(super) const GRANT: &str = concat!(
    "WITH asked (topic_id, partition) AS MATERIALIZED (
        SELECT t.id, j.value ->> 1 FROM json_each(?3) AS j CROSS JOIN topics t ON t.name = j.value ->> 0)
    UPDATE partitions
    SET agent_id = ?1, epoch = epoch + 1, expires_ms = ?2 + ",
    now_ms!(),
    " FROM asked
    WHERE partitions.topic_id = asked.topic_id
      AND partitions.partition = asked.partition
      AND partitions.expires_ms <= ",
    now_ms!(),
    " RETURNING partitions.topic_id, partitions.partition, epoch, log_start, high_watermark,
              (SELECT name FROM topics WHERE id = partitions.topic_id)"
);

const FORGET_SILENT_PRODUCERS: &str = concat!(
    "DELETE FROM producers
    WHERE updated_ms < ",
    now_ms!(),
    " - ?2 AND (topic_id, partition) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))"
);

pub(super) const SELECT_PRODUCERS: &str = "
    SELECT j.key, p.producer_id, p.epoch, p.batches
    FROM json_each(?1) AS j
    CROSS JOIN producers p ON p.topic_id = j.value ->> 0 AND p.partition = j.value ->> 1
    ORDER BY j.key, p.producer_id, p.epoch";

/// Materialized, because the planner would otherwise read all partitions and go through the list for each.
pub(super) const RENEW: &str = concat!(
    "WITH asked (topic_id, partition, epoch) AS MATERIALIZED (
        SELECT t.id, j.value ->> 1, j.value ->> 2
        FROM json_each(?1) AS j CROSS JOIN topics t ON t.name = j.value ->> 0)
    UPDATE partitions
    SET expires_ms = ?2 + ",
    now_ms!(),
    " FROM asked
    WHERE partitions.topic_id = asked.topic_id
      AND partitions.partition = asked.partition
      AND partitions.epoch = asked.epoch
      AND partitions.agent_id = (SELECT id FROM agents WHERE name = ?3)
      AND partitions.expires_ms > ",
    now_ms!(),
    " RETURNING (SELECT name FROM topics WHERE id = topic_id), partition"
);

/// A row asked: `[topic, partition, epoch]`. Materialized for the same reason as [`RENEW`]'s.
pub(super) const RELEASE: &str = "
    WITH asked (topic_id, partition, epoch) AS MATERIALIZED (
        SELECT t.id, j.value ->> 1, j.value ->> 2
        FROM json_each(?1) AS j CROSS JOIN topics t ON t.name = j.value ->> 0)
    UPDATE partitions
    SET agent_id = NULL, expires_ms = 0
    FROM asked
    WHERE partitions.topic_id = asked.topic_id
      AND partitions.partition = asked.partition
      AND partitions.epoch = asked.epoch
      AND partitions.agent_id = (SELECT id FROM agents WHERE name = ?2)";

/// Takes the agent's leases away; no other statement may leave a lease without its holder.
pub(super) const RELEASE_ALL: &str = "
    UPDATE partitions SET agent_id = NULL, expires_ms = 0
    WHERE agent_id = (SELECT id FROM agents WHERE name = ?1)";

const EXPIRE_ALL: &str = "UPDATE partitions SET agent_id = NULL, expires_ms = 0 WHERE agent_id IS NOT NULL";

#[async_trait]
impl Leases for SqliteMetadataStore {
    async fn lease_table(&self) -> Result<Vec<LeaseRow>> {
        let rows: Vec<LeaseTableRow> = sqlx::query_as(SELECT_LEASES)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter().map(stored::lease_row).collect()
    }

    async fn any_lease_free(&self) -> Result<bool> {
        sqlx::query_scalar(SELECT_ANY_FREE).fetch_one(&self.readers).await.map_err(|error| self.failed(error))
    }

    async fn acquire_leases(
        &self,
        agent: &AgentId,
        term: Duration,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Lease>> {
        let term_ms = term_ms("lease term", term)?;
        let mut transaction = self.begin().await?;
        let id: Option<i64> = sqlx::query_scalar("SELECT id FROM agents WHERE name = ?1")
            .bind(agent.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let id = id.ok_or_else(|| not_registered(agent))?;
        let rows: Vec<Granted> = sqlx::query_as(GRANT)
            .bind(id)
            .bind(term_ms)
            .bind(json_partitions(wanted))
            .fetch_all(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let mut producers = self.producers(&mut transaction, &rows).await?;
        self.commit(transaction).await?;
        rows.into_iter()
            .enumerate()
            .map(|(index, (_, partition, epoch, log_start, high_watermark, topic))| {
                Ok(Lease {
                    partition: stored::partition(&topic, partition)?,
                    epoch: unsigned(epoch)?,
                    watermarks: stored::watermarks(log_start, high_watermark)?,
                    producers: producers.remove(&index).unwrap_or_default(),
                })
            })
            .collect()
    }

    async fn renew_leases(
        &self,
        agent: &AgentId,
        leases: &[(TopicPartition, u64)],
        term: Duration,
    ) -> Result<Vec<TopicPartition>> {
        let term_ms = term_ms("lease term", term)?;
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin().await?;
        let rows: Vec<(String, i64)> = sqlx::query_as(RENEW)
            .bind(json_leases(leases))
            .bind(term_ms)
            .bind(agent.as_str())
            .fetch_all(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        rows.iter().map(|(topic, partition)| stored::partition(topic, *partition)).collect()
    }

    async fn release_leases(&self, agent: &AgentId, leases: &[(TopicPartition, u64)]) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        sqlx::query(RELEASE)
            .bind(json_leases(leases))
            .bind(agent.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }

    async fn release_all_leases(&self, agent: &AgentId) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(RELEASE_ALL)
            .bind(agent.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }

    async fn expire_all_leases(&self) -> Result<()> {
        let mut transaction = self.begin().await?;
        for statement in [EXPIRE_ALL, "DELETE FROM duties"] {
            sqlx::query(statement).execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        }
        self.commit(transaction).await
    }
}

/// Leases as one parameter: `[[topic, partition, epoch], ...]`.
fn json_leases(leases: &[(TopicPartition, u64)]) -> String {
    let rows: Vec<_> = leases.iter().map(|(at, epoch)| (at.topic.as_str(), at.partition, epoch)).collect();
    json(&rows)
}

/// Topic id, partition, epoch, log start, high watermark, topic.
type Granted = (i64, i64, i64, i64, i64, String);

impl SqliteMetadataStore {
    /// The producers of the granted partitions, by the position of the grant.
    async fn producers(
        &self,
        connection: &mut SqliteConnection,
        granted: &[Granted],
    ) -> Result<HashMap<usize, Vec<ProducerState>>> {
        let partitions: Vec<_> = granted.iter().map(|row| (row.0, row.1)).collect();
        let partitions = json(&partitions);
        sqlx::query(FORGET_SILENT_PRODUCERS)
            .bind(&partitions)
            .bind(millis(PRODUCER_SILENCE_MAX))
            .execute(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(SELECT_PRODUCERS)
            .bind(&partitions)
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        let mut producers: HashMap<usize, Vec<ProducerState>> = HashMap::new();
        for (index, producer_id, epoch, batches) in rows {
            let (producer_id, epoch) = (unsigned(producer_id)?, unsigned(epoch)?);
            let state = ProducerState { producer_id, epoch, batches: stored::window(&batches)? };
            producers.entry(unsigned(index)?).or_default().push(state);
        }
        Ok(producers)
    }
}
