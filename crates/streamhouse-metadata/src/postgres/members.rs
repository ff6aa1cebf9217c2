//! Members of groups and their claims. Every transaction first locks the group's row, so a group's changes come one after
//! the other.

use super::groups::{SELECT_OFFSETS, group_offsets};
use super::retry::OnLoss::Repeat;
use super::session::{Failure, Session, bounded};
use super::{Asked, PostgresMetadataStore, asked, clock, now_ms};
use crate::check::{not_a_member, term_ms};
use crate::error::{MetadataError, Result};
use crate::model::{Claimed, GroupView};
use crate::store::Members;
use crate::stored::{self, unsigned};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;
use streamhouse_core::{GroupId, MemberId, TopicName, TopicPartition};

const LOCK_GROUP: &str = "SELECT id FROM consumer_groups WHERE name = $1 FOR NO KEY UPDATE";

const INSERT_GROUP: &str = "INSERT INTO consumer_groups (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";

/// Members whose session is over go, with their claims, and raise the generation by one each.
const REMOVE_DEAD: &str = concat!(
    "WITH ",
    clock!(),
    ", dead AS (
        DELETE FROM group_members USING clock
        WHERE group_id = $1 AND expires_ms <= clock.now_ms
        RETURNING member)
    UPDATE consumer_groups SET generation = generation + (SELECT count(*) FROM dead)
    WHERE id = $1 AND EXISTS (SELECT 1 FROM dead)"
);

const RAISE_GENERATION: &str = "UPDATE consumer_groups SET generation = generation + 1 WHERE id = $1";

const SELECT_TOPICS: &str = "SELECT topics FROM group_members WHERE group_id = $1 AND member = $2";

const UPSERT_MEMBER: &str = concat!(
    "INSERT INTO group_members (group_id, member, topics, expires_ms) VALUES ($1, $2, $3, $4 + ",
    now_ms!(),
    ") ON CONFLICT (group_id, member) DO UPDATE SET topics = excluded.topics, expires_ms = excluded.expires_ms"
);

const EXTEND_SESSION: &str =
    concat!("UPDATE group_members SET expires_ms = $3 + ", now_ms!(), " WHERE group_id = $1 AND member = $2");

const CLAIM: &str = concat!(
    "WITH ",
    asked!(),
    " INSERT INTO group_claims (group_id, topic_id, partition, member, generation)
    SELECT g.id, p.topic_id, p.partition, $4, g.generation
    FROM asked
    JOIN partitions p ON p.topic_id = asked.topic_id AND p.partition = asked.partition
    CROSS JOIN consumer_groups g
    WHERE g.id = $3
    ON CONFLICT (group_id, topic_id, partition) DO NOTHING"
);

/// A group that reads a partition is behind on it, though it may never commit.
const REMEMBER: &str = concat!(
    "WITH ",
    asked!(),
    " INSERT INTO group_offsets (group_id, topic_id, partition)
    SELECT $3, p.topic_id, p.partition
    FROM asked
    JOIN partitions p ON p.topic_id = asked.topic_id AND p.partition = asked.partition
    ON CONFLICT (group_id, topic_id, partition) DO NOTHING"
);

const SELECT_CLAIMED: &str = concat!(
    "WITH ",
    asked!(),
    " SELECT asked.ord - 1, c.generation
    FROM asked
    JOIN group_claims c ON c.group_id = $3 AND c.topic_id = asked.topic_id AND c.partition = asked.partition
    WHERE c.member = $4"
);

const RELEASE: &str = concat!(
    "WITH ",
    asked!(),
    " DELETE FROM group_claims c USING asked
    WHERE c.group_id = $3 AND c.member = $4 AND c.topic_id = asked.topic_id AND c.partition = asked.partition"
);

/// How many members are dead by now is part of the generation, whoever removes them.
const SELECT_GROUP: &str = concat!(
    "WITH ",
    clock!(),
    " SELECT g.id, g.generation + (SELECT count(*) FROM group_members WHERE group_id = g.id AND expires_ms <= now_ms),
             now_ms
    FROM consumer_groups g, clock WHERE g.name = $1"
);

const SELECT_MEMBERS: &str =
    "SELECT member, topics FROM group_members WHERE group_id = $1 AND expires_ms > $2 ORDER BY member";

/// Without those of dead members.
const SELECT_CLAIMS: &str = "
    SELECT t.name, c.partition, c.member, c.generation
    FROM group_members m
    JOIN group_claims c ON c.group_id = m.group_id AND c.member = m.member
    JOIN topics t ON t.id = c.topic_id
    WHERE m.group_id = $1 AND m.expires_ms > $2
    ORDER BY t.name, c.partition";

#[async_trait]
impl Members for PostgresMetadataStore {
    async fn join_group(
        &self,
        group: &GroupId,
        member: &MemberId,
        topics: &[TopicName],
        session: Duration,
    ) -> Result<GroupView> {
        let session_ms = term_ms("session", session)?;
        let topics = &stored::member_topics(topics);
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let view = bounded(join(&mut session, group, member, topics, session_ms)).await;
            session.end(view).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn heartbeat_member(
        &self,
        group: &GroupId,
        member: &MemberId,
        session: Duration,
    ) -> Result<GroupView> {
        let session_ms = term_ms("session", session)?;
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let view = bounded(async {
                let id = lock_group(&mut session, group).await?;
                let extend = sqlx::query(EXTEND_SESSION).bind(id).bind(member.as_str()).bind(session_ms);
                if extend.execute(session.connection()).await?.rows_affected() == 0 {
                    return Err(not_a_member(group, member).into());
                }
                view(&mut session, group).await
            });
            let view = view.await;
            session.end(view).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn claim_partitions(
        &self,
        group: &GroupId,
        member: &MemberId,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Claimed>> {
        let asked = &Asked::from_iter(wanted);
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let claimed = bounded(claim(&mut session, group, member, wanted, asked)).await;
            session.end(claimed).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn release_claims(
        &self,
        group: &GroupId,
        member: &MemberId,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        let asked = &Asked::from_iter(partitions);
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(async {
                let id = lock_group(&mut session, group).await?;
                let release = sqlx::query(RELEASE).bind(&asked.topics).bind(&asked.numbers);
                release.bind(id).bind(member.as_str()).execute(session.connection()).await?;
                Ok(())
            });
            let work = work.await;
            session.end(work).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn leave_group(&self, group: &GroupId, member: &MemberId) -> Result<()> {
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(async {
                let id = lock_group(&mut session, group).await?;
                let leave = sqlx::query("DELETE FROM group_members WHERE group_id = $1 AND member = $2");
                let left = leave.bind(id).bind(member.as_str()).execute(session.connection()).await?;
                if left.rows_affected() > 0 {
                    sqlx::query(RAISE_GENERATION).bind(id).execute(session.connection()).await?;
                }
                Ok(())
            });
            let work = work.await;
            session.end(work).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn group_view(&self, group: &GroupId) -> Result<GroupView> {
        let attempt = move || async move {
            let mut session = self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let found = bounded(view(&mut session, group)).await;
            session.roll_back(found).await
        };
        self.retry(Repeat, attempt).await
    }
}

/// Locks the group and removes its dead members; gives its id, `None` when there is no such group.
pub(super) async fn lock_group(session: &mut Session, group: &GroupId) -> Result<Option<i64>, Failure> {
    let id: Option<i64> =
        sqlx::query_scalar(LOCK_GROUP).bind(group.as_str()).fetch_optional(session.connection()).await?;
    if let Some(id) = id {
        sqlx::query(REMOVE_DEAD).bind(id).execute(session.connection()).await?;
    }
    Ok(id)
}

/// [`lock_group`], which comes to be if need be.
pub(super) async fn lock_or_create_group(session: &mut Session, group: &GroupId) -> Result<i64, Failure> {
    loop {
        if let Some(id) = lock_group(session, group).await? {
            return Ok(id);
        }
        // Another may do so at the same time: either way it is there afterwards.
        sqlx::query(INSERT_GROUP).bind(group.as_str()).execute(session.connection()).await?;
    }
}

async fn join(
    session: &mut Session,
    group: &GroupId,
    member: &MemberId,
    topics: &str,
    session_ms: i64,
) -> Result<GroupView, Failure> {
    let id = lock_or_create_group(session, group).await?;
    let before = member_topics(session, Some(id), member).await?;
    sqlx::query(UPSERT_MEMBER)
        .bind(id)
        .bind(member.as_str())
        .bind(topics)
        .bind(session_ms)
        .execute(session.connection())
        .await?;
    if before.as_deref() != Some(topics) {
        sqlx::query(RAISE_GENERATION).bind(id).execute(session.connection()).await?;
    }
    view(session, group).await
}

async fn member_topics(
    session: &mut Session,
    id: Option<i64>,
    member: &MemberId,
) -> Result<Option<String>, Failure> {
    let select = sqlx::query_scalar(SELECT_TOPICS).bind(id).bind(member.as_str());
    Ok(select.fetch_optional(session.connection()).await?)
}

async fn claim(
    session: &mut Session,
    group: &GroupId,
    member: &MemberId,
    wanted: &[TopicPartition],
    asked: &Asked,
) -> Result<Vec<Claimed>, Failure> {
    let id = lock_group(session, group).await?;
    if member_topics(session, id, member).await?.is_none() {
        return Err(not_a_member(group, member).into());
    }
    sqlx::query(CLAIM)
        .bind(&asked.topics)
        .bind(&asked.numbers)
        .bind(id)
        .bind(member.as_str())
        .execute(session.connection())
        .await?;
    sqlx::query(REMEMBER)
        .bind(&asked.topics)
        .bind(&asked.numbers)
        .bind(id)
        .execute(session.connection())
        .await?;
    let rows: Vec<(i64, i64)> = sqlx::query_as(SELECT_CLAIMED)
        .bind(&asked.topics)
        .bind(&asked.numbers)
        .bind(id)
        .bind(member.as_str())
        .fetch_all(session.connection())
        .await?;
    // A partition that was asked for twice is given once.
    let mut generations = BTreeMap::new();
    for (index, generation) in rows {
        generations.insert(wanted[unsigned::<usize>(index)?].clone(), unsigned(generation)?);
    }
    let granted: Vec<_> = generations.keys().cloned().collect();
    let asked = Asked::from_iter(&granted);
    let rows = sqlx::query_as(SELECT_OFFSETS)
        .bind(&asked.topics)
        .bind(&asked.numbers)
        .bind(group.as_str())
        .fetch_all(session.connection())
        .await?;
    let offsets = group_offsets(&granted, rows)?.into_iter();
    Ok(offsets
        .zip(generations.into_values())
        .map(|(offset, generation)| Claimed { offset, generation })
        .collect())
}

async fn view(session: &mut Session, group: &GroupId) -> Result<GroupView, Failure> {
    let found: Option<(i64, i64, i64)> =
        sqlx::query_as(SELECT_GROUP).bind(group.as_str()).fetch_optional(session.connection()).await?;
    let (id, generation, now_ms) = found.ok_or_else(|| MetadataError::GroupNotFound(group.to_string()))?;
    let members: Vec<(String, String)> =
        sqlx::query_as(SELECT_MEMBERS).bind(id).bind(now_ms).fetch_all(session.connection()).await?;
    let claims: Vec<(String, i64, String, i64)> =
        sqlx::query_as(SELECT_CLAIMS).bind(id).bind(now_ms).fetch_all(session.connection()).await?;
    Ok(GroupView {
        generation: unsigned(generation)?,
        members: members.into_iter().map(stored::member).collect::<Result<_>>()?,
        claims: claims.into_iter().map(stored::claim).collect::<Result<_>>()?,
    })
}
