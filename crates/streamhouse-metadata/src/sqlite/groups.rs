//! Consumer groups: committed offsets and lag.

use super::topics::watermarks;
use super::{
    SqliteMetadataStore, json, json_partitions, not_found, now_ms, signed, stored_name, stored_partition,
    unsigned,
};
use crate::error::{MetadataError, Result};
use crate::model::{Group, GroupOffset, OffsetCommit};
use crate::store::Groups;
use async_trait::async_trait;
use sqlx::SqliteConnection;
use std::time::Duration;
use streamhouse_core::{GroupId, MemberId, TopicPartition};

pub(super) const SELECT_PARTITION_ENDS: &str = "
    SELECT t.id, t.partitions, p.high_watermark
    FROM json_each(?1) AS j
    LEFT JOIN topics t ON t.name = j.value ->> 0
    LEFT JOIN partitions p ON p.topic_id = t.id AND p.partition = j.value ->> 1
    ORDER BY j.key";

/// A row: `[topic_id, partition, committed]`. The `WHERE` keeps `ON` from being read as a join's.
pub(super) const UPSERT_OFFSETS: &str = "
    INSERT INTO group_offsets (group_id, topic_id, partition, committed)
    SELECT (SELECT id FROM consumer_groups WHERE name = ?2), value ->> 0, value ->> 1, value ->> 2
    FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET committed = excluded.committed";

/// Milliseconds since the segment was committed that holds the first record the group has not committed; null when there
/// is no such record.
macro_rules! lag_ms {
    () => {
        concat!(
            "CASE WHEN max(ifnull(o.committed, 0), p.log_start) < p.high_watermark THEN
                max(0, ",
            now_ms!(),
            " - (SELECT s.committed_ms FROM segment_ranges r CROSS JOIN segments s ON s.seq = r.segment
                 WHERE r.topic_id = p.topic_id AND r.partition = p.partition
                   AND r.base_offset <= max(ifnull(o.committed, 0), p.log_start)
                 ORDER BY r.base_offset DESC LIMIT 1))
            END"
        )
    };
}

pub(super) const SELECT_OFFSETS: &str = concat!(
    "SELECT t.partitions, p.log_start, p.high_watermark, o.committed, ",
    lag_ms!(),
    " FROM json_each(?1) AS j
    LEFT JOIN topics t ON t.name = j.value ->> 0
    LEFT JOIN partitions p ON p.topic_id = t.id AND p.partition = j.value ->> 1
    LEFT JOIN group_offsets o ON o.group_id = (SELECT id FROM consumer_groups WHERE name = ?2)
                             AND o.topic_id = p.topic_id AND o.partition = p.partition
    ORDER BY j.key"
);

pub(super) const SELECT_GROUP: &str = concat!(
    "SELECT t.name, p.partition, p.log_start, p.high_watermark, o.committed, ",
    lag_ms!(),
    " FROM consumer_groups g
    CROSS JOIN group_offsets o ON o.group_id = g.id
    CROSS JOIN partitions p ON p.topic_id = o.topic_id AND p.partition = o.partition
    CROSS JOIN topics t ON t.id = p.topic_id
    WHERE g.name = ?1
    ORDER BY t.name, p.partition"
);

const SELECT_GROUPS: &str = "
    SELECT g.name, count(*), sum(p.high_watermark - max(o.committed, p.log_start))
    FROM consumer_groups g
    CROSS JOIN group_offsets o ON o.group_id = g.id
    CROSS JOIN partitions p ON p.topic_id = o.topic_id AND p.partition = o.partition
    GROUP BY g.name
    ORDER BY g.name";

#[async_trait]
impl Groups for SqliteMetadataStore {
    async fn commit_offsets(
        &self,
        group: &GroupId,
        _member: Option<&MemberId>,
        offsets: &[OffsetCommit],
    ) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        let rows = self.check_offsets(&mut transaction, offsets).await?;
        sqlx::query("INSERT INTO consumer_groups (name) VALUES (?1) ON CONFLICT (name) DO NOTHING")
            .bind(group.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        sqlx::query(UPSERT_OFFSETS)
            .bind(json(&rows))
            .bind(group.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }

    async fn group_offsets(
        &self,
        group: &GroupId,
        partitions: &[TopicPartition],
    ) -> Result<Vec<GroupOffset>> {
        type Row = (Option<u32>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(SELECT_OFFSETS)
            .bind(json_partitions(partitions))
            .bind(group.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        partitions
            .iter()
            .zip(rows)
            .map(|(at, (partitions, log_start, high_watermark, committed, lag_ms))| {
                match log_start.zip(high_watermark) {
                    Some(ends) => group_offset(at.clone(), ends, committed, lag_ms),
                    None => Err(not_found(at, partitions)),
                }
            })
            .collect()
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(SELECT_GROUPS)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter()
            .map(|(name, partitions, lag_records)| {
                Ok(Group {
                    id: stored_name(&name)?,
                    partitions: unsigned(partitions)?,
                    lag_records: unsigned(lag_records)?,
                })
            })
            .collect()
    }

    async fn describe_group(&self, group: &GroupId) -> Result<Vec<GroupOffset>> {
        type Row = (String, i64, i64, i64, i64, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(SELECT_GROUP)
            .bind(group.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        if rows.is_empty() {
            return Err(MetadataError::GroupNotFound(group.to_string()));
        }
        rows.into_iter()
            .map(|(topic, partition, log_start, high_watermark, committed, lag_ms)| {
                let at = stored_partition(&topic, partition)?;
                group_offset(at, (log_start, high_watermark), Some(committed), lag_ms)
            })
            .collect()
    }
}

impl SqliteMetadataStore {
    /// Checks each offset against its partition; gives the rows to store.
    async fn check_offsets(
        &self,
        connection: &mut SqliteConnection,
        offsets: &[OffsetCommit],
    ) -> Result<Vec<(i64, u32, i64)>> {
        let ends: Vec<(Option<i64>, Option<u32>, Option<i64>)> = sqlx::query_as(SELECT_PARTITION_ENDS)
            .bind(json_partitions(offsets.iter().map(|commit| &commit.partition)))
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        offsets
            .iter()
            .zip(ends)
            .map(|(OffsetCommit { partition: at, offset, .. }, (topic_id, partitions, high_watermark))| {
                let (Some(topic_id), Some(high_watermark)) = (topic_id, high_watermark) else {
                    return Err(not_found(at, partitions));
                };
                let committed = signed("an offset of", *offset)?;
                if committed > high_watermark {
                    return Err(MetadataError::Invalid(format!(
                        "offset {offset} of {at} is above the high watermark {high_watermark}; \
                         commit an offset up to it"
                    )));
                }
                Ok((topic_id, at.partition, committed))
            })
            .collect()
    }
}

fn group_offset(
    partition: TopicPartition,
    (log_start, high_watermark): (i64, i64),
    committed: Option<i64>,
    lag_ms: Option<i64>,
) -> Result<GroupOffset> {
    let watermarks = watermarks(log_start, high_watermark)?;
    let committed: Option<u64> = committed.map(unsigned).transpose()?;
    let next = committed.unwrap_or(0).max(watermarks.log_start);
    Ok(GroupOffset {
        partition,
        committed,
        watermarks,
        lag_records: watermarks.high_watermark.saturating_sub(next),
        lag: Duration::from_millis(unsigned(lag_ms.unwrap_or(0))?),
    })
}
