//! One call: which agent is asked, how long, and what follows when it does not answer.

use super::{Agent, RemoteMetadataStore};
use crate::lock;
use crate::security::{AUTHORIZATION, sentence};
use std::sync::atomic::Ordering;
use std::time::Duration;
use streamhouse_core::{AsTyped, ErrorKind};
use streamhouse_metadata::{MetadataError, Result};
use streamhouse_proto::{status, v1::metadata_client::MetadataClient};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Response, Status};

/// How long the first agent may take when there are others; each further attempt may take twice as long, so that what is
/// slow everywhere gets its time too.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);

/// Whether a call may be made again when it may have happened already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twice {
    /// Yes: it has the same effect and answer.
    Fine,
    /// No. What the caller should look at when the answer is lost, as the rest of a sentence.
    Never(&'static str),
}

/// What became of one attempt.
enum Attempt<R> {
    Answered(R),
    /// The call has failed, whoever is asked.
    Final(MetadataError),
    /// The agent, or the store behind it, could not answer now; another may.
    Next {
        said: Said,
        /// Whether the call was certainly not made.
        unsent: bool,
    },
    /// There is another token now.
    Renewed,
}

/// What an agent that did not answer the question had to say.
enum Said {
    /// The store's error.
    Store(MetadataError),
    /// Something on the way.
    Way(String),
}

impl RemoteMetadataStore {
    /// Asks one agent after another until one has answered, or the call's time is over.
    pub(super) async fn ask<M, R, F>(
        &self,
        twice: Twice,
        message: M,
        method: impl Fn(MetadataClient<Channel>, Request<M>) -> F + Send + Sync,
    ) -> Result<R>
    where
        M: Clone + Send + Sync,
        R: Send,
        F: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let shared = &*self.shared;
        let start = Instant::now();
        let mut tried: Vec<(&str, String)> = Vec::new();
        let mut attempts = 0;
        loop {
            let left = shared.call_timeout.saturating_sub(start.elapsed());
            let current = shared.current.load(Ordering::Relaxed);
            let agent = &shared.agents[current % shared.agents.len()];
            let attempt = self.attempt(agent, message.clone(), &method, self.patience(attempts, left)).await;
            let (said, unsent) = match attempt {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Final(error) => return Err(error),
                Attempt::Renewed => continue,
                Attempt::Next { said, unsent } => (said, unsent),
            };
            attempts += 1;
            // Unless another call has gone on already.
            let next = (current + 1) % shared.agents.len();
            let _ = shared.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
            if let (Twice::Never(look), false) = (twice, unsent) {
                return Err(lost(agent, said, look));
            }
            let way = match said {
                Said::Store(error) if start.elapsed() >= shared.call_timeout => return Err(error),
                Said::Store(error) => error.to_string(),
                Said::Way(way) => way,
            };
            tracing::debug!(
                agent = agent.address,
                problem = way,
                "an agent did not answer; the next is asked"
            );
            tried.retain(|(address, _)| *address != agent.address);
            tried.push((&agent.address, way));
            // Every agent is asked once before any pause.
            let round = attempts / shared.agents.len() as u32;
            let pause = if round == 0 { Duration::ZERO } else { lock(&shared.backoff).pause(round) };
            if start.elapsed() + pause >= shared.call_timeout {
                return Err(nobody(&tried, start.elapsed()));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// How long an attempt may take.
    fn patience(&self, attempts: u32, left: Duration) -> Duration {
        match self.shared.agents.len() {
            1 => left,
            _ => left.min(FIRST_ATTEMPT.saturating_mul(1 << attempts.min(8))),
        }
    }

    async fn attempt<M, R, F>(
        &self,
        agent: &Agent,
        message: M,
        method: impl Fn(MetadataClient<Channel>, Request<M>) -> F,
        patience: Duration,
    ) -> Attempt<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let connector = &self.shared.connector;
        let request = connector.request(message).await;
        let token = request.metadata().get(AUTHORIZATION).cloned();
        match tokio::time::timeout(patience, method(agent.client.clone(), request)).await {
            Ok(Ok(response)) => Attempt::Answered(response.into_inner()),
            Ok(Err(status)) if status.code() == Code::Unauthenticated => {
                if connector.renewed(token.as_ref()).await {
                    return Attempt::Renewed;
                }
                let message = format!(
                    "{} refuses the call: {}; {}",
                    agent.address,
                    status.message(),
                    connector.advice()
                );
                Attempt::Final(MetadataError::Remote { kind: ErrorKind::Invalid, message })
            }
            Ok(Err(status)) => judge(&status),
            Err(_) => {
                let said = Said::Way(format!("no answer within {}", AsTyped(patience)));
                Attempt::Next { said, unsent: false }
            }
        }
    }
}

fn judge<R>(status: &Status) -> Attempt<R> {
    let error = status::to_error(status);
    let is_store = status::store_kind(status).is_some();
    match error.kind() {
        ErrorKind::Fenced | ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Corrupt => {
            Attempt::Final(error)
        }
        ErrorKind::Retry | ErrorKind::Unavailable if is_store => {
            Attempt::Next { said: Said::Store(error), unsent: false }
        }
        ErrorKind::Retry | ErrorKind::Unavailable => {
            Attempt::Next { said: Said::Way(sentence(status)), unsent: was_not_sent(status) }
        }
    }
}

/// Whether no connection came about, so that the agent cannot have got the request.
fn was_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

fn lost(agent: &Agent, said: Said, look: &str) -> MetadataError {
    match said {
        // The store knows whether it happened.
        Said::Store(error) => error,
        Said::Way(way) => MetadataError::Remote {
            kind: ErrorKind::Retry,
            message: format!("the answer of the agent at {} was lost ({way}); {look}", agent.address),
        },
    }
}

fn nobody(tried: &[(&str, String)], waited: Duration) -> MetadataError {
    let tried: Vec<_> = tried.iter().map(|(address, way)| format!("{address}: {way}")).collect();
    MetadataError::Remote {
        kind: ErrorKind::Unavailable,
        message: format!(
            "no agent answered within {} ({}); see that agents run at these addresses and can be reached from here",
            AsTyped(Duration::from_millis(waited.as_millis() as u64)),
            tried.join("; ")
        ),
    }
}
