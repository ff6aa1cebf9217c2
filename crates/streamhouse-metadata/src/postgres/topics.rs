//! Topics and their partitions.

use super::retry::OnLoss::Tell;
use super::session::{Failure, Session, bounded};
use super::{Asked, PostgresMetadataStore, now_ms};
use crate::check::{self, not_found};
use crate::error::{MetadataError, Result};
use crate::model::{PartitionInfo, Retention, Topic, Watermarks};
use crate::store::Topics;
use crate::stored::{self, PartitionRow};
use async_trait::async_trait;
use streamhouse_core::{TopicName, TopicPartition};

const INSERT_TOPIC: &str = concat!(
    "INSERT INTO topics (name, partitions, retention_ms, retention_bytes, created_ms) VALUES ($1, $2, $3, $4, ",
    now_ms!(),
    ") ON CONFLICT (name) DO NOTHING
    RETURNING id, created_ms"
);

const INSERT_PARTITIONS: &str =
    "INSERT INTO partitions (topic_id, partition, epoch)
     SELECT $1, n, (SELECT value FROM counters WHERE name = 'topic_epoch') FROM generate_series(0, $2 - 1) AS n";

/// Every change of a group locks its row first. Those under way, also of groups that are just coming to be, are waited for;
/// those that come later find no topic. So nothing of a topic that is gone is claimed or committed.
const LOCK_GROUPS: &str = "LOCK TABLE consumer_groups IN EXCLUSIVE MODE";

/// A commit under way holds its partitions; one that comes later finds none.
const LOCK_TOPIC: &str = "
    WITH topic AS MATERIALIZED (SELECT id FROM topics WHERE name = $1 FOR UPDATE),
    locked AS MATERIALIZED (
        SELECT p.partition FROM partitions p JOIN topic ON topic.id = p.topic_id
        ORDER BY p.topic_id, p.partition FOR UPDATE OF p)
    SELECT id, (SELECT count(*) FROM locked) FROM topic";

const KEEP_EPOCH: &str = "
    UPDATE counters SET value = greatest(value, (SELECT max(epoch) FROM partitions WHERE topic_id = $1))
    WHERE name = 'topic_epoch'";

/// A group's generation changes with its claims.
const CHANGE_GROUPS: &str = "
    UPDATE consumer_groups SET generation = generation + 1
    WHERE id IN (SELECT group_id FROM group_claims WHERE topic_id = $1)";

/// What names a topic, the topic last; upkeep removes what may be much.
const DELETE_TOPIC: [&str; 5] = [
    "DELETE FROM group_claims WHERE topic_id = $1",
    "DELETE FROM group_offsets WHERE topic_id = $1",
    "DELETE FROM partitions WHERE topic_id = $1",
    "DELETE FROM topics WHERE id = $1",
    "INSERT INTO deleted_topics (topic_id) VALUES ($1)",
];

const SET_RETENTION: &str = "
    UPDATE topics SET retention_ms = $2, retention_bytes = $3 WHERE name = $1
    RETURNING name, partitions, retention_ms, retention_bytes, created_ms";

const SELECT_TOPIC: &str =
    "SELECT name, partitions, retention_ms, retention_bytes, created_ms FROM topics WHERE name = $1";

const SELECT_TOPICS: &str =
    "SELECT name, partitions, retention_ms, retention_bytes, created_ms FROM topics ORDER BY name";

const SELECT_PARTITIONS: &str = concat!(
    "SELECT p.partition, p.log_start, p.high_watermark, p.epoch, a.name, a.address
    FROM topics t
    JOIN partitions p ON p.topic_id = t.id
    LEFT JOIN agents a ON a.id = p.agent_id AND p.expires_ms > ",
    now_ms!(),
    " WHERE t.name = $1 ORDER BY p.partition"
);

const SELECT_WATERMARKS: &str = "
    SELECT t.partitions, p.log_start, p.high_watermark
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS a (topic, partition, ord)
    LEFT JOIN topics t ON t.name = a.topic
    LEFT JOIN partitions p ON p.topic_id = t.id AND p.partition = a.partition
    ORDER BY a.ord";

#[async_trait]
impl Topics for PostgresMetadataStore {
    async fn create_topic(&self, name: &TopicName, partitions: u32, retention: Retention) -> Result<Topic> {
        check::partition_count(name, partitions)?;
        let (age_ms, bytes) = check::retention(retention)?;
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let created = bounded(insert(&mut session, name, partitions.into(), age_ms, bytes)).await;
            session.end(created).await
        };
        let created_ms = self.retry(Tell, attempt).await?;
        stored::topic((name.to_string(), partitions.into(), age_ms, bytes, created_ms))
    }

    async fn set_retention(&self, name: &TopicName, retention: Retention) -> Result<Topic> {
        let (age_ms, bytes) = check::retention(retention)?;
        let changed = self
            .change(|| sqlx::query_as(SET_RETENTION).bind(name.as_str()).bind(age_ms).bind(bytes))
            .await?
            .pop();
        stored::topic(changed.ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))?)
    }

    async fn delete_topic(&self, name: &TopicName) -> Result<()> {
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let deleted = bounded(delete(&mut session, name)).await;
            session.end(deleted).await
        };
        self.retry(Tell, attempt).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic> {
        let found = self.rows(|| sqlx::query_as(SELECT_TOPIC).bind(name.as_str())).await?.pop();
        stored::topic(found.ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))?)
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        self.rows(|| sqlx::query_as(SELECT_TOPICS)).await?.into_iter().map(stored::topic).collect()
    }

    async fn partitions(&self, name: &TopicName) -> Result<Vec<PartitionInfo>> {
        let rows: Vec<PartitionRow> =
            self.rows(|| sqlx::query_as(SELECT_PARTITIONS).bind(name.as_str())).await?;
        if rows.is_empty() {
            return Err(MetadataError::TopicNotFound(name.to_string()));
        }
        rows.into_iter().map(stored::partition_info).collect()
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let asked = Asked::from_iter(partitions);
        let rows: Vec<(Option<i64>, Option<i64>, Option<i64>)> =
            self.rows(|| sqlx::query_as(SELECT_WATERMARKS).bind(&asked.topics).bind(&asked.numbers)).await?;
        partitions
            .iter()
            .zip(rows)
            .map(|(at, (partitions, log_start, high_watermark))| match log_start.zip(high_watermark) {
                Some((log_start, high_watermark)) => stored::watermarks(log_start, high_watermark),
                None => Err(not_found(at, partitions.map(stored::unsigned).transpose()?)),
            })
            .collect()
    }
}

async fn delete(session: &mut Session, name: &TopicName) -> Result<(), Failure> {
    sqlx::query(LOCK_GROUPS).execute(session.connection()).await?;
    let found: Option<(i64, i64)> =
        sqlx::query_as(LOCK_TOPIC).bind(name.as_str()).fetch_optional(session.connection()).await?;
    let (id, _) = found.ok_or_else(|| MetadataError::TopicNotFound(name.to_string()))?;
    for statement in [KEEP_EPOCH, CHANGE_GROUPS].into_iter().chain(DELETE_TOPIC) {
        sqlx::query(statement).bind(id).execute(session.connection()).await?;
    }
    Ok(())
}

/// Creates the topic and its partitions; gives the time of it.
async fn insert(
    session: &mut Session,
    name: &TopicName,
    partitions: i64,
    age_ms: Option<i64>,
    bytes: Option<i64>,
) -> Result<i64, Failure> {
    let created: Option<(i64, i64)> = sqlx::query_as(INSERT_TOPIC)
        .bind(name.as_str())
        .bind(partitions)
        .bind(age_ms)
        .bind(bytes)
        .fetch_optional(session.connection())
        .await?;
    let (id, created_ms) = created.ok_or_else(|| MetadataError::TopicExists(name.to_string()))?;
    sqlx::query(INSERT_PARTITIONS).bind(id).bind(partitions).execute(session.connection()).await?;
    Ok(created_ms)
}
