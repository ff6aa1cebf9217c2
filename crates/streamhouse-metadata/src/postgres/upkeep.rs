//! Duties, dead segments, and every group's lag.

use super::agents::registered;
use super::groups::lag_ms;
use super::retry::OnLoss::Repeat;
use super::session::bounded;
use super::{Asked, PostgresMetadataStore, asked, clock, now_ms};
use crate::check::{millis, term_ms};
use crate::error::Result;
use crate::model::{DeadSegment, Duty, GroupOffset};
use crate::store::Upkeep;
use crate::stored::{self, id_bytes};
use async_trait::async_trait;
use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicPartition};

const LOCK_DUTY: &str = "SELECT name FROM duties WHERE name = $1 FOR NO KEY UPDATE";

const TAKE_DUTY: &str = concat!(
    "WITH ",
    clock!(),
    " UPDATE duties SET agent_id = $2, expires_ms = clock.now_ms + $3
    FROM clock
    WHERE name = $1 AND (agent_id = $2 OR expires_ms <= clock.now_ms)"
);

const SELECT_DEAD: &str = concat!(
    "SELECT id, object FROM segments WHERE dead_ms <= ",
    now_ms!(),
    " - $1 ORDER BY dead_ms, seq LIMIT $2"
);

const FORGET: &str = "
    DELETE FROM segments WHERE id = ANY ($1::bytea[]) AND dead_ms IS NOT NULL RETURNING seq";

const SELECT_LAGS: &str = concat!(
    "WITH ",
    asked!(),
    " SELECT g.name, asked.ord - 1, p.log_start, p.high_watermark, o.committed, ",
    lag_ms!(),
    " FROM asked
    JOIN partitions p ON p.topic_id = asked.topic_id AND p.partition = asked.partition
    JOIN group_offsets o ON o.topic_id = p.topic_id AND o.partition = p.partition
    JOIN consumer_groups g ON g.id = o.group_id
    ORDER BY g.name, asked.topic, asked.partition"
);

#[async_trait]
impl Upkeep for PostgresMetadataStore {
    async fn take_duty(&self, duty: Duty, agent: &AgentId, term: Duration) -> Result<bool> {
        let term_ms = term_ms("duty's term", term)?;
        let name = stored::duty(duty);
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let taken = bounded(async {
                let id = registered(&mut session, agent).await?;
                sqlx::query(LOCK_DUTY).bind(name).execute(session.connection()).await?;
                let take = sqlx::query(TAKE_DUTY).bind(name).bind(id).bind(term_ms);
                Ok(take.execute(session.connection()).await?.rows_affected() > 0)
            });
            let taken = taken.await;
            session.end(taken).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn apply_retention(&self) -> Result<Vec<(TopicPartition, u64)>> {
        self.remove_left().await?;
        self.move_log_starts().await
    }

    async fn dead_segments(&self, grace: Duration, max: u32) -> Result<Vec<DeadSegment>> {
        let select = || sqlx::query_as(SELECT_DEAD).bind(millis(grace)).bind(i64::from(max));
        let rows: Vec<(Vec<u8>, String)> = self.rows(select).await?;
        rows.into_iter()
            .map(|(id, object)| Ok(DeadSegment { segment: stored::segment_id(&id)?, object }))
            .collect()
    }

    async fn forget_segments(&self, segments: &[SegmentId]) -> Result<()> {
        if segments.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = segments.iter().copied().map(id_bytes).collect();
        let _: Vec<(i64,)> = self.change(|| sqlx::query_as(FORGET).bind(&ids)).await?;
        Ok(())
    }

    async fn group_lags(&self, partitions: &[TopicPartition]) -> Result<Vec<(GroupId, GroupOffset)>> {
        type Row = (String, i64, i64, i64, Option<i64>, Option<i64>);
        let asked = Asked::from_iter(partitions);
        let select = || sqlx::query_as(SELECT_LAGS).bind(&asked.topics).bind(&asked.numbers);
        let rows: Vec<Row> = self.rows(select).await?;
        rows.into_iter()
            .map(|(group, index, log_start, high_watermark, committed, lag_ms)| {
                let at = partitions[stored::unsigned::<usize>(index)?].clone();
                let ends = (log_start, high_watermark);
                Ok((stored::name(&group)?, stored::group_offset(at, ends, committed, lag_ms)?))
            })
            .collect()
    }
}
