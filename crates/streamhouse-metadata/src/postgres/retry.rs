//! Repeating what failed without effect.

use super::errors::{explain, sqlstate};
use super::session::Failure;
use super::{PostgresMetadataStore, RETRY_MAX};
use crate::error::{MetadataError, Result};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Pause before the first repetition; each later one is twice as long, up to the maximum.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What may be done when the answer to a COMMIT is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnLoss {
    /// Done twice, it is as if done once.
    Repeat,
    /// The caller has to find out.
    Tell,
}

/// When a connection was last lost. Those that are older are likely lost too.
#[derive(Debug)]
pub(super) struct Losses {
    started: Instant,
    /// Milliseconds after `started`.
    last_ms: AtomicU64,
}

impl Losses {
    pub(super) fn new() -> Losses {
        Losses { started: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn note(&self) {
        let now = self.started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    /// Whether a connection of this age was made after the last loss.
    pub(super) fn outlived_by(&self, age: Duration) -> bool {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        last_ms == 0 || self.started.elapsed().saturating_sub(age) > Duration::from_millis(last_ms)
    }
}

impl PostgresMetadataStore {
    /// Attempts until one succeeds, fails for good, or time is up.
    pub(super) async fn retry<T, F>(&self, on_loss: OnLoss, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let started = Instant::now();
        let (mut pause, mut lost) = (PAUSE, None);
        loop {
            let failure = match attempt().await {
                Ok(value) => return Ok(value),
                Err(Failure::Refused(error)) => return Err(error),
                Err(failure) => failure,
            };
            if failure.is_loss() {
                self.losses.note();
            }
            let again = failure.may_pass() && !self.pool.is_closed() && started.elapsed() < RETRY_MAX;
            let error = match failure {
                Failure::Lost(error) if on_loss == OnLoss::Tell || !again => {
                    return Err(MetadataError::Unknown(error.into()));
                }
                Failure::Lost(error) => {
                    lost = Some(error);
                    None
                }
                Failure::Failed(error) => Some(error),
                Failure::Refused(error) => return Err(error),
            };
            if !again {
                return Err(match (lost, error) {
                    // An earlier attempt may have been the one.
                    (Some(lost), _) => MetadataError::Unknown(lost.into()),
                    (None, Some(error)) => self.explained(error),
                    (None, None) => unreachable!("a failure is lost or has an error"),
                });
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn explained(&self, error: sqlx::Error) -> MetadataError {
        // A pool without a connection could make none; with some, others use them all.
        if matches!(error, sqlx::Error::PoolTimedOut) && self.pool.size() == 0 {
            return super::errors::unreachable(&self.url, &error);
        }
        explain(&self.url, self.read_only, error)
    }
}

impl Failure {
    /// Whether the connection is gone: class 08, the server's end (57P01 to 57P03), or its end of a session (57P05, 25P03).
    pub(super) fn is_loss(&self) -> bool {
        let (Failure::Failed(error) | Failure::Lost(error)) = self else { return false };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
            error => sqlstate(error).is_some_and(|code| {
                code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
            }),
        }
    }

    /// Whether the same attempt may succeed later: a lost connection, a serialization failure (40001), a deadlock (40P01), a
    /// lock not had in time (55P03), a statement that took too long (57014), too many connections (53300).
    fn may_pass(&self) -> bool {
        let (Failure::Failed(error) | Failure::Lost(error)) = self else { return false };
        self.is_loss()
            || sqlstate(error)
                .is_some_and(|code| matches!(&*code, "40001" | "40P01" | "55P03" | "57014" | "53300"))
    }
}

/// From half the pause to all of it, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    // Each `RandomState` of a process has other keys.
    let random = RandomState::new().build_hasher().finish();
    pause / 2 + pause.mul_f64(random as f64 / u64::MAX as f64 / 2.0)
}
