//! Members of groups and their claims.

use super::{SqliteMetadataStore, json_partitions, now_ms};
use crate::check::{not_a_member, term_ms};
use crate::error::{MetadataError, Result};
use crate::model::{Claimed, GroupView};
use crate::store::Members;
use crate::stored::{self, unsigned};
use async_trait::async_trait;
use sqlx::SqliteConnection;
use std::collections::HashMap;
use std::time::Duration;
use streamhouse_core::{GroupId, MemberId, TopicName, TopicPartition};

/// The group, how many of its members are dead by now, and what is now. The dead are part of its generation, whoever
/// removes them.
const SELECT_GROUP: &str = concat!(
    "SELECT id, generation, (SELECT count(*) FROM group_members WHERE group_id = id AND expires_ms <= now_ms), now_ms
    FROM (SELECT ",
    now_ms!(),
    " AS now_ms) CROSS JOIN consumer_groups WHERE name = ?1"
);

const DELETE_DEAD: &str =
    concat!("DELETE FROM group_members WHERE group_id = ?1 AND expires_ms <= ", now_ms!());

const RAISE_GENERATION: &str = "UPDATE consumer_groups SET generation = generation + ?2 WHERE id = ?1";

const INSERT_GROUP: &str = "INSERT INTO consumer_groups (name) VALUES (?1) RETURNING id";

const SELECT_TOPICS: &str = "SELECT topics FROM group_members WHERE group_id = ?1 AND member = ?2";

const UPSERT_MEMBER: &str = concat!(
    "INSERT INTO group_members (group_id, member, topics, expires_ms) VALUES (?1, ?2, ?3, ?4 + ",
    now_ms!(),
    ") ON CONFLICT DO UPDATE SET topics = excluded.topics, expires_ms = excluded.expires_ms"
);

const EXTEND_SESSION: &str =
    concat!("UPDATE group_members SET expires_ms = ?3 + ", now_ms!(), " WHERE group_id = ?1 AND member = ?2");

/// The `WHERE` keeps `ON` from being read as a join's.
pub(super) const CLAIM: &str = "
    INSERT INTO group_claims (group_id, topic_id, partition, member, generation)
    SELECT g.id, p.topic_id, p.partition, ?3, g.generation
    FROM json_each(?1) AS j
    CROSS JOIN consumer_groups g ON g.id = ?2
    CROSS JOIN topics t ON t.name = j.value ->> 0
    CROSS JOIN partitions p ON p.topic_id = t.id AND p.partition = j.value ->> 1
    WHERE true
    ON CONFLICT DO NOTHING";

/// A group that reads a partition is behind on it, though it may never commit. The `WHERE` is for the same reason.
pub(super) const REMEMBER: &str = "
    INSERT INTO group_offsets (group_id, topic_id, partition)
    SELECT ?2, p.topic_id, p.partition
    FROM json_each(?1) AS j
    CROSS JOIN topics t ON t.name = j.value ->> 0
    CROSS JOIN partitions p ON p.topic_id = t.id AND p.partition = j.value ->> 1
    WHERE true
    ON CONFLICT DO NOTHING";

pub(super) const SELECT_CLAIMED: &str = "
    SELECT j.key, c.generation
    FROM json_each(?1) AS j
    CROSS JOIN topics t ON t.name = j.value ->> 0
    CROSS JOIN group_claims c ON c.group_id = ?2 AND c.topic_id = t.id AND c.partition = j.value ->> 1
    WHERE c.member = ?3";

pub(super) const RELEASE: &str = "
    DELETE FROM group_claims
    WHERE group_id = ?2 AND member = ?3 AND (topic_id, partition) IN (
        SELECT t.id, j.value ->> 1 FROM json_each(?1) AS j CROSS JOIN topics t ON t.name = j.value ->> 0)";

const SELECT_MEMBERS: &str =
    "SELECT member, topics FROM group_members WHERE group_id = ?1 AND expires_ms > ?2 ORDER BY member";

/// Without those of dead members.
const SELECT_CLAIMS: &str = "
    SELECT t.name, c.partition, c.member, c.generation
    FROM group_members m
    CROSS JOIN group_claims c ON c.group_id = m.group_id AND c.member = m.member
    CROSS JOIN topics t ON t.id = c.topic_id
    WHERE m.group_id = ?1 AND m.expires_ms > ?2
    ORDER BY t.name, c.partition";

#[async_trait]
impl Members for SqliteMetadataStore {
    async fn join_group(
        &self,
        group: &GroupId,
        member: &MemberId,
        topics: &[TopicName],
        session: Duration,
    ) -> Result<GroupView> {
        let session_ms = term_ms("session", session)?;
        let topics = stored::member_topics(topics);
        let mut transaction = self.begin().await?;
        let id = match self.living_group(&mut transaction, group).await? {
            Some(id) => id,
            None => self.new_group(&mut transaction, group).await?,
        };
        let before: Option<String> = sqlx::query_scalar(SELECT_TOPICS)
            .bind(id)
            .bind(member.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        sqlx::query(UPSERT_MEMBER)
            .bind(id)
            .bind(member.as_str())
            .bind(&topics)
            .bind(session_ms)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        if before.as_ref() != Some(&topics) {
            self.raise_generation(&mut transaction, id, 1).await?;
        }
        let view = self.view(&mut transaction, group).await?;
        self.commit(transaction).await?;
        Ok(view)
    }

    async fn heartbeat_member(
        &self,
        group: &GroupId,
        member: &MemberId,
        session: Duration,
    ) -> Result<GroupView> {
        let session_ms = term_ms("session", session)?;
        let mut transaction = self.begin().await?;
        let id = self.living_group(&mut transaction, group).await?;
        let extended = sqlx::query(EXTEND_SESSION)
            .bind(id)
            .bind(member.as_str())
            .bind(session_ms)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        if extended.rows_affected() == 0 {
            return Err(not_a_member(group, member));
        }
        let view = self.view(&mut transaction, group).await?;
        self.commit(transaction).await?;
        Ok(view)
    }

    async fn claim_partitions(
        &self,
        group: &GroupId,
        member: &MemberId,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Claimed>> {
        let mut transaction = self.begin().await?;
        let id = self.living_group(&mut transaction, group).await?;
        self.check_member(&mut transaction, id, group, member).await?;
        let asked = json_partitions(wanted);
        sqlx::query(CLAIM)
            .bind(&asked)
            .bind(id)
            .bind(member.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        sqlx::query(REMEMBER)
            .bind(&asked)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let rows: Vec<(i64, i64)> = sqlx::query_as(SELECT_CLAIMED)
            .bind(&asked)
            .bind(id)
            .bind(member.as_str())
            .fetch_all(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        // A partition that was asked for twice is given once.
        let mut generations = HashMap::new();
        for (index, generation) in rows {
            generations.insert(wanted[unsigned::<usize>(index)?].clone(), unsigned(generation)?);
        }
        let granted: Vec<_> = generations.keys().cloned().collect();
        let offsets = self.offsets(&mut transaction, group, &granted).await?;
        self.commit(transaction).await?;
        let claimed = offsets.into_iter().map(|offset| {
            let generation = generations[&offset.partition];
            Claimed { offset, generation }
        });
        Ok(claimed.collect())
    }

    async fn release_claims(
        &self,
        group: &GroupId,
        member: &MemberId,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = self.living_group(&mut transaction, group).await?;
        sqlx::query(RELEASE)
            .bind(json_partitions(partitions))
            .bind(id)
            .bind(member.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }

    async fn leave_group(&self, group: &GroupId, member: &MemberId) -> Result<()> {
        let mut transaction = self.begin().await?;
        let Some(id) = self.living_group(&mut transaction, group).await? else { return Ok(()) };
        let left = sqlx::query("DELETE FROM group_members WHERE group_id = ?1 AND member = ?2")
            .bind(id)
            .bind(member.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.raise_generation(&mut transaction, id, left.rows_affected()).await?;
        self.commit(transaction).await
    }

    async fn group_view(&self, group: &GroupId) -> Result<GroupView> {
        let mut transaction = self.readers.begin().await.map_err(|error| self.failed(error))?;
        self.view(&mut transaction, group).await
    }
}

impl SqliteMetadataStore {
    /// The group's id, after its dead members were removed; `None` when there is no such group.
    pub(super) async fn living_group(
        &self,
        connection: &mut SqliteConnection,
        group: &GroupId,
    ) -> Result<Option<i64>> {
        let found: Option<(i64, i64, i64, i64)> = sqlx::query_as(SELECT_GROUP)
            .bind(group.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        let Some((id, _, dead, _)) = found else { return Ok(None) };
        if dead > 0 {
            let removed = sqlx::query(DELETE_DEAD)
                .bind(id)
                .execute(&mut *connection)
                .await
                .map_err(|error| self.failed(error))?;
            self.raise_generation(connection, id, removed.rows_affected()).await?;
        }
        Ok(Some(id))
    }

    pub(super) async fn new_group(&self, connection: &mut SqliteConnection, group: &GroupId) -> Result<i64> {
        sqlx::query_scalar(INSERT_GROUP)
            .bind(group.as_str())
            .fetch_one(connection)
            .await
            .map_err(|error| self.failed(error))
    }

    /// `MemberFenced` when the member is not in the group, whose dead members were removed.
    pub(super) async fn check_member(
        &self,
        connection: &mut SqliteConnection,
        id: Option<i64>,
        group: &GroupId,
        member: &MemberId,
    ) -> Result<()> {
        let topics: Option<String> = sqlx::query_scalar(SELECT_TOPICS)
            .bind(id)
            .bind(member.as_str())
            .fetch_optional(connection)
            .await
            .map_err(|error| self.failed(error))?;
        topics.map(drop).ok_or_else(|| not_a_member(group, member))
    }

    async fn raise_generation(&self, connection: &mut SqliteConnection, id: i64, by: u64) -> Result<()> {
        sqlx::query(RAISE_GENERATION)
            .bind(id)
            .bind(i64::try_from(by).expect("fewer members than i64 counts"))
            .execute(connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    async fn view(&self, connection: &mut SqliteConnection, group: &GroupId) -> Result<GroupView> {
        let found: Option<(i64, i64, i64, i64)> = sqlx::query_as(SELECT_GROUP)
            .bind(group.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        let (id, generation, dead, now_ms) =
            found.ok_or_else(|| MetadataError::GroupNotFound(group.to_string()))?;
        let members: Vec<(String, String)> = sqlx::query_as(SELECT_MEMBERS)
            .bind(id)
            .bind(now_ms)
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        let claims: Vec<(String, i64, String, i64)> = sqlx::query_as(SELECT_CLAIMS)
            .bind(id)
            .bind(now_ms)
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(GroupView {
            generation: unsigned(generation + dead)?,
            members: members.into_iter().map(stored::member).collect::<Result<_>>()?,
            claims: claims.into_iter().map(stored::claim).collect::<Result<_>>()?,
        })
    }
}
