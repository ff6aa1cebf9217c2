//! Topics and their partitions.

use super::{SqliteMetadataStore, json_partitions, not_found, now_ms, stored_name, unsigned};
use crate::error::{MetadataError, Result};
use crate::model::{LeaseHolder, PartitionInfo, Retention, Topic, Watermarks};
use crate::store::Topics;
use async_trait::async_trait;
use streamhouse_core::limits::PARTITIONS_MAX;
use streamhouse_core::{TopicName, TopicPartition};

const INSERT_TOPIC: &str = concat!(
    "INSERT INTO topics (name, partitions, created_ms) VALUES (?1, ?2, ",
    now_ms!(),
    ") ON CONFLICT (name) DO NOTHING RETURNING id, created_ms"
);

const INSERT_PARTITIONS: &str = "
    INSERT INTO partitions (topic_id, partition)
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
    SELECT ?1, n FROM numbers";

const SELECT_PARTITIONS: &str = concat!(
    "SELECT p.partition, p.log_start, p.high_watermark, p.epoch, a.name, a.address
    FROM topics t
    CROSS JOIN partitions p ON p.topic_id = t.id
    LEFT JOIN agents a ON a.id = p.agent_id AND p.expires_ms > ",
    now_ms!(),
    " WHERE t.name = ?1 ORDER BY p.partition"
);

pub(super) const SELECT_WATERMARKS: &str = "
    SELECT t.partitions, p.log_start, p.high_watermark
    FROM json_each(?1) AS j
    LEFT JOIN topics t ON t.name = j.value ->> 0
    LEFT JOIN partitions p ON p.topic_id = t.id AND p.partition = j.value ->> 1
    ORDER BY j.key";

#[async_trait]
impl Topics for SqliteMetadataStore {
    async fn create_topic(&self, name: &TopicName, partitions: u32, retention: Retention) -> Result<Topic> {
        if partitions == 0 || partitions > PARTITIONS_MAX {
            return Err(MetadataError::Invalid(format!(
                "topic {name} cannot have {partitions} partitions; choose 1 to {PARTITIONS_MAX}"
            )));
        }
        let mut transaction = self.begin().await?;
        let created: Option<(i64, i64)> = sqlx::query_as(INSERT_TOPIC)
            .bind(name.as_str())
            .bind(partitions)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let Some((id, created_ms)) = created else {
            return Err(MetadataError::TopicExists(name.to_string()));
        };
        sqlx::query(INSERT_PARTITIONS)
            .bind(id)
            .bind(partitions)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        Ok(Topic { name: name.clone(), partitions, retention, created_ms })
    }

    async fn set_retention(&self, _name: &TopicName, _retention: Retention) -> Result<Topic> {
        Err(super::not_built())
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic> {
        let found: Option<(i64, i64)> =
            sqlx::query_as("SELECT partitions, created_ms FROM topics WHERE name = ?1")
                .bind(name.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(|error| self.failed(error))?;
        let (partitions, created_ms) = found.ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))?;
        Ok(Topic {
            name: name.clone(),
            partitions: unsigned(partitions)?,
            retention: Retention::default(),
            created_ms,
        })
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        let rows: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT name, partitions, created_ms FROM topics ORDER BY name")
                .fetch_all(&self.readers)
                .await
                .map_err(|error| self.failed(error))?;
        rows.into_iter()
            .map(|(name, partitions, created_ms)| {
                Ok(Topic {
                    name: stored_name(&name)?,
                    partitions: unsigned(partitions)?,
                    retention: Retention::default(),
                    created_ms,
                })
            })
            .collect()
    }

    async fn partitions(&self, name: &TopicName) -> Result<Vec<PartitionInfo>> {
        type Row = (i64, i64, i64, i64, Option<String>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(SELECT_PARTITIONS)
            .bind(name.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        if rows.is_empty() {
            return Err(MetadataError::TopicNotFound(name.to_string()));
        }
        rows.into_iter()
            .map(|(partition, log_start, high_watermark, epoch, agent, address)| {
                let holder = match agent.zip(address) {
                    Some((agent, address)) => {
                        Some(LeaseHolder { agent: stored_name(&agent)?, address, epoch: unsigned(epoch)? })
                    }
                    None => None,
                };
                let watermarks = watermarks(log_start, high_watermark)?;
                Ok(PartitionInfo { partition: unsigned(partition)?, watermarks, holder })
            })
            .collect()
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let rows: Vec<(Option<u32>, Option<i64>, Option<i64>)> = sqlx::query_as(SELECT_WATERMARKS)
            .bind(json_partitions(partitions))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        partitions
            .iter()
            .zip(rows)
            .map(|(at, (partitions, log_start, high_watermark))| match log_start.zip(high_watermark) {
                Some((log_start, high_watermark)) => watermarks(log_start, high_watermark),
                None => Err(not_found(at, partitions)),
            })
            .collect()
    }
}

pub(super) fn watermarks(log_start: i64, high_watermark: i64) -> Result<Watermarks> {
    Ok(Watermarks { log_start: unsigned(log_start)?, high_watermark: unsigned(high_watermark)? })
}
