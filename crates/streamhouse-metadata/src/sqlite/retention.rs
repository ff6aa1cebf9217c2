//! What a topic's retention lets go of, and what deleted topics have left.

use super::{SqliteMetadataStore, WRITE_RETRY_PAUSE, json, now_ms};
use crate::error::Result;
use crate::stored::{self, unsigned};
use sqlx::SqliteConnection;
use std::collections::BTreeMap;
use streamhouse_core::TopicPartition;

/// Most ranges that one transaction takes off a partition: it keeps the file's write lock for as long.
const RANGES_MAX: u32 = 256;
/// Most ranges or windows of a deleted topic that one transaction removes, for the same reason.
const LEFT_MAX: u32 = 2048;

/// Walks from range to range of each partition, as long as the next may go: by its age, or, unless it is the last, by the
/// size of what is left. `at` is where a walk stands, `remaining` the bytes from there on. Ranges are dense: the next begins
/// where one ends.
pub(super) const MOVE_LOG_STARTS: &str = concat!(
    "WITH RECURSIVE walk (topic_id, partition, at, remaining, steps) AS (
        SELECT p.topic_id, p.partition, p.log_start, p.bytes, 0
        FROM topics t CROSS JOIN partitions p ON p.topic_id = t.id
        WHERE (t.retention_ms IS NOT NULL OR t.retention_bytes IS NOT NULL) AND p.log_start < p.high_watermark
        UNION ALL
        SELECT w.topic_id, w.partition, r.end_offset, w.remaining - r.bytes, w.steps + 1
        FROM walk w
        CROSS JOIN topics t ON t.id = w.topic_id
        CROSS JOIN partitions p ON p.topic_id = w.topic_id AND p.partition = w.partition
        CROSS JOIN segment_ranges r
                ON r.topic_id = w.topic_id AND r.partition = w.partition AND r.base_offset = w.at
        CROSS JOIN segments s ON s.seq = r.segment
        WHERE w.steps < 0 + ?1
          AND (s.committed_ms < ",
    now_ms!(),
    " - t.retention_ms OR w.remaining > t.retention_bytes AND r.end_offset < p.high_watermark)),
    -- One row decides for all columns of a group that has max().
    ends (topic_id, partition, at, remaining) AS MATERIALIZED (
        SELECT topic_id, partition, max(at), remaining FROM walk WHERE steps > 0 GROUP BY topic_id, partition)
    UPDATE partitions
    SET log_start = ends.at, bytes = ends.remaining
    FROM ends
    WHERE partitions.topic_id = ends.topic_id AND partitions.partition = ends.partition
    RETURNING topic_id, partition, log_start, (SELECT name FROM topics WHERE id = topic_id)"
);

/// A row: `[topic_id, partition, log_start]`.
pub(super) const DELETE_RANGES: &str = "
    DELETE FROM segment_ranges
    WHERE (topic_id, partition, base_offset) IN (
        SELECT r.topic_id, r.partition, r.base_offset
        FROM json_each(?1) AS j
        CROSS JOIN segment_ranges r ON r.topic_id = j.value ->> 0 AND r.partition = j.value ->> 1
                                   AND r.base_offset < j.value ->> 2)
    RETURNING segment";

/// A row: `[segment, ranges gone]`.
pub(super) const COUNT_DOWN: &str = concat!(
    "UPDATE segments
    SET live_ranges = live_ranges - (j.value ->> 1),
        dead_ms = CASE live_ranges WHEN j.value ->> 1 THEN ",
    now_ms!(),
    " END
    FROM json_each(?1) AS j
    WHERE seq = j.value ->> 0"
);

/// The limits are no bare parameters for the same reason as that of the ranges.
pub(super) const DELETE_LEFT_RANGES: &str = "
    DELETE FROM segment_ranges
    WHERE (topic_id, partition, base_offset) IN (
        SELECT topic_id, partition, base_offset FROM segment_ranges WHERE topic_id = ?1 LIMIT 0 + ?2)
    RETURNING segment";

pub(super) const DELETE_LEFT_WINDOWS: &str = "
    DELETE FROM producers
    WHERE (topic_id, partition, producer_id, epoch) IN (
        SELECT topic_id, partition, producer_id, epoch FROM producers WHERE topic_id = ?1 LIMIT 0 + ?2)";

impl SqliteMetadataStore {
    /// Moves every log start as far as it may; gives what moved, with the new log start.
    pub(super) async fn move_log_starts(&self) -> Result<Vec<(TopicPartition, u64)>> {
        let mut moved = BTreeMap::new();
        loop {
            let mut transaction = self.begin().await?;
            let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(MOVE_LOG_STARTS)
                .bind(RANGES_MAX)
                .fetch_all(&mut *transaction)
                .await
                .map_err(|error| self.failed(error))?;
            if rows.is_empty() {
                return Ok(moved.into_iter().collect());
            }
            self.forget_ranges(&mut transaction, &rows).await?;
            self.commit(transaction).await?;
            for (_, partition, log_start, topic) in rows {
                moved.insert(stored::partition(&topic, partition)?, unsigned(log_start)?);
            }
        }
    }

    /// Removes the ranges below the new log starts, and counts them down in their segments.
    async fn forget_ranges(
        &self,
        connection: &mut SqliteConnection,
        moved: &[(i64, i64, i64, String)],
    ) -> Result<()> {
        let starts: Vec<_> =
            moved.iter().map(|(topic_id, partition, start, _)| (topic_id, partition, start)).collect();
        let segments: Vec<i64> = sqlx::query_scalar(DELETE_RANGES)
            .bind(json(&starts))
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        self.count_down(connection, segments).await
    }

    /// Removes what deleted topics have left: their ranges, counted down in their segments, and their windows.
    pub(super) async fn remove_left(&self) -> Result<()> {
        loop {
            let select = sqlx::query_scalar("SELECT topic_id FROM deleted_topics LIMIT 1");
            let left: Option<i64> =
                select.fetch_optional(&self.readers).await.map_err(|error| self.failed(error))?;
            let Some(topic_id) = left else { return Ok(()) };
            let mut transaction = self.begin().await?;
            self.remove_some_left(&mut transaction, topic_id).await?;
            self.commit(transaction).await?;
            // Other processes get their turn.
            tokio::time::sleep(2 * WRITE_RETRY_PAUSE).await;
        }
    }

    async fn remove_some_left(&self, connection: &mut SqliteConnection, topic_id: i64) -> Result<()> {
        let segments: Vec<i64> = sqlx::query_scalar(DELETE_LEFT_RANGES)
            .bind(topic_id)
            .bind(LEFT_MAX)
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        if !segments.is_empty() {
            return self.count_down(connection, segments).await;
        }
        let windows = sqlx::query(DELETE_LEFT_WINDOWS)
            .bind(topic_id)
            .bind(LEFT_MAX)
            .execute(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        if windows.rows_affected() == 0 {
            sqlx::query("DELETE FROM deleted_topics WHERE topic_id = ?1")
                .bind(topic_id)
                .execute(connection)
                .await
                .map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Counts ranges that are gone down in their segments, of which each is named once a range.
    async fn count_down(&self, connection: &mut SqliteConnection, segments: Vec<i64>) -> Result<()> {
        let mut gone: BTreeMap<i64, u32> = BTreeMap::new();
        segments.into_iter().for_each(|segment| *gone.entry(segment).or_default() += 1);
        sqlx::query(COUNT_DOWN)
            .bind(json(&gone.into_iter().collect::<Vec<_>>()))
            .execute(connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }
}
