//! What a topic's retention lets go of, and what deleted topics have left.

use super::retry::OnLoss::Repeat;
use super::session::{Failure, Session, bounded};
use super::{PostgresMetadataStore, clock};
use crate::error::Result;
use crate::stored::{self, unsigned};
use std::collections::BTreeMap;
use streamhouse_core::TopicPartition;

/// Most ranges that one transaction takes off a partition: it keeps the partition locked for as long.
const RANGES_MAX: i64 = 256;
/// Most ranges or windows of a deleted topic that one transaction removes: it keeps its segments locked for as long.
const LEFT_MAX: i64 = 2048;

/// Ranges go by one transaction at a time: two could take the same, and lock segments in different orders.
const LOCK_RETENTION: &str = "SELECT 1 FROM duties WHERE name = 'upkeep' FOR NO KEY UPDATE";

/// Walks from range to range of each partition, as long as the next may go: by its age, or, unless it is the last, by the
/// size of what is left. `at` is where a walk stands, `gone` the bytes before it. Ranges are dense: the next begins where
/// one ends. What may go now may go later too, so nothing is locked yet.
const SELECT_LOG_STARTS: &str = concat!(
    "WITH RECURSIVE ",
    clock!(),
    ", walk (topic_id, partition, at, gone, steps) AS (
        SELECT p.topic_id, p.partition, p.log_start, 0::bigint, 0::bigint
        FROM topics t JOIN partitions p ON p.topic_id = t.id
        WHERE (t.retention_ms IS NOT NULL OR t.retention_bytes IS NOT NULL) AND p.log_start < p.high_watermark
        UNION ALL
        SELECT w.topic_id, w.partition, r.end_offset, w.gone + r.bytes, w.steps + 1
        FROM walk w
        CROSS JOIN clock
        JOIN topics t ON t.id = w.topic_id
        JOIN partitions p ON p.topic_id = w.topic_id AND p.partition = w.partition
        CROSS JOIN LATERAL (
            SELECT end_offset, bytes, (SELECT committed_ms FROM segments WHERE seq = segment) AS committed_ms
            FROM segment_ranges
            WHERE topic_id = w.topic_id AND partition = w.partition AND base_offset = w.at
            LIMIT 1) AS r
        WHERE w.steps < $1
          AND (r.committed_ms < clock.now_ms - t.retention_ms
               OR p.bytes - w.gone > t.retention_bytes AND r.end_offset < p.high_watermark))
    SELECT DISTINCT ON (w.topic_id, w.partition) w.topic_id, w.partition, t.name, w.at, w.gone
    FROM walk w JOIN topics t ON t.id = w.topic_id
    WHERE w.steps > 0
    ORDER BY w.topic_id, w.partition, w.steps DESC"
);

/// In the order of their keys.
const LOCK_PARTITIONS: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM unnest($1::bigint[], $2::bigint[]) AS e (topic_id, partition)
        JOIN partitions p ON p.topic_id = e.topic_id AND p.partition = e.partition
        ORDER BY p.topic_id, p.partition
        FOR NO KEY UPDATE OF p) AS locked";

/// Moves the log starts, removes the ranges below them, and counts those down in their segments.
const MOVE_LOG_STARTS: &str = concat!(
    "WITH ",
    clock!(),
    ", ends AS MATERIALIZED (
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                      AS e (topic_id, partition, log_start, gone)),
    moved AS (
        UPDATE partitions p SET log_start = ends.log_start, bytes = p.bytes - ends.gone
        FROM ends WHERE p.topic_id = ends.topic_id AND p.partition = ends.partition),
    removed AS (
        DELETE FROM segment_ranges r USING ends
        WHERE r.topic_id = ends.topic_id AND r.partition = ends.partition AND r.base_offset < ends.log_start
        RETURNING r.segment),
    counted AS (SELECT segment, count(*) AS ranges FROM removed GROUP BY segment)
    UPDATE segments s
    SET live_ranges = s.live_ranges - counted.ranges,
        dead_ms = CASE WHEN s.live_ranges = counted.ranges THEN clock.now_ms END
    FROM counted, clock
    WHERE s.seq = counted.segment"
);

/// Gives the last range that is gone. It begins behind the last of before: rows that were just removed stay in the index for
/// a while, and to pass them over again and again would take longer each time.
const DELETE_LEFT_RANGES: &str = concat!(
    "WITH ",
    clock!(),
    ", gone AS MATERIALIZED (
        SELECT partition, base_offset FROM segment_ranges
        WHERE topic_id = $1 AND (partition, base_offset) > ($2, $3)
        ORDER BY partition, base_offset LIMIT $4),
    removed AS (
        DELETE FROM segment_ranges r USING gone
        WHERE r.topic_id = $1 AND r.partition = gone.partition AND r.base_offset = gone.base_offset
        RETURNING r.segment),
    counted AS (SELECT segment, count(*) AS ranges FROM removed GROUP BY segment),
    counted_down AS (
        UPDATE segments s
        SET live_ranges = s.live_ranges - counted.ranges,
            dead_ms = CASE WHEN s.live_ranges = counted.ranges THEN clock.now_ms END
        FROM counted, clock
        WHERE s.seq = counted.segment)
    SELECT partition, base_offset FROM gone ORDER BY partition DESC, base_offset DESC LIMIT 1"
);

const DELETE_LEFT_WINDOWS: &str = "
    DELETE FROM producers
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM producers WHERE topic_id = $1 LIMIT $2))";

/// Topic id, partition, topic, new log start, bytes below it.
type Moved = (i64, i64, String, i64, i64);

impl PostgresMetadataStore {
    /// Moves every log start as far as it may; gives what moved, with the new log start.
    pub(super) async fn move_log_starts(&self) -> Result<Vec<(TopicPartition, u64)>> {
        let mut moved = BTreeMap::new();
        loop {
            let attempt = move || async move {
                let mut session = self.begin().await?;
                let work = bounded(move_some(&mut session)).await;
                session.end(work).await
            };
            let rows = self.retry(Repeat, attempt).await?;
            if rows.is_empty() {
                return Ok(moved.into_iter().collect());
            }
            for (_, partition, topic, log_start, _) in rows {
                moved.insert(stored::partition(&topic, partition)?, unsigned(log_start)?);
            }
        }
    }
}

impl PostgresMetadataStore {
    /// Removes what deleted topics have left: their ranges, counted down in their segments, and their windows.
    pub(super) async fn remove_left(&self) -> Result<()> {
        let select = || sqlx::query_as("SELECT topic_id FROM deleted_topics ORDER BY topic_id");
        let left: Vec<(i64,)> = self.rows(select).await?;
        for (topic_id,) in left {
            let mut next = Some(NOTHING_GONE);
            while let Some(after) = next {
                let attempt = move || async move {
                    let mut session = self.begin().await?;
                    let work = bounded(remove_some_left(&mut session, topic_id, after)).await;
                    session.end(work).await
                };
                next = self.retry(Repeat, attempt).await?;
            }
        }
        Ok(())
    }
}

/// Partition and base offset: before every range.
const NOTHING_GONE: (i64, i64) = (-1, -1);

/// Gives the last range that is gone; `None` when nothing of the topic is left.
async fn remove_some_left(
    session: &mut Session,
    topic_id: i64,
    after: (i64, i64),
) -> Result<Option<(i64, i64)>, Failure> {
    sqlx::query(LOCK_RETENTION).execute(session.connection()).await?;
    let last: Option<(i64, i64)> = sqlx::query_as(DELETE_LEFT_RANGES)
        .bind(topic_id)
        .bind(after.0)
        .bind(after.1)
        .bind(LEFT_MAX)
        .fetch_optional(session.connection())
        .await?;
    if last.is_some() {
        return Ok(last);
    }
    let windows = sqlx::query(DELETE_LEFT_WINDOWS).bind(topic_id).bind(LEFT_MAX);
    if windows.execute(session.connection()).await?.rows_affected() > 0 {
        return Ok(Some(after));
    }
    sqlx::query("DELETE FROM deleted_topics WHERE topic_id = $1")
        .bind(topic_id)
        .execute(session.connection())
        .await?;
    Ok(None)
}

async fn move_some(session: &mut Session) -> Result<Vec<Moved>, Failure> {
    sqlx::query(LOCK_RETENTION).execute(session.connection()).await?;
    let rows: Vec<Moved> =
        sqlx::query_as(SELECT_LOG_STARTS).bind(RANGES_MAX).fetch_all(session.connection()).await?;
    if rows.is_empty() {
        return Ok(rows);
    }
    let column = |number: fn(&Moved) -> i64| rows.iter().map(number).collect::<Vec<_>>();
    let (topics, partitions) = (column(|row| row.0), column(|row| row.1));
    sqlx::query(LOCK_PARTITIONS).bind(&topics).bind(&partitions).execute(session.connection()).await?;
    sqlx::query(MOVE_LOG_STARTS)
        .bind(&topics)
        .bind(&partitions)
        .bind(column(|row| row.3))
        .bind(column(|row| row.4))
        .execute(session.connection())
        .await?;
    Ok(rows)
}
