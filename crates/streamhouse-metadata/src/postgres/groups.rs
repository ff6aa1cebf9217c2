//! Consumer groups: committed offsets and lag.

use super::members::{lock_group, lock_or_create_group};
use super::retry::OnLoss::{Repeat, Tell};
use super::session::{Failure, Session, bounded};
use super::{Asked, PostgresMetadataStore};
use crate::check::{self, not_found};
use crate::error::{MetadataError, Result};
use crate::model::{Group, GroupOffset, OffsetCommit};
use crate::store::{Groups, Members};
use crate::stored;
use async_trait::async_trait;
use streamhouse_core::{GroupId, MemberId, TopicPartition};

/// What a commit is checked against: where the partition ends, and who of the group has claimed it.
const SELECT_COMMITTABLE: &str = "
    SELECT t.id, t.partitions, p.high_watermark, c.member, c.generation
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS a (topic, partition, ord)
    LEFT JOIN topics t ON t.name = a.topic
    LEFT JOIN partitions p ON p.topic_id = t.id AND p.partition = a.partition
    LEFT JOIN group_claims c ON c.group_id = $3 AND c.topic_id = p.topic_id AND c.partition = p.partition
    ORDER BY a.ord";

/// Of a partition that is given twice, the last counts.
const UPSERT_OFFSETS: &str = "
    INSERT INTO group_offsets (group_id, topic_id, partition, committed)
    SELECT DISTINCT ON (topic_id, partition) $4, topic_id, partition, committed
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS a (topic_id, partition, committed, ord)
    ORDER BY topic_id, partition, ord DESC
    ON CONFLICT (group_id, topic_id, partition) DO UPDATE SET committed = excluded.committed";

/// Milliseconds since the segment was committed that holds the first record the group has not committed; null when there
/// is no such record.
macro_rules! lag_ms {
    () => {
        concat!(
            "CASE WHEN greatest(coalesce(o.committed, 0), p.log_start) < p.high_watermark THEN
                greatest(0, ",
            super::now_ms!(),
            " - (SELECT committed_ms FROM segments WHERE seq = (
                     SELECT segment FROM segment_ranges
                     WHERE topic_id = p.topic_id AND partition = p.partition
                       AND base_offset <= greatest(coalesce(o.committed, 0), p.log_start)
                     ORDER BY base_offset DESC LIMIT 1)))
            END"
        )
    };
}
pub(super) use lag_ms;

pub(super) const SELECT_OFFSETS: &str = concat!(
    "SELECT t.partitions, p.log_start, p.high_watermark, o.committed, ",
    lag_ms!(),
    " FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS a (topic, partition, ord)
    LEFT JOIN topics t ON t.name = a.topic
    LEFT JOIN partitions p ON p.topic_id = t.id AND p.partition = a.partition
    LEFT JOIN group_offsets o ON o.group_id = (SELECT id FROM consumer_groups WHERE name = $3)
                             AND o.topic_id = p.topic_id AND o.partition = p.partition
    ORDER BY a.ord"
);

const SELECT_GROUP: &str = concat!(
    "SELECT t.name, p.partition, p.log_start, p.high_watermark, o.committed, ",
    lag_ms!(),
    " FROM consumer_groups g
    JOIN group_offsets o ON o.group_id = g.id
    JOIN partitions p ON p.topic_id = o.topic_id AND p.partition = o.partition
    JOIN topics t ON t.id = p.topic_id
    WHERE g.name = $1
    ORDER BY t.name, p.partition"
);

const SELECT_GROUPS: &str = "
    SELECT g.name, count(o.partition),
           coalesce(sum(p.high_watermark - greatest(coalesce(o.committed, 0), p.log_start)), 0)::bigint
    FROM consumer_groups g
    LEFT JOIN group_offsets o ON o.group_id = g.id
    LEFT JOIN partitions p ON p.topic_id = o.topic_id AND p.partition = o.partition
    GROUP BY g.name
    ORDER BY g.name";

const COUNT_MEMBERS: &str = "SELECT count(*) FROM group_members WHERE group_id = $1";

/// Claims go with their members, of which there are none.
const DELETE_GROUP: [&str; 2] =
    ["DELETE FROM group_offsets WHERE group_id = $1", "DELETE FROM consumer_groups WHERE id = $1"];

#[async_trait]
impl Groups for PostgresMetadataStore {
    async fn commit_offsets(
        &self,
        group: &GroupId,
        member: Option<&MemberId>,
        offsets: &[OffsetCommit],
    ) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let asked = &Asked::from_iter(offsets.iter().map(|commit| &commit.partition));
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(commit(&mut session, group, member, offsets, asked)).await;
            session.end(work).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn group_offsets(
        &self,
        group: &GroupId,
        partitions: &[TopicPartition],
    ) -> Result<Vec<GroupOffset>> {
        let asked = Asked::from_iter(partitions);
        let select = || {
            let select = sqlx::query_as(SELECT_OFFSETS).bind(&asked.topics).bind(&asked.numbers);
            select.bind(group.as_str())
        };
        group_offsets(partitions, self.rows(select).await?)
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.rows(|| sqlx::query_as(SELECT_GROUPS)).await?.into_iter().map(stored::group).collect()
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let deleted = bounded(delete(&mut session, group)).await;
            session.end(deleted).await
        };
        self.retry(Tell, attempt).await
    }

    async fn describe_group(&self, group: &GroupId) -> Result<Vec<GroupOffset>> {
        type Row = (String, i64, i64, i64, Option<i64>, Option<i64>);
        let rows: Vec<Row> = self.rows(|| sqlx::query_as(SELECT_GROUP).bind(group.as_str())).await?;
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

/// What [`SELECT_OFFSETS`] gives: the topic's partitions, log start, high watermark, committed offset, lag.
pub(super) type OffsetRow = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

pub(super) fn group_offsets(partitions: &[TopicPartition], rows: Vec<OffsetRow>) -> Result<Vec<GroupOffset>> {
    partitions
        .iter()
        .zip(rows)
        .map(|(at, (partitions, log_start, high_watermark, committed, lag_ms))| {
            match log_start.zip(high_watermark) {
                Some(ends) => stored::group_offset(at.clone(), ends, committed, lag_ms),
                None => Err(not_found(at, partitions.map(stored::unsigned).transpose()?)),
            }
        })
        .collect()
}

async fn delete(session: &mut Session, group: &GroupId) -> Result<(), Failure> {
    let id = lock_group(session, group).await?;
    let id = id.ok_or_else(|| MetadataError::GroupNotFound(group.to_string()))?;
    let members = sqlx::query_scalar(COUNT_MEMBERS).bind(id).fetch_one(session.connection()).await?;
    check::no_members(group, members)?;
    for statement in DELETE_GROUP {
        sqlx::query(statement).bind(id).execute(session.connection()).await?;
    }
    Ok(())
}

async fn commit(
    session: &mut Session,
    group: &GroupId,
    member: Option<&MemberId>,
    offsets: &[OffsetCommit],
    asked: &Asked,
) -> Result<(), Failure> {
    // A member's group is there. Without one the group comes to be here, and goes again with a commit that is refused.
    let id = match member {
        Some(_) => lock_group(session, group).await?,
        None => Some(lock_or_create_group(session, group).await?),
    };
    type Row = (Option<i64>, Option<i64>, Option<i64>, Option<String>, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(SELECT_COMMITTABLE)
        .bind(&asked.topics)
        .bind(&asked.numbers)
        .bind(id)
        .fetch_all(session.connection())
        .await?;
    let (mut topics, mut committed) = (Vec::new(), Vec::new());
    for (commit, (topic_id, partitions, high_watermark, claimed_by, generation)) in offsets.iter().zip(rows) {
        let at = &commit.partition;
        let (Some(topic_id), Some(high_watermark)) = (topic_id, high_watermark) else {
            return Err(not_found(at, partitions.map(stored::unsigned).transpose()?).into());
        };
        check::claim(group, member, commit, claimed_by.zip(generation))?;
        topics.push(topic_id);
        committed.push(check::committed(at, commit.offset, high_watermark)?);
    }
    sqlx::query(UPSERT_OFFSETS)
        .bind(topics)
        .bind(&asked.numbers)
        .bind(committed)
        .bind(id)
        .execute(session.connection())
        .await?;
    Ok(())
}
