//! What is done to a request on its way in and out.

use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Method, Response, StatusCode};
use s3s::service::S3Service;
use s3s::{Body, HttpRequest, HttpResponse};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use streamhouse_tests::Random;
use streamhouse_tests::s3::{FaultCounts, Faults};

/// An S3 service with [`Faults`].
pub struct Faulty {
    service: S3Service,
    state: Mutex<State>,
}

struct State {
    faults: Faults,
    counts: FaultCounts,
    random: Random,
}

/// What one request meets.
enum Fate {
    Good,
    Refused { status: StatusCode, code: &'static str },
    Stalled,
    Truncated,
    Unanswered,
}

impl Faulty {
    pub(crate) fn new(service: S3Service, seed: u64) -> Faulty {
        let state =
            State { faults: Faults::default(), counts: FaultCounts::default(), random: Random::new(seed) };
        Faulty { service, state: Mutex::new(state) }
    }

    /// Sets what is done to requests from now on.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// How many requests met what.
    pub fn counts(&self) -> FaultCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error ends the connection without an answer.
    pub(crate) async fn answer(&self, request: HttpRequest) -> io::Result<HttpResponse> {
        let method = request.method().clone();
        match self.fate(&method) {
            Fate::Good => self.serve(request).await,
            Fate::Refused { status, code } => refusal(request, status, code).await,
            Fate::Stalled => {
                let stall = self.state().faults.stall;
                tokio::time::sleep(stall).await;
                self.serve(request).await
            }
            Fate::Truncated => truncated(self.serve(request).await?).await,
            Fate::Unanswered => {
                self.serve(request).await?;
                Err(io::Error::other("an answer that never comes"))
            }
        }
    }

    async fn serve(&self, request: HttpRequest) -> io::Result<HttpResponse> {
        self.service.call(request).await.map_err(|error| io::Error::other(format!("{error:?}")))
    }

    fn fate(&self, method: &Method) -> Fate {
        let State { faults, counts, random } = &mut *self.state();
        counts.requests += 1;
        if random.percent(faults.slow_down_percent) {
            counts.slowed_down += 1;
            return Fate::Refused { status: StatusCode::SERVICE_UNAVAILABLE, code: "SlowDown" };
        }
        if random.percent(faults.error_percent) {
            counts.errors += 1;
            return Fate::Refused { status: StatusCode::INTERNAL_SERVER_ERROR, code: "InternalError" };
        }
        if random.percent(faults.stall_percent) {
            counts.stalled += 1;
            return Fate::Stalled;
        }
        if method == Method::GET && random.percent(faults.truncate_percent) {
            counts.truncated += 1;
            return Fate::Truncated;
        }
        if random.percent(faults.unanswered_percent) {
            counts.unanswered += 1;
            return Fate::Unanswered;
        }
        Fate::Good
    }
}

/// S3's error document.
async fn refusal(request: HttpRequest, status: StatusCode, code: &str) -> io::Result<HttpResponse> {
    // Read to its end: closing with bytes unread would reset the connection and hide the answer.
    let _ = request.into_body().collect().await;
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>asked for</Message></Error>"
    );
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(Body::from(document))
        .map_err(io::Error::other)
}

/// The head as it was, and half of the body; then the connection ends.
async fn truncated(response: HttpResponse) -> io::Result<HttpResponse> {
    let (head, body) = response.into_parts();
    let whole: Bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let half = Frame::data(whole.slice(..whole.len() / 2));
    let cut = stream::once(async {
        // The server writes what it has while it waits for more, and throws it away when an error comes first.
        tokio::time::sleep(Duration::from_millis(10)).await;
        Err(io::Error::other("cut off"))
    });
    let frames = futures::StreamExt::chain(stream::once(async { Ok(half) }), cut);
    Ok(Response::from_parts(head, Body::http_body_unsync(StreamBody::new(frames))))
}
