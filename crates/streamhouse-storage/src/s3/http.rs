//! The HTTP below object_store's client: answers are whole and in time, or an error that says whether to ask again.

use super::{S3Limits, answer::Verdict};
use async_trait::async_trait;
use object_store::{
    ClientOptions, HeaderMap,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};
use std::{
    error::Error,
    fmt, iter,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// In a request for session credentials of an instance, whose refusal object_store knows how to take.
const METADATA_TOKEN: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// Rides along with a request, over all its attempts: whether one of them may have been carried out although no answer
/// said so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uncertain(Arc<AtomicBool>);

impl Uncertain {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes the clients that [`WholeAnswers`] come from.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) limits: S3Limits,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // One that is there already does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(WholeAnswers { client, limits: self.limits.clone() }))
    }
}

/// Nothing came in time.
#[derive(Debug, thiserror::Error)]
#[error("{what} within {wait:?}")]
pub(crate) struct Late {
    pub(crate) what: &'static str,
    pub(crate) wait: Duration,
}

/// The connection failed.
#[derive(Debug)]
struct Broken(HttpError);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = iter::successors(Some(&self.0 as &dyn Error), |&error| error.source()).last();
        write!(f, "the connection failed: {}", root.unwrap_or(&self.0))
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Every error means one of two things to object_store's retries: `Connect` and `Request` are tried again, `Unknown` is
/// not. By itself object_store would not repeat a conditional put that timed out or was cut off, since it cannot know that
/// here repeating does no harm.
#[derive(Debug)]
struct WholeAnswers {
    client: HttpClient,
    limits: S3Limits,
}

#[async_trait]
impl HttpService for WholeAnswers {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.headers().contains_key(METADATA_TOKEN) {
            return self.client.execute(request).await;
        }
        let uncertain = request.extensions().get::<Uncertain>().cloned().unwrap_or_default();
        let answer = self.exchange(request).await;
        if answer.as_ref().is_err_and(|error| error.kind() == HttpErrorKind::Request) {
            uncertain.set();
        }
        answer
    }
}

impl WholeAnswers {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let wait = self.limits.wait_for(request.body().content_length() as u64);
        let answer = timeout(wait, self.client.execute(request)).await;
        let response = answer.map_err(|_| late("no answer came", wait))?.map_err(again)?;
        let wait = self.limits.wait_for(content_length(response.headers()));
        let (parts, body) = response.into_parts();
        let body = timeout(wait, body.bytes()).await;
        let bytes = body.map_err(|_| late("the answer did not end", wait))?.map_err(again)?;
        match Verdict::of(parts.status.as_u16(), &bytes) {
            Verdict::Take => Ok(HttpResponse::from_parts(parts, bytes.into())),
            Verdict::Retry(answer) => Err(HttpError::new(HttpErrorKind::Request, answer)),
            Verdict::Refuse(refusal) => Err(HttpError::new(HttpErrorKind::Unknown, refusal)),
        }
    }
}

fn late(what: &'static str, wait: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Request, Late { what, wait })
}

/// The error to try again after, saying what lies at its root: reqwest's says only that a request failed.
fn again(error: HttpError) -> HttpError {
    let kind = match error.kind() {
        HttpErrorKind::Connect => HttpErrorKind::Connect,
        _ => HttpErrorKind::Request,
    };
    HttpError::new(kind, Broken(error))
}

fn content_length(headers: &HeaderMap) -> u64 {
    let length = headers.get("content-length").and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
