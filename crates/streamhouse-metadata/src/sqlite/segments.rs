//! Flushes: committed, looked up, read.

use super::{SqliteMetadataStore, json, now_ms};
use crate::check::{self, signed};
use crate::error::{MetadataError, Result};
use crate::model::{Flush, FlushRange, ProducerState, RangeOutcome, SegmentRange};
use crate::store::{SegmentRanges, Segments, Topics};
use crate::stored::{self, RangeRow, id_bytes, outcome};
use async_trait::async_trait;
use sqlx::SqliteConnection;
use std::collections::{HashMap, HashSet};
use streamhouse_core::{SegmentId, TopicPartition};

/// As if every range stood. Nothing is returned when the segment is there already.
const INSERT_SEGMENT: &str = concat!(
    "INSERT INTO segments (id, object, object_bytes, agent, live_ranges, committed_ms) VALUES (?1, ?2, ?3, ?4, ?5, ",
    now_ms!(),
    ") ON CONFLICT (id) DO NOTHING RETURNING seq, committed_ms"
);

/// For a segment with fenced ranges.
const COUNT_STANDING: &str =
    "UPDATE segments SET live_ranges = ?2, dead_ms = CASE ?2 WHEN 0 THEN committed_ms END WHERE seq = ?1";

/// Invariants 1 and 2 in one statement: what it returns stands, what it leaves out is fenced.
/// A row asked: `[topic, partition, epoch, base_offset, end_offset, bytes]`. Materialized, because the planner would otherwise
/// read all partitions and go through the list for each.
pub(super) const MOVE_HIGH_WATERMARKS: &str = "
    WITH asked (topic_id, partition, epoch, base_offset, end_offset, bytes) AS MATERIALIZED (
        SELECT t.id, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5
        FROM json_each(?1) AS j CROSS JOIN topics t ON t.name = j.value ->> 0)
    UPDATE partitions
    SET high_watermark = asked.end_offset, bytes = partitions.bytes + asked.bytes
    FROM asked
    WHERE partitions.topic_id = asked.topic_id
      AND partitions.partition = asked.partition
      AND partitions.epoch = asked.epoch
      AND partitions.high_watermark = asked.base_offset
      AND partitions.agent_id = (SELECT id FROM agents WHERE name = ?2)
      AND partitions.expires_ms > ?3
    RETURNING topic_id, partition, (SELECT name FROM topics WHERE id = topic_id)";

/// A row: `[topic_id, partition, base_offset, end_offset, position, bytes, index_position, index_bytes]`.
pub(super) const INSERT_RANGES: &str = "
    INSERT INTO segment_ranges
        (topic_id, partition, base_offset, end_offset, segment, position, bytes, index_position, index_bytes)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?2, value ->> 4, value ->> 5, value ->> 6, value ->> 7
    FROM json_each(?1)";

/// A row: `[topic_id, partition, producer_id, epoch, batches]`. The `WHERE` keeps `ON` from being read as a join's.
pub(super) const UPSERT_PRODUCERS: &str = "
    INSERT INTO producers (topic_id, partition, producer_id, epoch, batches, updated_ms)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value -> 4, ?2 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET batches = excluded.batches, updated_ms = excluded.updated_ms";

/// A row asked: `[topic, partition, base_offset]`. No row at all when the segment is not there.
pub(super) const SELECT_OUTCOME: &str = "
    SELECT r.segment IS NOT NULL
    FROM segments s
    CROSS JOIN json_each(?2) AS j
    LEFT JOIN topics t ON t.name = j.value ->> 0
    LEFT JOIN segment_ranges r ON r.topic_id = t.id AND r.partition = j.value ->> 1
                              AND r.base_offset = j.value ->> 2 AND r.segment = s.seq
    WHERE s.id = ?1
    ORDER BY j.key";

/// The ranges of a partition are dense, so the one that holds an offset is the last that begins at or below it. A limit
/// that is a bare parameter would have SQLite prepare the statement anew at every call, in case it plans better for the
/// new value.
pub(super) const SELECT_RANGES: &str = "
    SELECT s.id, s.object, r.base_offset, r.end_offset, r.position, r.bytes, r.index_position, r.index_bytes,
           s.committed_ms
    FROM topics t
    CROSS JOIN partitions p ON p.topic_id = t.id AND p.partition = ?2
    CROSS JOIN segment_ranges r
            ON r.topic_id = p.topic_id AND r.partition = p.partition AND ?3 < p.high_watermark
           AND r.base_offset >= (SELECT base_offset FROM segment_ranges
                                 WHERE topic_id = p.topic_id AND partition = p.partition
                                   AND base_offset <= max(?3, p.log_start)
                                 ORDER BY base_offset DESC LIMIT 1)
    CROSS JOIN segments s ON s.seq = r.segment
    WHERE t.name = ?1
    ORDER BY r.base_offset
    LIMIT 0 + ?4";

/// Ids as 32 hexadecimal digits each.
const SELECT_COMMITTED: &str = "
    SELECT s.id FROM json_each(?1) AS j CROSS JOIN segments s ON s.id = unhex(j.value)";

#[async_trait]
impl Segments for SqliteMetadataStore {
    async fn commit_flush(&self, flush: &Flush) -> Result<Vec<RangeOutcome>> {
        check::flush(flush)?;
        let object_bytes = signed("an object size of", flush.object_bytes)?;
        let mut transaction = self.begin().await?;
        let inserted: Option<(i64, i64)> = sqlx::query_as(INSERT_SEGMENT)
            .bind(id_bytes(flush.segment))
            .bind(&flush.object)
            .bind(object_bytes)
            .bind(flush.agent.as_str())
            .bind(i64::try_from(flush.ranges.len()).expect("a list's length fits"))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let Some((seq, committed_ms)) = inserted else {
            // A repeated commit changes nothing and is answered like the first.
            return self.recorded_outcome(&mut transaction, flush).await?.ok_or_else(|| {
                MetadataError::Corrupt(format!("segment {} is there and is not", flush.segment))
            });
        };
        let standing = self.move_high_watermarks(&mut transaction, flush, committed_ms).await?;
        if standing.len() < flush.ranges.len() {
            sqlx::query(COUNT_STANDING)
                .bind(seq)
                .bind(i64::try_from(standing.len()).expect("a list's length fits"))
                .execute(&mut *transaction)
                .await
                .map_err(|error| self.failed(error))?;
        }
        if !standing.is_empty() {
            self.insert_ranges(&mut transaction, &standing, seq).await?;
            self.upsert_producers(&mut transaction, &standing, committed_ms).await?;
        }
        self.commit(transaction).await?;

        let standing: HashSet<_> = standing.iter().map(|(_, range)| &range.partition).collect();
        Ok(flush.ranges.iter().map(|range| outcome(standing.contains(&range.partition))).collect())
    }

    async fn flush_outcome(&self, flush: &Flush) -> Result<Option<Vec<RangeOutcome>>> {
        // On the writing connection and under the write lock: a commit of this handle that is still under way, its
        // caller long gone, is over before the answer.
        let mut transaction = self.begin().await?;
        self.recorded_outcome(&mut transaction, flush).await
    }

    async fn committed_segments(&self, segments: &[SegmentId]) -> Result<Vec<SegmentId>> {
        let asked: Vec<_> = segments.iter().map(SegmentId::to_string).collect();
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(SELECT_COMMITTED)
            .bind(json(&asked))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.iter().map(|id| stored::segment_id(id)).collect()
    }
}

#[async_trait]
impl SegmentRanges for SqliteMetadataStore {
    async fn ranges(&self, partition: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>> {
        let rows: Vec<RangeRow> = sqlx::query_as(SELECT_RANGES)
            .bind(partition.topic.as_str())
            .bind(partition.partition)
            // An offset that SQL cannot hold is above every high watermark.
            .bind(i64::try_from(offset).unwrap_or(i64::MAX))
            .bind(max)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        if rows.is_empty() {
            // Nothing to read is an answer only for a partition that exists.
            self.watermarks(std::slice::from_ref(partition)).await?;
        }
        rows.into_iter().map(stored::segment_range).collect()
    }
}

/// A range that stands, with its topic's id.
type Standing<'a> = (i64, &'a FlushRange);

impl SqliteMetadataStore {
    async fn move_high_watermarks<'a>(
        &self,
        connection: &mut SqliteConnection,
        flush: &'a Flush,
        now_ms: i64,
    ) -> Result<Vec<Standing<'a>>> {
        let asked: Vec<_> = flush
            .ranges
            .iter()
            .map(|range| {
                let at = &range.partition;
                let end_offset = range.base_offset + range.records;
                (at.topic.as_str(), at.partition, range.epoch, range.base_offset, end_offset, range.bytes)
            })
            .collect();
        let rows: Vec<(i64, u32, String)> = sqlx::query_as(MOVE_HIGH_WATERMARKS)
            .bind(json(&asked))
            .bind(flush.agent.as_str())
            .bind(now_ms)
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        let moved: HashMap<(&str, u32), i64> =
            rows.iter().map(|(id, partition, topic)| ((topic.as_str(), *partition), *id)).collect();
        Ok(flush
            .ranges
            .iter()
            .filter_map(|range| {
                let at = (range.partition.topic.as_str(), range.partition.partition);
                moved.get(&at).map(|id| (*id, range))
            })
            .collect())
    }

    async fn insert_ranges(
        &self,
        connection: &mut SqliteConnection,
        standing: &[Standing<'_>],
        seq: i64,
    ) -> Result<()> {
        let rows: Vec<_> = standing
            .iter()
            .map(|(topic_id, range)| {
                (
                    topic_id,
                    range.partition.partition,
                    range.base_offset,
                    range.base_offset + range.records,
                    range.position,
                    range.bytes,
                    range.index_position,
                    range.index_bytes,
                )
            })
            .collect();
        sqlx::query(INSERT_RANGES)
            .bind(json(&rows))
            .bind(seq)
            .execute(connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    async fn upsert_producers(
        &self,
        connection: &mut SqliteConnection,
        standing: &[Standing<'_>],
        now_ms: i64,
    ) -> Result<()> {
        let mut rows = Vec::new();
        for (topic_id, range) in standing {
            for producer in &range.producers {
                let batches = stored::window_rows(producer);
                let ProducerState { producer_id, epoch, .. } = producer;
                rows.push((topic_id, range.partition.partition, producer_id, epoch, batches));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(UPSERT_PRODUCERS)
            .bind(json(&rows))
            .bind(now_ms)
            .execute(connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    async fn recorded_outcome(
        &self,
        connection: &mut SqliteConnection,
        flush: &Flush,
    ) -> Result<Option<Vec<RangeOutcome>>> {
        let asked: Vec<_> = flush
            .ranges
            .iter()
            .map(|range| (range.partition.topic.as_str(), range.partition.partition, range.base_offset))
            .collect();
        let rows: Vec<bool> = sqlx::query_scalar(SELECT_OUTCOME)
            .bind(id_bytes(flush.segment))
            .bind(json(&asked))
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok((!rows.is_empty()).then(|| rows.into_iter().map(outcome).collect()))
    }
}
