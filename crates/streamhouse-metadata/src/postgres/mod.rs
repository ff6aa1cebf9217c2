//! The shared store: one PostgreSQL database for any number of agents and clients.
//!
//! # Locks
//!
//! Every transaction is `READ COMMITTED`: each statement sees what was committed before it began. A transaction that
//! changes something first locks the rows that decide about it, in the order of their keys and of these tables: agents,
//! consumer groups or duties, topics, partitions. So two transactions never wait for each other in a circle. What it checks, it
//! checks in a later statement, which reads the clock, once, after the locks are held: however long it had to wait,
//! nothing that it finds unexpired had expired when it was locked (invariant 1).
//!
//! # Failures
//!
//! A connection that fails before `COMMIT` is sent has changed nothing: the transaction is repeated for up to
//! [`RETRY_MAX`], with pauses that grow, as after a deadlock, a serialization failure or a lock that was not had in time.
//! When the answer to `COMMIT` is lost, what can be repeated is repeated; for the rest the outcome is `Unknown`. Nothing
//! waits without a bound: neither here nor at the server, which ends the transaction of a client that stops in it.

mod agents;
mod errors;
mod groups;
mod leases;
mod members;
mod open;
mod retention;
mod retry;
mod segments;
mod session;
mod topics;
mod upkeep;

pub use open::PostgresUrl;

use crate::error::Result;
use retry::Losses;
use session::{Failure, Session};
use sqlx::PgPool;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_core::TopicPartition;

/// How long what failed without effect is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Database time in milliseconds since 1970, as SQL: when it is evaluated, not when the transaction began.
macro_rules! now_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}
pub(crate) use now_ms;

/// A first term of `WITH`: the clock, read once.
macro_rules! clock {
    () => {
        concat!("clock AS MATERIALIZED (SELECT ", super::now_ms!(), " AS now_ms)")
    };
}
pub(crate) use clock;

/// A term of `WITH`: the partitions of the first two parameters, those that exist.
macro_rules! asked {
    () => {
        "asked AS MATERIALIZED (
            SELECT t.id AS topic_id, t.name AS topic, a.partition, a.ord
            FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS a (topic, partition, ord)
            JOIN topics t ON t.name = a.topic)"
    };
}
pub(crate) use asked;

/// A metadata store in a PostgreSQL database. Clones share the connections.
///
/// Any number of processes may use the database, in any version that knows its tables.
///
/// ```no_run
/// # async fn example() -> streamhouse_metadata::Result<()> {
/// use streamhouse_metadata::{PostgresMetadataStore, Retention, Topics};
///
/// let store = PostgresMetadataStore::connect("postgres://streamhouse:secret@db.example/log").await?;
/// store.create_topic(&"orders".parse().expect("a valid name"), 3, Retention::default()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresMetadataStore {
    url: PostgresUrl,
    pool: PgPool,
    losses: Arc<Losses>,
    read_only: bool,
}

impl PostgresMetadataStore {
    /// Connects to the database of a `postgres://` URL; creates the tables when it is empty, and brings older ones up to
    /// date, also when many do so at once.
    ///
    /// # Errors
    ///
    /// `Invalid` when the URL is none; `Unusable` when the database cannot be used, with what to do about it.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::open(url.parse()?).await
    }

    pub(crate) async fn open(url: PostgresUrl) -> Result<Self> {
        open::open(url).await
    }

    pub(crate) async fn open_read_only(url: PostgresUrl) -> Result<Self> {
        open::open_read_only(url).await
    }

    /// Connects for reading only: nothing is created, changed or brought up to date, a standby will do, and every call that
    /// would write is `Invalid`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_read_only(url: &str) -> Result<Self> {
        Self::open_read_only(url.parse()?).await
    }

    /// Waits for what is under way and closes the connections. Later calls on any clone fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl fmt::Debug for PostgresMetadataStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresMetadataStore").field(&self.url).finish()
    }
}

/// Partitions as two parameters.
struct Asked {
    topics: Vec<String>,
    numbers: Vec<i64>,
}

impl<'a> FromIterator<&'a TopicPartition> for Asked {
    fn from_iter<I: IntoIterator<Item = &'a TopicPartition>>(partitions: I) -> Self {
        let (topics, numbers) =
            partitions.into_iter().map(|at| (at.topic.to_string(), i64::from(at.partition))).unzip();
        Asked { topics, numbers }
    }
}

/// In the order of their keys. Counted, so that no row travels.
const LOCK_PARTITIONS: &str = concat!(
    "WITH ",
    asked!(),
    " SELECT count(*) FROM (
        SELECT 1 FROM asked JOIN partitions p ON p.topic_id = asked.topic_id AND p.partition = asked.partition
        ORDER BY p.topic_id, p.partition
        FOR NO KEY UPDATE OF p) AS locked"
);

impl Asked {
    /// Locks these partitions until the transaction ends.
    async fn lock(&self, session: &mut Session) -> Result<(), Failure> {
        sqlx::query(LOCK_PARTITIONS)
            .bind(&self.topics)
            .bind(&self.numbers)
            .execute(session.connection())
            .await?;
        Ok(())
    }
}
