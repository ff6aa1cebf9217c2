//! Opening the file: directories, connections, migrations.

use super::errors::{
    IS_DIRECTORY, IS_EMPTY, IS_FOREIGN, IS_NEWER, IS_NO_FILE, IS_OLDER, cannot_create, cannot_read, explain,
    explain_reading, refused, unusable,
};
use super::{OpenFile, SqliteMetadataStore, WRITE_WAIT_MAX};
use crate::error::{MetadataError, Result};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

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
    if let Ok(file) = path.metadata() {
        check_file(&path, &file)?;
    }
    if let Some(directory) = path.parent() {
        create_directory(directory).map_err(|error| cannot_create(&path, error))?;
    }
    if path.metadata().is_ok_and(|file| file.len() > 0) {
        is_ours(&path, explain).await?;
    }

    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("journal_size_limit", JOURNAL_BYTES_MAX.to_string())
        .disable_statement_logging();
    let writer = options.clone().busy_timeout(WRITER_BUSY_TIMEOUT);
    let mut store = SqliteMetadataStore {
        path: path.into(),
        file: None,
        writer: pool_options()
            .max_connections(1)
            .after_release(|connection, _| Box::pin(is_whole(connection)))
            .connect_lazy_with(writer.clone().create_if_missing(true)),
        readers: readers(options),
        read_only: false,
        write_wait: WRITE_WAIT_MAX,
    };
    store.migrate().await?;
    // Two links to one file mean one agent lock.
    let real = store.path.canonicalize().map_err(|error| cannot_create(&store.path, error))?;
    store.file = Some(Arc::new(OpenFile::at(&real)?));
    store.path = real.into();
    // A connection that takes the place of a broken one must not make a file where ours was removed.
    store.writer.set_connect_options(writer);
    Ok(store)
}

/// Opens a file that is there, and changes nothing in it.
pub(super) async fn open_read_only(path: &Path) -> Result<SqliteMetadataStore> {
    let path = std::path::absolute(path).map_err(|error| cannot_read(path, error))?;
    let file = path.metadata().map_err(|error| cannot_read(&path, error))?;
    check_file(&path, &file)?;
    if file.len() == 0 || !is_ours(&path, explain_reading).await? {
        return Err(unusable(&path, IS_EMPTY));
    }
    // SQLite opens the file for writing when it may, which lets it tidy up behind itself; `query_only` keeps what is in
    // it as it is.
    let readers = readers(SqliteConnectOptions::new().filename(&path).disable_statement_logging());
    let store = SqliteMetadataStore {
        path: path.into(),
        file: None,
        writer: readers.clone(),
        readers,
        read_only: true,
        write_wait: WRITE_WAIT_MAX,
    };
    store.check_version().await?;
    Ok(store)
}

fn readers(options: SqliteConnectOptions) -> SqlitePool {
    let options = options.pragma("query_only", "ON").busy_timeout(READER_BUSY_TIMEOUT);
    pool_options().max_connections(READERS_MAX).connect_lazy_with(options)
}

fn pool_options() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(WRITE_WAIT_MAX)
}

/// Devices and pipes are refused too: SQLite would read and write them.
fn check_file(path: &Path, file: &Metadata) -> Result<()> {
    match file.file_type() {
        kind if kind.is_dir() => Err(unusable(path, IS_DIRECTORY)),
        kind if !kind.is_file() => Err(unusable(path, IS_NO_FILE)),
        _ => Ok(()),
    }
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
            error => refused(&self.path, IS_NEWER, &sqlx::Error::Migrate(Box::new(error))),
        })?;
        // SQLite opens a file that it may not write for reading only, and says so at the first write.
        sqlx::query("UPDATE counters SET value = value WHERE false")
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        self.commit(transaction).await
    }

    /// Refuses a file that [`migrate`](Self::migrate) would have to change, or could not.
    async fn check_version(&self) -> Result<()> {
        let applied: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
                .fetch_all(&self.readers)
                .await
                .map_err(|error| self.failed(error))?;
        let known: Vec<_> = MIGRATOR.iter().map(|step| (step.version, step.checksum.to_vec())).collect();
        match known.strip_prefix(applied.as_slice()) {
            Some([]) => Ok(()),
            Some([..]) => Err(unusable(&self.path, IS_OLDER)),
            None => Err(unusable(&self.path, IS_NEWER)),
        }
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

/// Whether this program made the tables in the file; false while it has none. A file with another program's tables is
/// refused before anything, its journal mode for one, is changed.
async fn is_ours(path: &Path, explain: fn(&Path, sqlx::Error) -> MetadataError) -> Result<bool> {
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
        (APPLICATION_ID, _) => Ok(true),
        // Another process is about to make it its own.
        (0, 0) => Ok(false),
        _ => Err(unusable(path, IS_FOREIGN)),
    }
}
