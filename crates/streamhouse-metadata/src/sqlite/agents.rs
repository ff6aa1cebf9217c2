//! Agents and producer ids.

use super::{SqliteMetadataStore, now_ms};
use crate::check::not_registered;
use crate::error::Result;
use crate::model::AgentInfo;
use crate::store::{Agents, Producers};
use crate::stored;
use async_trait::async_trait;
use streamhouse_core::AgentId;

const UPSERT_AGENT: &str = concat!(
    "INSERT INTO agents (name, address, heartbeat_ms) VALUES (?1, ?2, ",
    now_ms!(),
    ") ON CONFLICT (name) DO UPDATE SET address = excluded.address, heartbeat_ms = excluded.heartbeat_ms"
);

const HEARTBEAT: &str = concat!("UPDATE agents SET heartbeat_ms = ", now_ms!(), " WHERE name = ?1");

const SELECT_AGENTS: &str =
    concat!("SELECT name, address, max(0, ", now_ms!(), " - heartbeat_ms) FROM agents ORDER BY name");

const NEXT_PRODUCER_ID: &str =
    "UPDATE counters SET value = value + 1 WHERE name = 'producer_id' RETURNING value";

#[async_trait]
impl Agents for SqliteMetadataStore {
    async fn register_agent(&self, agent: &AgentId, address: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(UPSERT_AGENT)
            .bind(agent.as_str())
            .bind(address)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }

    async fn heartbeat(&self, agent: &AgentId) -> Result<()> {
        let mut transaction = self.begin().await?;
        let updated = sqlx::query(HEARTBEAT)
            .bind(agent.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        if updated.rows_affected() == 0 {
            return Err(not_registered(agent));
        }
        self.commit(transaction).await
    }

    async fn deregister_agent(&self, agent: &AgentId) -> Result<()> {
        let mut transaction = self.begin().await?;
        let forget =
            [super::leases::RELEASE_ALL, super::upkeep::RELEASE_DUTIES, "DELETE FROM agents WHERE name = ?1"];
        for statement in forget {
            sqlx::query(statement)
                .bind(agent.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(|error| self.failed(error))?;
        }
        self.commit(transaction).await
    }

    async fn agents(&self) -> Result<Vec<AgentInfo>> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(SELECT_AGENTS)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter()
            .map(|(name, address, heartbeat_age_ms)| {
                Ok(AgentInfo { id: stored::name(&name)?, address, heartbeat_age_ms })
            })
            .collect()
    }
}

#[async_trait]
impl Producers for SqliteMetadataStore {
    async fn new_producer_id(&self) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let id: i64 = sqlx::query_scalar(NEXT_PRODUCER_ID)
            .fetch_one(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        stored::unsigned(id)
    }
}
