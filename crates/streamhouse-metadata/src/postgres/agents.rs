//! Agents and producer ids.

use super::retry::OnLoss::Repeat;
use super::session::{Failure, Session, bounded};
use super::{PostgresMetadataStore, now_ms};
use crate::check::not_registered;
use crate::error::{MetadataError, Result};
use crate::model::AgentInfo;
use crate::store::{Agents, Producers};
use crate::stored;
use async_trait::async_trait;
use streamhouse_core::AgentId;

const UPSERT_AGENT: &str = concat!(
    "INSERT INTO agents (name, address, heartbeat_ms) VALUES ($1, $2, ",
    now_ms!(),
    ") ON CONFLICT (name) DO UPDATE SET address = excluded.address, heartbeat_ms = excluded.heartbeat_ms
    RETURNING id"
);

const HEARTBEAT: &str =
    concat!("UPDATE agents SET heartbeat_ms = ", now_ms!(), " WHERE name = $1 RETURNING id");

const SELECT_AGENTS: &str =
    concat!("SELECT name, address, greatest(0, ", now_ms!(), " - heartbeat_ms) FROM agents ORDER BY name");

const NEXT_PRODUCER_ID: &str =
    "UPDATE counters SET value = value + 1 WHERE name = 'producer_id' RETURNING value";

/// Locks the agent's row, so that it cannot be forgotten; gives its id, or says that it is not registered.
pub(super) async fn registered(session: &mut Session, agent: &AgentId) -> Result<i64, Failure> {
    let id: Option<i64> = sqlx::query_scalar("SELECT id FROM agents WHERE name = $1 FOR KEY SHARE")
        .bind(agent.as_str())
        .fetch_optional(session.connection())
        .await?;
    Ok(id.ok_or_else(|| not_registered(agent))?)
}

#[async_trait]
impl Agents for PostgresMetadataStore {
    async fn register_agent(&self, agent: &AgentId, address: &str) -> Result<()> {
        let _: Vec<(i64,)> =
            self.change(|| sqlx::query_as(UPSERT_AGENT).bind(agent.as_str()).bind(address)).await?;
        Ok(())
    }

    async fn heartbeat(&self, agent: &AgentId) -> Result<()> {
        let updated: Vec<(i64,)> = self.change(|| sqlx::query_as(HEARTBEAT).bind(agent.as_str())).await?;
        updated.first().map(drop).ok_or_else(|| not_registered(agent))
    }

    async fn deregister_agent(&self, agent: &AgentId) -> Result<()> {
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(forget(&mut session, agent)).await;
            session.end(work).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn agents(&self) -> Result<Vec<AgentInfo>> {
        let rows: Vec<(String, String, i64)> = self.rows(|| sqlx::query_as(SELECT_AGENTS)).await?;
        rows.into_iter()
            .map(|(name, address, heartbeat_age_ms)| {
                Ok(AgentInfo { id: stored::name(&name)?, address, heartbeat_age_ms })
            })
            .collect()
    }
}

async fn forget(session: &mut Session, agent: &AgentId) -> Result<(), Failure> {
    let id: Option<i64> = sqlx::query_scalar("SELECT id FROM agents WHERE name = $1 FOR UPDATE")
        .bind(agent.as_str())
        .fetch_optional(session.connection())
        .await?;
    let Some(id) = id else { return Ok(()) };
    let give_up = [
        "UPDATE duties SET agent_id = NULL, expires_ms = 0 WHERE agent_id = $1",
        super::leases::LOCK_ALL_OF,
        super::leases::RELEASE_ALL,
        "DELETE FROM agents WHERE id = $1",
    ];
    for statement in give_up {
        sqlx::query(statement).bind(id).execute(session.connection()).await?;
    }
    Ok(())
}

#[async_trait]
impl Producers for PostgresMetadataStore {
    async fn new_producer_id(&self) -> Result<u64> {
        // An id that nobody heard of is passed over.
        let ids: Vec<(i64,)> = self.change(|| sqlx::query_as(NEXT_PRODUCER_ID)).await?;
        let (id,) = ids.first().ok_or_else(|| {
            MetadataError::Corrupt("the counter of producer ids is gone; restore the database".to_owned())
        })?;
        stored::unsigned(*id)
    }
}
