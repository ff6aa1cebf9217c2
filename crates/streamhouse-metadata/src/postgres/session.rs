//! One use of a connection, and what can go wrong in it.

use super::PostgresMetadataStore;
use super::retry::OnLoss;
use crate::error::MetadataError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Postgres};
use std::time::Duration;

/// How long the statements of one attempt, or its COMMIT, may take: longer than the server lets a statement take.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);

/// Why an attempt did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database or the connection failed before COMMIT was sent, or COMMIT was refused: nothing happened.
    Failed(sqlx::Error),
    /// COMMIT was sent and its answer did not come.
    Lost(sqlx::Error),
    /// The database works; what was asked for cannot be.
    Refused(MetadataError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Failure::Failed(error)
    }
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        Failure::Refused(error)
    }
}

/// A connection, alone or in a transaction. Dropped before its end, as by a caller that gave up, the connection is closed,
/// and the server rolls back as soon as it sees that; it cannot commit, because COMMIT was not sent.
pub(super) struct Session(Option<PoolConnection<Postgres>>);

impl PostgresMetadataStore {
    /// For statements that read, each on its own.
    pub(super) async fn reader(&self) -> Result<Session, Failure> {
        Ok(Session(Some(self.pool.acquire().await?)))
    }

    pub(super) async fn begin(&self) -> Result<Session, Failure> {
        self.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    pub(super) async fn begin_with(&self, begin: &'static str) -> Result<Session, Failure> {
        let mut session = self.reader().await?;
        bounded(session.run(begin)).await?;
        Ok(session)
    }
}

type Query<'q, R> = QueryAs<'q, Postgres, R, PgArguments>;

impl PostgresMetadataStore {
    /// The rows of one statement that only reads.
    pub(super) async fn rows<'q, R>(
        &self,
        query: impl Fn() -> Query<'q, R> + Send + Sync,
    ) -> Result<Vec<R>, MetadataError>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let attempt = || async {
            let mut session = self.reader().await?;
            let rows = bounded(async { Ok(query().fetch_all(session.connection()).await?) }).await;
            session.done(rows)
        };
        self.retry(OnLoss::Repeat, attempt).await
    }

    /// A transaction of one statement that may be repeated; gives the rows that it returns.
    pub(super) async fn change<'q, R>(
        &self,
        query: impl Fn() -> Query<'q, R> + Send + Sync,
    ) -> Result<Vec<R>, MetadataError>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let attempt = || async {
            let mut session = self.begin().await?;
            let rows = bounded(async { Ok(query().fetch_all(session.connection()).await?) }).await;
            session.end(rows).await
        };
        self.retry(OnLoss::Repeat, attempt).await
    }
}

impl Session {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("there until the session is ended, which takes it")
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), Failure> {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(self.connection()).await?;
        Ok(())
    }

    /// Ends a transaction: commits when its work succeeded, else rolls back.
    pub(super) async fn end<T>(mut self, work: Result<T, Failure>) -> Result<T, Failure> {
        let Ok(value) = work else { return self.roll_back(work).await };
        match bounded(self.run("COMMIT")).await {
            Ok(()) => {
                self.give_back();
                Ok(value)
            }
            Err(Failure::Failed(error)) if !is_certain_at_commit(&error) => Err(Failure::Lost(error)),
            Err(failure) => Err(failure),
        }
    }

    /// Ends a transaction without effect.
    pub(super) async fn roll_back<T>(mut self, work: Result<T, Failure>) -> Result<T, Failure> {
        let is_sound = work.as_ref().err().is_none_or(Failure::leaves_connection);
        if is_sound && bounded(self.run("ROLLBACK")).await.is_ok() {
            self.give_back();
        }
        work
    }

    /// Ends what only read.
    pub(super) fn done<T>(mut self, work: Result<T, Failure>) -> Result<T, Failure> {
        if work.as_ref().err().is_none_or(Failure::leaves_connection) {
            self.give_back();
        }
        work
    }

    fn give_back(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // Closed at once, without a word to a server that may not answer.
            drop(connection.detach());
        }
    }
}

impl Failure {
    /// Whether the connection can be used on: the server said what was wrong, and goes on listening.
    fn leaves_connection(&self) -> bool {
        match self {
            Failure::Refused(_) => true,
            Failure::Failed(sqlx::Error::Database(_)) => !self.is_loss(),
            Failure::Failed(error) => matches!(
                error,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound
            ),
            Failure::Lost(_) => false,
        }
    }
}

/// The work of an attempt, with an end. What did not end in time counts as a lost connection.
pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(ATTEMPT_MAX, work).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("PostgreSQL did not answer for {} s", ATTEMPT_MAX.as_secs());
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, message);
            Err(Failure::Failed(error.into()))
        }
    }
}

/// Whether a COMMIT that failed like this has certainly not happened: the server rolled back (class 40), had ended the
/// transaction before (25), or found a constraint broken (23).
fn is_certain_at_commit(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["40", "25", "23"].iter().any(|class| code.starts_with(class)))
}
