//! Flushes: committed, looked up, read.
//!
//! A COMMIT that was sent, and whose answer was lost, may still be under way at the server, or on its way there, when
//! somebody asks what became of it on another connection. By then its transaction has inserted the segment's id, which is
//! unique: to insert the same id waits until that transaction has ended, one way or the other, and a client that is gone
//! is ended by the server within its bound. So [`flush_outcome`](Segments::flush_outcome) inserts the id, learns that it is
//! there or that it was free, and takes it back. A commit whose caller gave up before COMMIT was sent cannot happen any
//! more: its connection was closed.

use super::retry::OnLoss::{Repeat, Tell};
use super::session::{Failure, Session, bounded};
use super::{Asked, PostgresMetadataStore, clock};
use crate::check;
use crate::error::{MetadataError, Result};
use crate::model::{Flush, FlushRange, RangeOutcome, SegmentRange};
use crate::store::{SegmentRanges, Segments, Topics};
use crate::stored::{self, RangeRow, id_bytes, outcome, unsigned};
use async_trait::async_trait;
use streamhouse_core::{SegmentId, TopicPartition};

/// The unique index of the segments' ids.
const SEGMENT_IDS: &str = "segments_id_key";

/// Invariants 1 and 2 in one statement, on partitions that are locked: what it returns, by its number in the flush from 1,
/// stands; what it leaves out is fenced.
const COMMIT: &str = concat!(
    "WITH ",
    clock!(),
    ", asked AS MATERIALIZED (
        SELECT a.*, t.id AS topic_id
        FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                    $8::bigint[], $9::bigint[])
             WITH ORDINALITY AS a (topic, partition, epoch, base_offset, end_offset, position, bytes, index_position,
                                   index_bytes, ord)
        JOIN topics t ON t.name = a.topic),
    moved AS (
        UPDATE partitions p
        SET high_watermark = asked.end_offset, bytes = p.bytes + asked.bytes
        FROM asked, clock
        WHERE p.topic_id = asked.topic_id AND p.partition = asked.partition
          AND p.epoch = asked.epoch
          AND p.high_watermark = asked.base_offset
          AND p.agent_id = (SELECT id FROM agents WHERE name = $10)
          AND p.expires_ms > clock.now_ms
        RETURNING asked.ord),
    segment AS (
        INSERT INTO segments (id, object, object_bytes, agent, committed_ms, live_ranges, dead_ms)
        SELECT $11, $12, $13, $10, clock.now_ms, stands.ranges, CASE stands.ranges WHEN 0 THEN clock.now_ms END
        FROM clock, (SELECT count(*) AS ranges FROM moved) AS stands
        RETURNING seq),
    ranges AS (
        INSERT INTO segment_ranges
            (topic_id, partition, base_offset, end_offset, segment, position, bytes, index_position, index_bytes)
        SELECT topic_id, partition, base_offset, end_offset, segment.seq, position, bytes, index_position, index_bytes
        FROM asked JOIN moved USING (ord), segment),
    windows AS (
        INSERT INTO producers (topic_id, partition, producer_id, epoch, batches, updated_ms)
        SELECT asked.topic_id, asked.partition, w.producer_id, w.epoch, w.batches, clock.now_ms
        FROM unnest($14::bigint[], $15::bigint[], $16::bigint[], $17::text[]) AS w (ord, producer_id, epoch, batches)
        JOIN asked USING (ord) JOIN moved USING (ord), clock
        ON CONFLICT (topic_id, partition, producer_id, epoch)
            DO UPDATE SET batches = excluded.batches, updated_ms = excluded.updated_ms)
    SELECT ord FROM moved"
);

/// Waits until every transaction that has inserted this id is over.
const TRY_SEGMENT: &str = "
    INSERT INTO segments (id, object, object_bytes, agent, committed_ms, live_ranges)
    VALUES ($1, '', 0, '', 0, 0) ON CONFLICT (id) DO NOTHING";

const SELECT_OUTCOME: &str = "
    SELECT r.segment IS NOT NULL
    FROM segments s
    CROSS JOIN unnest($2::text[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS a (topic, partition, base_offset, ord)
    LEFT JOIN topics t ON t.name = a.topic
    LEFT JOIN segment_ranges r ON r.topic_id = t.id AND r.partition = a.partition
                              AND r.base_offset = a.base_offset AND r.segment = s.seq
    WHERE s.id = $1
    ORDER BY a.ord";

/// The ranges of a partition are dense, so the one that holds an offset is the last that begins at or below it.
const SELECT_RANGES: &str = "
    SELECT s.id, s.object, r.base_offset, r.end_offset, r.position, r.bytes, r.index_position, r.index_bytes,
           s.committed_ms
    FROM topics t
    JOIN partitions p ON p.topic_id = t.id AND p.partition = $2
    CROSS JOIN LATERAL (
        SELECT * FROM segment_ranges
        WHERE topic_id = p.topic_id AND partition = p.partition AND $3 < p.high_watermark
          AND base_offset >= (
              SELECT base_offset FROM segment_ranges
              WHERE topic_id = p.topic_id AND partition = p.partition AND base_offset <= greatest($3, p.log_start)
              ORDER BY base_offset DESC LIMIT 1)
        ORDER BY base_offset LIMIT $4) AS r
    JOIN segments s ON s.seq = r.segment
    WHERE t.name = $1
    ORDER BY r.base_offset";

#[async_trait]
impl Segments for PostgresMetadataStore {
    async fn commit_flush(&self, flush: &Flush) -> Result<Vec<RangeOutcome>> {
        check::flush(flush)?;
        let columns = &Columns::from(flush);
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(commit(&mut session, flush, columns)).await;
            session.end(work).await
        };
        let standing = self.retry(Tell, attempt).await?;
        match standing {
            Some(standing) => {
                let mut outcomes = vec![RangeOutcome::Fenced; flush.ranges.len()];
                for ord in standing {
                    outcomes[unsigned::<usize>(ord - 1)?] = RangeOutcome::Committed;
                }
                Ok(outcomes)
            }
            // A repeated commit changes nothing and is answered like the first.
            None => self.recorded_outcome(flush).await?.ok_or_else(|| {
                MetadataError::Corrupt(format!("segment {} is there and is not", flush.segment))
            }),
        }
    }

    async fn flush_outcome(&self, flush: &Flush) -> Result<Option<Vec<RangeOutcome>>> {
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(async {
                let id = id_bytes(flush.segment);
                let tried = sqlx::query(TRY_SEGMENT).bind(id).execute(session.connection()).await?;
                Ok(tried.rows_affected() == 0)
            });
            let is_there = work.await;
            session.roll_back(is_there).await
        };
        if !self.retry(Repeat, attempt).await? {
            return Ok(None);
        }
        self.recorded_outcome(flush).await
    }

    async fn committed_segments(&self, segments: &[SegmentId]) -> Result<Vec<SegmentId>> {
        let asked: Vec<_> = segments.iter().copied().map(id_bytes).collect();
        let select = || sqlx::query_as("SELECT id FROM segments WHERE id = ANY ($1::bytea[])").bind(&asked);
        let rows: Vec<(Vec<u8>,)> = self.rows(select).await?;
        rows.iter().map(|(id,)| stored::segment_id(id)).collect()
    }
}

#[async_trait]
impl SegmentRanges for PostgresMetadataStore {
    async fn ranges(&self, partition: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>> {
        // An offset that SQL cannot hold is above every high watermark.
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let select = || {
            let select = sqlx::query_as(SELECT_RANGES).bind(partition.topic.as_str());
            select.bind(i64::from(partition.partition)).bind(offset).bind(i64::from(max))
        };
        let rows: Vec<RangeRow> = self.rows(select).await?;
        if rows.is_empty() {
            // Nothing to read is an answer only for a partition that exists.
            self.watermarks(std::slice::from_ref(partition)).await?;
        }
        rows.into_iter().map(stored::segment_range).collect()
    }
}

impl PostgresMetadataStore {
    async fn recorded_outcome(&self, flush: &Flush) -> Result<Option<Vec<RangeOutcome>>> {
        let asked = Asked::from_iter(flush.ranges.iter().map(|range| &range.partition));
        let bases = column(flush, |range| range.base_offset);
        let select = || {
            let select = sqlx::query_as(SELECT_OUTCOME).bind(id_bytes(flush.segment));
            select.bind(&asked.topics).bind(&asked.numbers).bind(&bases)
        };
        let rows: Vec<(bool,)> = self.rows(select).await?;
        Ok((!rows.is_empty()).then(|| rows.into_iter().map(|(stands,)| outcome(stands)).collect()))
    }
}

/// Commits, all but COMMIT: the numbers of the ranges that stand; `None` when the segment is there already.
async fn commit(
    session: &mut Session,
    flush: &Flush,
    columns: &Columns,
) -> Result<Option<Vec<i64>>, Failure> {
    columns.asked.lock(session).await?;
    let mut commit = sqlx::query_scalar(COMMIT).bind(&columns.asked.topics).bind(&columns.asked.numbers);
    for column in &columns.numbers {
        commit = commit.bind(column);
    }
    let committed = commit
        .bind(flush.agent.as_str())
        .bind(id_bytes(flush.segment))
        .bind(&flush.object)
        .bind(flush.object_bytes.cast_signed())
        .bind(&columns.producer_ranges)
        .bind(&columns.producer_ids)
        .bind(&columns.producer_epochs)
        .bind(&columns.windows)
        .fetch_all(session.connection())
        .await;
    match committed {
        Ok(standing) => Ok(Some(standing)),
        // The failed statement has spoilt the transaction; its COMMIT does nothing.
        Err(error) if error.as_database_error().and_then(|error| error.constraint()) == Some(SEGMENT_IDS) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A flush as lists, one a parameter.
struct Columns {
    asked: Asked,
    /// Epoch, base and end offset, position and bytes of the batches, of the index.
    numbers: [Vec<i64>; 7],
    producer_ranges: Vec<i64>,
    producer_ids: Vec<i64>,
    producer_epochs: Vec<i64>,
    windows: Vec<String>,
}

/// Numbers that [`check::flush`] found to fit.
fn column(flush: &Flush, number: impl Fn(&FlushRange) -> u64) -> Vec<i64> {
    flush.ranges.iter().map(|range| number(range).cast_signed()).collect()
}

impl From<&Flush> for Columns {
    fn from(flush: &Flush) -> Self {
        let mut columns = Columns {
            asked: flush.ranges.iter().map(|range| &range.partition).collect(),
            numbers: [
                column(flush, |range| range.epoch),
                column(flush, |range| range.base_offset),
                column(flush, |range| range.base_offset + range.records),
                column(flush, |range| range.position),
                column(flush, |range| range.bytes),
                column(flush, |range| range.index_position),
                column(flush, |range| range.index_bytes.into()),
            ],
            producer_ranges: Vec::new(),
            producer_ids: Vec::new(),
            producer_epochs: Vec::new(),
            windows: Vec::new(),
        };
        for (ord, range) in (1..).zip(&flush.ranges) {
            for producer in &range.producers {
                columns.producer_ranges.push(ord);
                columns.producer_ids.push(producer.producer_id.cast_signed());
                columns.producer_epochs.push(producer.epoch.into());
                columns.windows.push(stored::window_json(producer));
            }
        }
        columns
    }
}
