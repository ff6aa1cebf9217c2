//! Duties, dead segments, and every group's lag.

use super::groups::lag_ms;
use super::{SqliteMetadataStore, json, json_partitions, now_ms};
use crate::check::{millis, not_registered, term_ms};
use crate::error::Result;
use crate::model::{DeadSegment, Duty, GroupOffset};
use crate::store::Upkeep;
use crate::stored;
use async_trait::async_trait;
use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicPartition};

const TAKE_DUTY: &str = concat!(
    "INSERT INTO duties (name, agent_id, expires_ms) VALUES (?1, ?2, ?3 + ",
    now_ms!(),
    ") ON CONFLICT DO UPDATE SET agent_id = excluded.agent_id, expires_ms = excluded.expires_ms
    WHERE duties.agent_id = excluded.agent_id OR duties.expires_ms <= ",
    now_ms!()
);

pub(super) const RELEASE_DUTIES: &str =
    "DELETE FROM duties WHERE agent_id = (SELECT id FROM agents WHERE name = ?1)";

/// The limit is no bare parameter for the same reason as that of the ranges.
pub(super) const SELECT_DEAD: &str = concat!(
    "SELECT id, object FROM segments WHERE dead_ms IS NOT NULL AND dead_ms <= ",
    now_ms!(),
    " - ?1 ORDER BY dead_ms LIMIT 0 + ?2"
);

/// Ids as 32 hexadecimal digits each.
pub(super) const FORGET: &str = "
    DELETE FROM segments
    WHERE dead_ms IS NOT NULL AND id IN (SELECT unhex(value) FROM json_each(?1))";

pub(super) const SELECT_LAGS: &str = concat!(
    "SELECT g.name, j.key, p.log_start, p.high_watermark, o.committed, ",
    lag_ms!(),
    " FROM json_each(?1) AS j
    CROSS JOIN topics t ON t.name = j.value ->> 0
    CROSS JOIN partitions p ON p.topic_id = t.id AND p.partition = j.value ->> 1
    CROSS JOIN group_offsets o ON o.topic_id = p.topic_id AND o.partition = p.partition
    CROSS JOIN consumer_groups g ON g.id = o.group_id
    ORDER BY g.name, t.name, p.partition"
);

#[async_trait]
impl Upkeep for SqliteMetadataStore {
    async fn take_duty(&self, duty: Duty, agent: &AgentId, term: Duration) -> Result<bool> {
        let term_ms = term_ms("duty's term", term)?;
        let mut transaction = self.begin().await?;
        let id: Option<i64> = sqlx::query_scalar("SELECT id FROM agents WHERE name = ?1")
            .bind(agent.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let taken = sqlx::query(TAKE_DUTY)
            .bind(stored::duty(duty))
            .bind(id.ok_or_else(|| not_registered(agent))?)
            .bind(term_ms)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        Ok(taken.rows_affected() > 0)
    }

    async fn apply_retention(&self) -> Result<Vec<(TopicPartition, u64)>> {
        self.remove_left().await?;
        self.move_log_starts().await
    }

    async fn dead_segments(&self, grace: Duration, max: u32) -> Result<Vec<DeadSegment>> {
        let rows: Vec<(Vec<u8>, String)> = sqlx::query_as(SELECT_DEAD)
            .bind(millis(grace))
            .bind(max)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter()
            .map(|(id, object)| Ok(DeadSegment { segment: stored::segment_id(&id)?, object }))
            .collect()
    }

    async fn forget_segments(&self, segments: &[SegmentId]) -> Result<()> {
        if segments.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = segments.iter().map(SegmentId::to_string).collect();
        let mut transaction = self.begin().await?;
        sqlx::query(FORGET)
            .bind(json(&asked))
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }

    async fn group_lags(&self, partitions: &[TopicPartition]) -> Result<Vec<(GroupId, GroupOffset)>> {
        type Row = (String, i64, i64, i64, Option<i64>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(SELECT_LAGS)
            .bind(json_partitions(partitions))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter()
            .map(|(group, index, log_start, high_watermark, committed, lag_ms)| {
                let at = partitions[stored::unsigned::<usize>(index)?].clone();
                let ends = (log_start, high_watermark);
                Ok((stored::name(&group)?, stored::group_offset(at, ends, committed, lag_ms)?))
            })
            .collect()
    }
}
