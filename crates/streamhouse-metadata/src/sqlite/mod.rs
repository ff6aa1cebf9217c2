//! The embedded store: one SQLite file, shared by every process on the machine that uses it.
//!
//! Write-ahead logging lets readers go on while somebody writes; a handle has one writing connection and a few that only
//! read. Every write is a `BEGIN IMMEDIATE` transaction: it has the file's write lock before it reads, so what it
//! checked still holds when it commits.
//!
//! Lists travel as one JSON parameter (`json_each`): a statement is prepared once and runs once, however many partitions.

mod agents;
mod errors;
mod file;
mod groups;
mod leases;
mod lock;
mod members;
mod open;
mod retention;
mod segments;
mod topics;
mod upkeep;

#[cfg(test)]
mod tests;

pub use lock::AgentLock;

use crate::error::{MetadataError, Result};
use file::OpenFile;
use serde::Serialize;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamhouse_core::TopicPartition;

/// How long a write waits for the file's write lock, which one process at a time holds, before it is `Busy`.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two attempts to get the write lock: shorter than a commit takes on a slow disk.
const WRITE_RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Database time in milliseconds since 1970, as SQL. One value within one statement.
macro_rules! now_ms {
    () => {
        "CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER)"
    };
}
pub(crate) use now_ms;

/// A metadata store in one SQLite file. Clones share the connections.
///
/// Several processes may have the same file open; agents keep each other out with [`lock_agent`](Self::lock_agent).
///
/// ```no_run
/// # async fn example() -> streamhouse_metadata::Result<()> {
/// use streamhouse_metadata::{Retention, SqliteMetadataStore, Topics};
///
/// let store = SqliteMetadataStore::new("streamhouse/metadata.db").await?;
/// store.create_topic(&"orders".parse().expect("a valid name"), 3, Retention::default()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteMetadataStore {
    path: Arc<Path>,
    /// `None` while the file is opened, and in a store that only reads.
    file: Option<Arc<OpenFile>>,
    writer: SqlitePool,
    readers: SqlitePool,
    read_only: bool,
    write_wait: Duration,
}

impl SqliteMetadataStore {
    /// Opens the file; creates it and its directories when they do not exist, and brings an older file up to date.
    ///
    /// # Errors
    ///
    /// `Unusable` when the path cannot be used, with what to do about it; `Busy` when another process kept the file
    /// locked for more than ten seconds.
    pub async fn new(path: impl AsRef<Path>) -> Result<Self> {
        open::open(path.as_ref()).await
    }

    /// Opens a file that is there for reading: nothing is created in it, changed or brought up to date. Read access to the
    /// file and its directory is enough while an agent has the file open or after it was killed; a file that was closed in
    /// order can only be read by who may write to its directory. Every call that would write is `Invalid`.
    ///
    /// # Errors
    ///
    /// `Unusable` when the path cannot be used, with what to do about it.
    pub async fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        open::open_read_only(path.as_ref()).await
    }

    /// Keeps every other agent off this file until the lock is dropped or the process ends, however it ends.
    ///
    /// # Errors
    ///
    /// `AgentRuns` with the process id of the agent that has the lock; `Unusable` when the lock file cannot be written.
    pub fn lock_agent(&self) -> Result<AgentLock> {
        self.check_writable()?;
        AgentLock::take(&self.path)
    }

    /// Waits for what is under way and closes the file. Later calls on any clone fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins a write transaction; it holds the write lock from here on. Fails when the file is not the one at its path
    /// any more: what is written into a file without a name is lost when the last process closes it.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        self.check_writable()?;
        let deadline = Instant::now() + self.write_wait;
        loop {
            match self.writer.begin_with("BEGIN IMMEDIATE").await {
                Err(error) if errors::is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(WRITE_RETRY_PAUSE).await;
                }
                begun => {
                    let transaction = begun.map_err(|error| self.failed(error))?;
                    self.file.as_ref().map_or(Ok(()), |file| file.check(&self.path))?;
                    return Ok(transaction);
                }
            }
        }
    }

    /// Runs statements whose one parameter is the id of what they change.
    async fn execute_each(
        &self,
        connection: &mut SqliteConnection,
        statements: &[&'static str],
        id: i64,
    ) -> Result<()> {
        for statement in statements {
            let done = sqlx::query(*statement).bind(id).execute(&mut *connection).await;
            done.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Commits. `Unknown` unless it is certain that nothing happened.
    async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<()> {
        transaction.commit().await.map_err(|error| {
            if errors::is_certain_at_commit(&error) {
                self.failed(error)
            } else {
                MetadataError::Unknown(error.into())
            }
        })
    }

    fn failed(&self, error: sqlx::Error) -> MetadataError {
        let explain = if self.read_only { errors::explain_reading } else { errors::explain };
        explain(&self.path, error)
    }

    fn check_writable(&self) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        Err(MetadataError::Invalid(format!(
            "the metadata store {} was opened for reading only; open it with `SqliteMetadataStore::new` to change it",
            self.path.display()
        )))
    }
}

/// A list as one parameter, for `json_each`.
fn json(list: &impl Serialize) -> String {
    serde_json::to_string(list).expect("numbers, strings and lists of them are always JSON")
}

/// Partitions as one parameter: `[[topic, partition], ...]`.
fn json_partitions<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> String {
    let rows: Vec<_> = partitions.into_iter().map(|at| (at.topic.as_str(), at.partition)).collect();
    json(&rows)
}
