//! Leases. A lease is its partition's row: holder, epoch and the time it ends.

use super::agents::registered;
use super::retry::OnLoss::{Repeat, Tell};
use super::session::{Failure, Session, bounded};
use super::{Asked, PostgresMetadataStore, asked, clock, now_ms};
use crate::check::{PRODUCER_SILENCE_MAX, millis, signed, term_ms};
use crate::error::Result;
use crate::model::{Lease, LeaseRow, ProducerState};
use crate::store::Leases;
use crate::stored::{self, LeaseTableRow, unsigned};
use async_trait::async_trait;
use std::collections::HashMap;
use std::time::Duration;
use streamhouse_core::{AgentId, TopicPartition};

const SELECT_LEASES: &str = concat!(
    "SELECT t.name, p.partition, a.name, p.epoch
    FROM topics t
    JOIN partitions p ON p.topic_id = t.id
    LEFT JOIN agents a ON a.id = p.agent_id AND p.expires_ms > ",
    now_ms!(),
    " ORDER BY t.name, p.partition"
);

const SELECT_ANY_FREE: &str =
    concat!("SELECT EXISTS (SELECT 1 FROM partitions WHERE expires_ms <= ", now_ms!(), ")");

const GRANT: &str = concat!(
    "WITH ",
    clock!(),
    ", ",
    asked!(),
    " UPDATE partitions p
    SET agent_id = $3, epoch = p.epoch + 1, expires_ms = clock.now_ms + $4
    FROM asked, clock
    WHERE p.topic_id = asked.topic_id AND p.partition = asked.partition AND p.expires_ms <= clock.now_ms
    RETURNING p.topic_id, p.partition, p.epoch, p.log_start, p.high_watermark, asked.topic"
);

const FORGET_SILENT_PRODUCERS: &str = concat!(
    "DELETE FROM producers p
    USING unnest($1::bigint[], $2::bigint[]) AS g (topic_id, partition)
    WHERE p.topic_id = g.topic_id AND p.partition = g.partition AND p.updated_ms < ",
    now_ms!(),
    " - $3"
);

const SELECT_PRODUCERS: &str = "
    SELECT g.ord - 1, p.producer_id, p.epoch, p.batches
    FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS g (topic_id, partition, ord)
    JOIN producers p ON p.topic_id = g.topic_id AND p.partition = g.partition
    ORDER BY g.ord, p.producer_id, p.epoch";

const RENEW: &str = concat!(
    "WITH ",
    clock!(),
    " UPDATE partitions p
    SET expires_ms = clock.now_ms + $5
    FROM clock, unnest($1::text[], $2::bigint[], $3::bigint[]) AS a (topic, partition, epoch)
    JOIN topics t ON t.name = a.topic
    WHERE p.topic_id = t.id AND p.partition = a.partition AND p.epoch = a.epoch
      AND p.agent_id = (SELECT id FROM agents WHERE name = $4) AND p.expires_ms > clock.now_ms
    RETURNING t.name, p.partition"
);

const RELEASE: &str = "
    UPDATE partitions p
    SET agent_id = NULL, expires_ms = 0
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS a (topic, partition, epoch)
    JOIN topics t ON t.name = a.topic
    WHERE p.topic_id = t.id AND p.partition = a.partition AND p.epoch = a.epoch
      AND p.agent_id = (SELECT id FROM agents WHERE name = $4)
    RETURNING t.name, p.partition";

/// The locks of [`RELEASE_ALL`], in the order of their keys.
pub(super) const LOCK_ALL_OF: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM partitions WHERE agent_id = $1 ORDER BY topic_id, partition FOR NO KEY UPDATE) AS locked";

/// Takes the agent's leases away; no other statement may leave a lease without its holder.
pub(super) const RELEASE_ALL: &str =
    "UPDATE partitions SET agent_id = NULL, expires_ms = 0 WHERE agent_id = $1";

const EXPIRE_ALL: [&str; 3] = [
    "UPDATE duties SET agent_id = NULL, expires_ms = 0",
    "SELECT count(*) FROM (
        SELECT 1 FROM partitions ORDER BY topic_id, partition FOR NO KEY UPDATE) AS locked",
    "UPDATE partitions SET agent_id = NULL, expires_ms = 0 WHERE agent_id IS NOT NULL",
];

/// Topic id, partition, epoch, log start, high watermark, topic.
type Granted = (i64, i64, i64, i64, i64, String);

#[async_trait]
impl Leases for PostgresMetadataStore {
    async fn lease_table(&self) -> Result<Vec<LeaseRow>> {
        let rows: Vec<LeaseTableRow> = self.rows(|| sqlx::query_as(SELECT_LEASES)).await?;
        rows.into_iter().map(stored::lease_row).collect()
    }

    async fn any_lease_free(&self) -> Result<bool> {
        let rows: Vec<(bool,)> = self.rows(|| sqlx::query_as(SELECT_ANY_FREE)).await?;
        Ok(rows.iter().any(|(free,)| *free))
    }

    async fn acquire_leases(
        &self,
        agent: &AgentId,
        term: Duration,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Lease>> {
        let term_ms = term_ms("lease term", term)?;
        let asked = &Asked::from_iter(wanted);
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let leases = bounded(grant(&mut session, agent, term_ms, asked)).await;
            session.end(leases).await
        };
        // A second attempt would find the leases of the first held, and give none.
        self.retry(Tell, attempt).await
    }

    async fn renew_leases(
        &self,
        agent: &AgentId,
        leases: &[(TopicPartition, u64)],
        term: Duration,
    ) -> Result<Vec<TopicPartition>> {
        let term_ms = term_ms("lease term", term)?;
        let rows = self.change_leases(RENEW, agent, leases, Some(term_ms)).await?;
        rows.iter().map(|(topic, partition)| stored::partition(topic, *partition)).collect()
    }

    async fn release_leases(&self, agent: &AgentId, leases: &[(TopicPartition, u64)]) -> Result<()> {
        self.change_leases(RELEASE, agent, leases, None).await.map(drop)
    }

    async fn release_all_leases(&self, agent: &AgentId) -> Result<()> {
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(release_all(&mut session, agent)).await;
            session.end(work).await
        };
        self.retry(Repeat, attempt).await
    }

    async fn expire_all_leases(&self) -> Result<()> {
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(async {
                for statement in EXPIRE_ALL {
                    sqlx::query(statement).execute(session.connection()).await?;
                }
                Ok(())
            });
            let work = work.await;
            session.end(work).await
        };
        self.retry(Repeat, attempt).await
    }
}

impl PostgresMetadataStore {
    /// Locks the partitions of these leases and changes those that hold; gives what was changed.
    async fn change_leases(
        &self,
        statement: &'static str,
        agent: &AgentId,
        leases: &[(TopicPartition, u64)],
        term_ms: Option<i64>,
    ) -> Result<Vec<(String, i64)>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let asked = &Asked::from_iter(leases.iter().map(|(at, _)| at));
        let epochs = leases.iter().map(|(_, epoch)| signed("an epoch of", *epoch));
        let epochs = &epochs.collect::<Result<Vec<i64>>>()?;
        let attempt = move || async move {
            let mut session = self.begin().await?;
            let work = bounded(async {
                asked.lock(&mut session).await?;
                let change = sqlx::query_as::<_, (String, i64)>(statement);
                let change =
                    change.bind(&asked.topics).bind(&asked.numbers).bind(epochs).bind(agent.as_str());
                let change = if let Some(term_ms) = term_ms { change.bind(term_ms) } else { change };
                Ok(change.fetch_all(session.connection()).await?)
            });
            let work = work.await;
            session.end(work).await
        };
        self.retry(Repeat, attempt).await
    }
}

async fn grant(
    session: &mut Session,
    agent: &AgentId,
    term_ms: i64,
    asked: &Asked,
) -> Result<Vec<Lease>, Failure> {
    let id = registered(session, agent).await?;
    asked.lock(session).await?;
    let granted: Vec<Granted> = sqlx::query_as(GRANT)
        .bind(&asked.topics)
        .bind(&asked.numbers)
        .bind(id)
        .bind(term_ms)
        .fetch_all(session.connection())
        .await?;
    let mut producers = producers(session, &granted).await?;
    let leases = granted.into_iter().enumerate().map(
        |(index, (_, partition, epoch, log_start, high_watermark, topic))| {
            Ok(Lease {
                partition: stored::partition(&topic, partition)?,
                epoch: unsigned(epoch)?,
                watermarks: stored::watermarks(log_start, high_watermark)?,
                producers: producers.remove(&index).unwrap_or_default(),
            })
        },
    );
    Ok(leases.collect::<Result<_>>()?)
}

/// The producers of the granted partitions, by the position of the grant.
async fn producers(
    session: &mut Session,
    granted: &[Granted],
) -> Result<HashMap<usize, Vec<ProducerState>>, Failure> {
    let (topics, numbers): (Vec<i64>, Vec<i64>) = granted.iter().map(|row| (row.0, row.1)).unzip();
    sqlx::query(FORGET_SILENT_PRODUCERS)
        .bind(&topics)
        .bind(&numbers)
        .bind(millis(PRODUCER_SILENCE_MAX))
        .execute(session.connection())
        .await?;
    let rows: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(SELECT_PRODUCERS).bind(&topics).bind(&numbers).fetch_all(session.connection()).await?;
    let mut producers: HashMap<usize, Vec<ProducerState>> = HashMap::new();
    for (index, producer_id, epoch, batches) in rows {
        let (producer_id, epoch) = (unsigned(producer_id)?, unsigned(epoch)?);
        let state = ProducerState { producer_id, epoch, batches: stored::window(&batches)? };
        producers.entry(unsigned(index)?).or_default().push(state);
    }
    Ok(producers)
}

async fn release_all(session: &mut Session, agent: &AgentId) -> Result<(), Failure> {
    let id: Option<i64> = sqlx::query_scalar("SELECT id FROM agents WHERE name = $1")
        .bind(agent.as_str())
        .fetch_optional(session.connection())
        .await?;
    for statement in [LOCK_ALL_OF, RELEASE_ALL] {
        sqlx::query(statement).bind(id).execute(session.connection()).await?;
    }
    Ok(())
}
