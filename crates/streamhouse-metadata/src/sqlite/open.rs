//! Opening the file: directories, connections, migrations.

use super::errors::{IS_DIRECTORY, IS_FOREIGN, IS_NEWER, cannot_create, explain, unusable};
use super::{SqliteMetadataStore, WRITE_WAIT_MAX};
use crate::error::Result;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

static MIGRATOR: Migrator = sqlx::migrate!();

/// `PRAGMA application_id` of our files: "SHM1". The first migration sets it.
const APPLICATION_ID: i64 = 0x5348_4d31;
/// Connections that only read. Each is a thread; a read takes microseconds.
const READERS_MAX: u32 = 4;
/// How long SQLite itself waits for a lock. It sleeps in ever longer steps, up to 100 ms; this stays within the short
/// ones, and `SqliteMetadataStore::begin` goes on from there.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_millis(10);
/// Readers meet a lock only while the file is created or recovered after a crash.
const READER_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this size after it was checkpointed.
const JOURNAL_BYTES_MAX: u32 = 64 << 20;

pub(super) async fn open(path: &Path) -> Result<SqliteMetadataStore> {
    // Absolute, so that it means the same file after a change of directory, and so that SQLite's special names
    // (":memory:") are files like any other.
    let path = std::path::absolute(path).map_err(|error| cannot_create(path, error))?;
    if path.is_dir() {
        return Err(unusable(&path, IS_DIRECTORY, io::Error::from(io::ErrorKind::IsADirectory).into()));
    }
    if let Some(directory) = path.parent() {
        create_directory(directory).map_err(|error| cannot_create(&path, error))?;
    }
    if path.metadata().is_ok_and(|file| file.len() > 0) {
        check_ours(&path).await?;
    }

    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("journal_size_limit", JOURNAL_BYTES_MAX.to_string())
        .disable_statement_logging();
    let writer = options.clone().create_if_missing(true).busy_timeout(WRITER_BUSY_TIMEOUT);
    let reader = options.pragma("query_only", "ON").busy_timeout(READER_BUSY_TIMEOUT);

    let pool = SqlitePoolOptions::new()
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(WRITE_WAIT_MAX);
    let mut store = SqliteMetadataStore {
        path: path.into(),
        writer: pool
            .clone()
            .max_connections(1)
            .after_release(|connection, _| Box::pin(is_whole(connection)))
            .connect_lazy_with(writer),
        readers: pool.max_connections(READERS_MAX).connect_lazy_with(reader),
        write_wait: WRITE_WAIT_MAX,
    };
    store.migrate().await?;
    // Two links to one file mean one agent lock.
    let real = store.path.canonicalize().map_err(|error| cannot_create(&store.path, error))?;
    store.path = real.into();
    Ok(store)
}

/// Creates the directory and those above it, each durable before the next.
fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        create_directory(parent)?;
        match std::fs::create_dir(directory) {
            // Another process was first; it may not have synced yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            created => created?,
        }
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl SqliteMetadataStore {
    /// Brings the file up to date, while other processes may be doing the same: one transaction around all migrations,
    /// so the second finds them done.
    async fn migrate(&self) -> Result<()> {
        let mut transaction = self.begin().await?;
        // `run` takes any `Acquire`, which the compiler cannot prove `Send` for a borrowed connection.
        MIGRATOR.run_direct(None, &mut *transaction, false).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => self.failed(error),
            // Every other error says that the file's migrations are not those of this program.
            error => unusable(&self.path, IS_NEWER, sqlx::Error::Migrate(Box::new(error))),
        })?;
        // SQLite opens a file that it may not write for reading only, and says so at the first write.
        sqlx::query("UPDATE counters SET value = value WHERE false")
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }
}

/// Whether a connection can be used again. After a COMMIT that failed, SQLite may have ended the transaction without the
/// driver's knowledge, so that every later `BEGIN` on it would be refused.
async fn is_whole(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    if connection.is_in_transaction() {
        // The rollback of a dropped transaction is on its way; this comes after it.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// A file with tables in it that this program did not make is refused before anything, its journal mode for one, is
/// changed.
async fn check_ours(path: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(READER_BUSY_TIMEOUT)
        .disable_statement_logging();
    let identity = async || {
        let mut connection = options.connect().await?;
        let identity: (i64, i64) = sqlx::query_as(
            "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(identity)
    };
    match identity().await.map_err(|error| explain(path, error))? {
        // The second is a file that another process is about to make its own.
        (APPLICATION_ID, _) | (0, 0) => Ok(()),
        _ => {
            let source = sqlx::Error::Protocol("the file belongs to another program".into());
            Err(unusable(path, IS_FOREIGN, source))
        }
    }
}
