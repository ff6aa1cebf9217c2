//! Consumer groups: committed offsets and lag.

use super::{SqliteMetadataStore, json, json_partitions, now_ms};
use crate::check::{self, not_found};
use crate::error::{MetadataError, Result};
use crate::model::{Group, GroupOffset, OffsetCommit};
use crate::store::{Groups, Members};
use crate::stored;
use async_trait::async_trait;
use sqlx::SqliteConnection;
use streamhouse_core::{GroupId, MemberId, TopicPartition};

/// What a commit is checked against: where the partition ends, and who of the group has claimed it.
pub(super) const SELECT_COMMITTABLE: &str = "
    SELECT t.id, t.partitions, p.high_watermark, c.member, c.generation
    FROM json_each(?1) AS j
    LEFT JOIN topics t ON t.name = j.value ->> 0
    LEFT JOIN partitions p ON p.topic_id = t.id AND p.partition = j.value ->> 1
    LEFT JOIN group_claims c ON c.group_id = ?2 AND c.topic_id = p.topic_id AND c.partition = p.partition
    ORDER BY j.key";

/// A row: `[topic_id, partition, committed]`. The `WHERE` keeps `ON` from being read as a join's.
pub(super) const UPSERT_OFFSETS: &str = "
    INSERT INTO group_offsets (group_id, topic_id, partition, committed)
    SELECT ?2, value ->> 0, value ->> 1, value ->> 2
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
pub(super) use lag_ms;

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
    SELECT g.name, count(o.partition), ifnull(sum(p.high_watermark - max(ifnull(o.committed, 0), p.log_start)), 0)
    FROM consumer_groups g
    LEFT JOIN group_offsets o ON o.group_id = g.id
    LEFT JOIN partitions p ON p.topic_id = o.topic_id AND p.partition = o.partition
    GROUP BY g.name
    ORDER BY g.name";

const COUNT_MEMBERS: &str = "SELECT count(*) FROM group_members WHERE group_id = ?1";

/// Claims go with their members, of which there are none.
const DELETE_GROUP: [&str; 2] =
    ["DELETE FROM group_offsets WHERE group_id = ?1", "DELETE FROM consumer_groups WHERE id = ?1"];

#[async_trait]
impl Groups for SqliteMetadataStore {
    async fn commit_offsets(
        &self,
        group: &GroupId,
        member: Option<&MemberId>,
        offsets: &[OffsetCommit],
    ) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        let id = self.living_group(&mut transaction, group).await?;
        let rows = self.check_offsets(&mut transaction, group, id, member, offsets).await?;
        let id = match id {
            Some(id) => id,
            None => self.new_group(&mut transaction, group).await?,
        };
        sqlx::query(UPSERT_OFFSETS)
            .bind(json(&rows))
            .bind(id)
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
        let mut connection = self.readers.acquire().await.map_err(|error| self.failed(error))?;
        self.offsets(&mut connection, group, partitions).await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(SELECT_GROUPS)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter().map(stored::group).collect()
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = self.living_group(&mut transaction, group).await?;
        let id = id.ok_or_else(|| MetadataError::GroupNotFound(group.to_string()))?;
        let members: i64 = sqlx::query_scalar(COUNT_MEMBERS)
            .bind(id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        check::no_members(group, members)?;
        self.execute_each(&mut transaction, &DELETE_GROUP, id).await?;
        self.commit(transaction).await
    }

    async fn describe_group(&self, group: &GroupId) -> Result<Vec<GroupOffset>> {
        type Row = (String, i64, i64, i64, Option<i64>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(SELECT_GROUP)
            .bind(group.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        if rows.is_empty() {
            // A group may have members and no place yet.
            self.group_view(group).await?;
        }
        rows.into_iter()
            .map(|(topic, partition, log_start, high_watermark, committed, lag_ms)| {
                let at = stored::partition(&topic, partition)?;
                stored::group_offset(at, (log_start, high_watermark), committed, lag_ms)
            })
            .collect()
    }
}

impl SqliteMetadataStore {
    /// How far the group is on each of the partitions, in the order asked.
    pub(super) async fn offsets(
        &self,
        connection: &mut SqliteConnection,
        group: &GroupId,
        partitions: &[TopicPartition],
    ) -> Result<Vec<GroupOffset>> {
        type Row = (Option<u32>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(SELECT_OFFSETS)
            .bind(json_partitions(partitions))
            .bind(group.as_str())
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        partitions
            .iter()
            .zip(rows)
            .map(|(at, (partitions, log_start, high_watermark, committed, lag_ms))| {
                match log_start.zip(high_watermark) {
                    Some(ends) => stored::group_offset(at.clone(), ends, committed, lag_ms),
                    None => Err(not_found(at, partitions)),
                }
            })
            .collect()
    }

    /// Checks each offset against its partition and its claim; gives the rows to store.
    async fn check_offsets(
        &self,
        connection: &mut SqliteConnection,
        group: &GroupId,
        id: Option<i64>,
        member: Option<&MemberId>,
        offsets: &[OffsetCommit],
    ) -> Result<Vec<(i64, u32, i64)>> {
        type Row = (Option<i64>, Option<u32>, Option<i64>, Option<String>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(SELECT_COMMITTABLE)
            .bind(json_partitions(offsets.iter().map(|commit| &commit.partition)))
            .bind(id)
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        offsets
            .iter()
            .zip(rows)
            .map(|(commit, (topic_id, partitions, high_watermark, claimed_by, generation))| {
                let at = &commit.partition;
                let (Some(topic_id), Some(high_watermark)) = (topic_id, high_watermark) else {
                    return Err(not_found(at, partitions));
                };
                check::claim(group, member, commit, claimed_by.zip(generation))?;
                Ok((topic_id, at.partition, check::committed(at, commit.offset, high_watermark)?))
            })
            .collect()
    }
}
