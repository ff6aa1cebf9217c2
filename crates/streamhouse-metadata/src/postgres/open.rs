//! Connecting: the URL, the settings of a session, migrations.

use super::errors::{IS_NEWER, IS_OLDER, explain, sqlstate, unreachable, unusable};
use super::retry::Losses;
use super::{PostgresMetadataStore, RETRY_MAX};
use crate::error::{MetadataError, Result};
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// Connections of one store. A flush needs one for a few milliseconds; the server has a process for each.
const CONNECTIONS_MAX: u32 = 8;
/// How long to wait for a connection, new or free.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// How long another may bring the tables up to date.
const MIGRATE_MAX: Duration = Duration::from_secs(300);
/// Connections that nobody uses are given back to the server.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// What a session bounds at the server. A client that stops within a transaction holds its locks no longer than that;
/// one whose machine is gone is noticed by keepalives.
const SETTINGS: [(&str, &str); 6] = [
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// An acknowledgement promises that a commit is on disk, also where the server's default is that it need not be.
const DURABLE: &str = "
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Where a PostgreSQL database is. Neither `Display` nor `Debug` shows the password.
#[derive(Clone)]
pub struct PostgresUrl(Box<PgConnectOptions>);

impl FromStr for PostgresUrl {
    type Err = MetadataError;

    fn from_str(url: &str) -> Result<Self> {
        // The driver's message is left out: it may quote the URL.
        let options: PgConnectOptions = url.parse().map_err(|_| {
            MetadataError::Invalid(
                "the metadata store's URL is no PostgreSQL URL; give it as \
                 postgres://USER:PASSWORD@HOST:PORT/DATABASE, with characters like @ and / in it percent-encoded"
                    .to_owned(),
            )
        })?;
        Ok(PostgresUrl(Box::new(options)))
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.0.get_username();
        let database = self.0.get_database().unwrap_or(user);
        match self.0.get_socket() {
            Some(socket) => write!(f, "postgres://{user}@{}/{database}", socket.display()),
            None => write!(f, "postgres://{user}@{}:{}/{database}", self.0.get_host(), self.0.get_port()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PostgresUrl {
    /// What every connection has.
    fn options(&self) -> PgConnectOptions {
        let options = (*self.0).clone().disable_statement_logging();
        match options.get_application_name() {
            None => options.application_name("streamhouse"),
            Some(_) => options,
        }
    }

    /// A first connection, which says best what is wrong. A server that is about to start is waited for.
    async fn connect(&self, options: &PgConnectOptions, read_only: bool) -> Result<PgConnection> {
        let started = Instant::now();
        loop {
            let error = match tokio::time::timeout(ACQUIRE_MAX, options.connect()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => {
                    let timed_out = std::io::Error::from(std::io::ErrorKind::TimedOut);
                    return Err(unreachable(self, &timed_out.into()));
                }
            };
            let is_starting = sqlstate(&error).is_some_and(|code| code == "57P03");
            if !is_starting || started.elapsed() > RETRY_MAX {
                return Err(explain(self, read_only, error));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(super) async fn open(url: PostgresUrl) -> Result<PostgresMetadataStore> {
    let patient = format!("{}s", MIGRATE_MAX.as_secs());
    let limits = [("statement_timeout", &patient), ("lock_timeout", &patient)];
    // It notices that its own table is there already.
    let migrating = url.options().options(limits).options([("client_min_messages", "warning")]);
    let mut connection = url.connect(&migrating, false).await?;
    migrate(&url, &mut connection).await?;
    // What failed to close is closed by the server.
    let _ = connection.close().await;
    let options = url.options().options(SETTINGS);
    Ok(store(url, options, false))
}

pub(super) async fn open_read_only(url: PostgresUrl) -> Result<PostgresMetadataStore> {
    let options = url.options().options(SETTINGS).options([("default_transaction_read_only", "on")]);
    let mut connection = url.connect(&options, true).await?;
    check_version(&url, &mut connection).await?;
    let _ = connection.close().await;
    Ok(store(url, options, true))
}

fn store(url: PostgresUrl, options: PgConnectOptions, read_only: bool) -> PostgresMetadataStore {
    let losses = Arc::new(Losses::new());
    PostgresMetadataStore { pool: pool(options, Arc::clone(&losses)), url, losses, read_only }
}

fn pool(options: PgConnectOptions, losses: Arc<Losses>) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_MAX)
        .idle_timeout(IDLE_MAX)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::query(DURABLE).execute(connection).await.map(drop) })
        })
        .before_acquire(move |_, connection| {
            let is_sound = losses.outlived_by(connection.age);
            Box::pin(async move { Ok(is_sound) })
        })
        .connect_lazy_with(options)
}

/// Brings the tables up to date; of many who do so at once, one works and the others wait.
async fn migrate(url: &PostgresUrl, connection: &mut PgConnection) -> Result<()> {
    MIGRATOR.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => explain(url, false, error),
        // Every other error says that the database's migrations are not those of this program.
        error => unusable(url, IS_NEWER, &sqlx::Error::Migrate(Box::new(error))),
    })
}

/// Refuses a database that [`migrate`] would have to change, or could not.
async fn check_version(url: &PostgresUrl, connection: &mut PgConnection) -> Result<()> {
    let failed = |error: MigrateError| match error {
        MigrateError::Execute(error) if sqlstate(&error).is_some_and(|code| code == "42P01") => {
            unusable(url, IS_OLDER, &error)
        }
        MigrateError::Execute(error) => explain(url, true, error),
        error => unusable(url, IS_NEWER, &sqlx::Error::Migrate(Box::new(error))),
    };
    let applied = connection.list_applied_migrations(&MIGRATOR.table_name).await.map_err(failed)?;
    let known: Vec<_> = MIGRATOR.iter().map(|known| (known.version, &known.checksum)).collect();
    let applied: Vec<_> = applied.iter().map(|applied| (applied.version, &applied.checksum)).collect();
    let problem = match known.strip_prefix(applied.as_slice()) {
        Some([]) => return Ok(()),
        Some([..]) => IS_OLDER,
        None => IS_NEWER,
    };
    Err(MetadataError::Unusable { path: url.to_string(), problem, said: String::new() })
}
