//! Where a metadata store is: one string for configuration and command lines.

use crate::error::{MetadataError, Result};
use crate::postgres::{PostgresMetadataStore, PostgresUrl};
use crate::sqlite::{AgentLock, SqliteMetadataStore};
use crate::store::MetadataStore;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where a metadata store is: a PostgreSQL database or an SQLite file.
///
/// Parsed from `postgres://user:password@host:port/database`, `sqlite:PATH` or a path. Neither `Display` nor `Debug` shows
/// a password.
///
/// ```
/// use streamhouse_metadata::MetadataUrl;
///
/// let url: MetadataUrl = "postgres://streamhouse:secret@db.example:5432/log".parse()?;
/// assert_eq!(url.to_string(), "postgres://streamhouse@db.example:5432/log");
/// let url: MetadataUrl = "./streamhouse/metadata.db".parse()?;
/// assert_eq!(url.to_string(), "sqlite:./streamhouse/metadata.db");
/// # Ok::<(), streamhouse_metadata::MetadataError>(())
/// ```
#[derive(Clone, Debug)]
pub enum MetadataUrl {
    /// An SQLite file, for one agent at a time.
    Sqlite(PathBuf),
    /// A PostgreSQL database, for any number of agents.
    Postgres(PostgresUrl),
}

/// A store as an agent opens it.
pub struct AgentStore {
    /// The store.
    pub store: Arc<dyn MetadataStore>,
    /// The right to be the one agent on it, where agents cannot share: keep it as long as the store, and let the leases
    /// of the predecessor, which is known to be dead, expire first. `None` where many agents may run.
    pub lock: Option<AgentLock>,
}

impl MetadataUrl {
    /// Opens the store; creates the file or the tables when they do not exist, and brings older ones up to date.
    ///
    /// # Errors
    ///
    /// `Unusable` or `Unavailable` when it cannot be used, with what to do about it.
    pub async fn open(&self) -> Result<Arc<dyn MetadataStore>> {
        match self {
            MetadataUrl::Sqlite(path) => Ok(Arc::new(SqliteMetadataStore::new(path).await?)),
            MetadataUrl::Postgres(url) => Ok(Arc::new(PostgresMetadataStore::open(url.clone()).await?)),
        }
    }

    /// Opens the store for an agent, with the lock that keeps a second agent away where there can be only one.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); `AgentRuns` when another agent has the lock.
    pub async fn open_for_agent(&self) -> Result<AgentStore> {
        match self {
            MetadataUrl::Sqlite(path) => {
                let store = SqliteMetadataStore::new(path).await?;
                let lock = Some(store.lock_agent()?);
                Ok(AgentStore { store: Arc::new(store), lock })
            }
            MetadataUrl::Postgres(url) => {
                let store = PostgresMetadataStore::open(url.clone()).await?;
                Ok(AgentStore { store: Arc::new(store), lock: None })
            }
        }
    }

    /// Opens a store that is there for reading only: nothing in it is created, changed or brought up to date, and every
    /// call that would write is refused.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_read_only(&self) -> Result<Arc<dyn MetadataStore>> {
        match self {
            MetadataUrl::Sqlite(path) => Ok(Arc::new(SqliteMetadataStore::open_read_only(path).await?)),
            MetadataUrl::Postgres(url) => {
                Ok(Arc::new(PostgresMetadataStore::open_read_only(url.clone()).await?))
            }
        }
    }
}

impl FromStr for MetadataUrl {
    type Err = MetadataError;

    fn from_str(url: &str) -> Result<Self> {
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url);
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(MetadataUrl::Postgres(url.parse()?));
        }
        if path.is_empty() {
            return Err(MetadataError::Invalid(
                "the metadata store's URL names no file; give a path, sqlite:PATH or postgres://HOST/DATABASE"
                    .to_owned(),
            ));
        }
        Ok(MetadataUrl::Sqlite(path.into()))
    }
}

impl fmt::Display for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetadataUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            MetadataUrl::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Debug for AgentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentStore").field("lock", &self.lock).finish_non_exhaustive()
    }
}
