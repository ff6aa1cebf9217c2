//! Topics and their partitions.

use super::{SqliteMetadataStore, json_partitions, now_ms};
use crate::check::{self, not_found};
use crate::error::{MetadataError, Result};
use crate::model::{PartitionInfo, Retention, Topic, Watermarks};
use crate::store::Topics;
use crate::stored::{self, PartitionRow, TopicRow};
use async_trait::async_trait;
use streamhouse_core::{TopicName, TopicPartition};

/// Under an id that nothing is left of: SQLite by itself gives the last one again.
const INSERT_TOPIC: &str = concat!(
    "INSERT INTO topics (id, name, partitions, retention_ms, retention_bytes, created_ms)
    VALUES ((SELECT max(id) + 1 FROM (SELECT id FROM topics UNION ALL SELECT topic_id FROM deleted_topics)),
            ?1, ?2, ?3, ?4, ",
    now_ms!(),
    ") ON CONFLICT (name) DO NOTHING RETURNING id, created_ms"
);

const SET_RETENTION: &str = "
    UPDATE topics SET retention_ms = ?2, retention_bytes = ?3 WHERE name = ?1
    RETURNING name, partitions, retention_ms, retention_bytes, created_ms";

const SELECT_TOPIC: &str =
    "SELECT name, partitions, retention_ms, retention_bytes, created_ms FROM topics WHERE name = ?1";

const SELECT_TOPICS: &str =
    "SELECT name, partitions, retention_ms, retention_bytes, created_ms FROM topics ORDER BY name";

const INSERT_PARTITIONS: &str = "
    INSERT INTO partitions (topic_id, partition, epoch)
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
    SELECT ?1, n, (SELECT value FROM counters WHERE name = 'topic_epoch') FROM numbers";

const SELECT_ID: &str = "SELECT id FROM topics WHERE name = ?1";

const KEEP_EPOCH: &str = "
    UPDATE counters SET value = max(value, (SELECT max(epoch) FROM partitions WHERE topic_id = ?1))
    WHERE name = 'topic_epoch'";

/// A group's generation changes with its claims.
const CHANGE_GROUPS: &str = "
    UPDATE consumer_groups SET generation = generation + 1
    WHERE id IN (SELECT group_id FROM group_claims WHERE topic_id = ?1)";

/// What is kept of a topic, then what names it, the topic last; upkeep removes what may be much.
const DELETE_TOPIC: [&str; 7] = [
    KEEP_EPOCH,
    CHANGE_GROUPS,
    "DELETE FROM group_claims WHERE topic_id = ?1",
    "DELETE FROM group_offsets WHERE topic_id = ?1",
    "DELETE FROM partitions WHERE topic_id = ?1",
    "DELETE FROM topics WHERE id = ?1",
    "INSERT INTO deleted_topics (topic_id) VALUES (?1)",
];

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
        check::partition_count(name, partitions)?;
        let (age_ms, bytes) = check::retention(retention)?;
        let mut transaction = self.begin().await?;
        let created: Option<(i64, i64)> = sqlx::query_as(INSERT_TOPIC)
            .bind(name.as_str())
            .bind(partitions)
            .bind(age_ms)
            .bind(bytes)
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
        stored::topic((name.to_string(), partitions.into(), age_ms, bytes, created_ms))
    }

    async fn set_retention(&self, name: &TopicName, retention: Retention) -> Result<Topic> {
        let (age_ms, bytes) = check::retention(retention)?;
        let mut transaction = self.begin().await?;
        let changed: Option<TopicRow> = sqlx::query_as(SET_RETENTION)
            .bind(name.as_str())
            .bind(age_ms)
            .bind(bytes)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let changed = changed.ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))?;
        self.commit(transaction).await?;
        stored::topic(changed)
    }

    async fn delete_topic(&self, name: &TopicName) -> Result<()> {
        let mut transaction = self.begin().await?;
        let found: Option<i64> = sqlx::query_scalar(SELECT_ID)
            .bind(name.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let id = found.ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))?;
        self.execute_each(&mut transaction, &DELETE_TOPIC, id).await?;
        self.commit(transaction).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic> {
        let found: Option<TopicRow> = sqlx::query_as(SELECT_TOPIC)
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        stored::topic(found.ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))?)
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        let rows: Vec<TopicRow> = sqlx::query_as(SELECT_TOPICS)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter().map(stored::topic).collect()
    }

    async fn partitions(&self, name: &TopicName) -> Result<Vec<PartitionInfo>> {
        let rows: Vec<PartitionRow> = sqlx::query_as(SELECT_PARTITIONS)
            .bind(name.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        if rows.is_empty() {
            return Err(MetadataError::TopicNotFound(name.to_string()));
        }
        rows.into_iter().map(stored::partition_info).collect()
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
                Some((log_start, high_watermark)) => stored::watermarks(log_start, high_watermark),
                None => Err(not_found(at, partitions)),
            })
            .collect()
    }
}
