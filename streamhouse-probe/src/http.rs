//! `/metrics`, `/targets`, `/health`, `/ready`.

mod connections;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, extract};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::encode::{ClassicBuckets, Format};
use crate::probe::Probe;
use crate::web::Web;

const INDEX: &str = "<!doctype html><title>StreamHouse probe</title><h1>StreamHouse probe</h1><ul>\
    <li><a href=\"/metrics\">/metrics</a>: what the observed processes do\
    <li><a href=\"/targets\">/targets</a>: which files and sites are attached, and why not\
    <li><a href=\"/health\">/health</a>, <a href=\"/ready\">/ready</a></ul>\n";
/// Scrapes under way at one time: one collects, one is written down by whoever asked.
const SCRAPES_MAX: usize = 2;
/// How long a scrape waits for its turn, unless whoever asks waits for less.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long Prometheus waits for an answer, in seconds.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {cause}; choose another address with --web.listen-address, or end what uses this one"
)]
pub struct BindError {
    address: SocketAddr,
    cause: std::io::Error,
}

/// What the handlers share.
#[derive(Clone, Debug)]
struct Served {
    probe: Arc<Probe>,
    buckets: ClassicBuckets,
    turns: Arc<Semaphore>,
}

/// Takes an address.
///
/// # Errors
///
/// [`BindError`] says what to do.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|cause| BindError { address, cause })
}

/// Answers what comes over one connection, whatever it is made of, to its end.
pub async fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    probe: Arc<Probe>,
    web: Arc<Web>,
    buckets: ClassicBuckets,
) {
    connections::serve(stream, web, router(probe, buckets), Arc::default()).await;
}

/// Answers requests, for ever, as far as `web` lets them in.
pub async fn serve(listener: TcpListener, probe: Arc<Probe>, web: Arc<Web>, buckets: ClassicBuckets) -> ! {
    connections::accept(listener, web, router(probe, buckets)).await
}

fn router(probe: Arc<Probe>, buckets: ClassicBuckets) -> Router {
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(metrics))
        .route("/targets", get(targets))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .with_state(Served { probe, buckets, turns: Arc::new(Semaphore::new(SCRAPES_MAX)) })
}

async fn metrics(State(served): extract::State<Served>, headers: HeaderMap) -> Response {
    let Served { probe, buckets, turns } = served;
    let Ok(turn) = timeout(patience(&headers), turns.acquire_owned()).await else { return busy() };
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    // Collecting makes system calls and waits for its turn: not on the thread that answers.
    let scrape = move || {
        let page = probe.scrape(format, buckets);
        drop(turn);
        page
    };
    match tokio::task::spawn_blocking(scrape).await {
        Ok(Ok(page)) => {
            let headers = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
            (headers, page).into_response()
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// How long a scrape may wait for its turn.
fn patience(headers: &HeaderMap) -> Duration {
    let stated = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse().ok());
    let stated = stated.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    stated.map_or(TURN_TIMEOUT, |stated| stated.min(TURN_TIMEOUT))
}

fn busy() -> Response {
    let later = [(header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, later, "other scrapes take all the time there is\n").into_response()
}

async fn targets(State(served): extract::State<Served>) -> Response {
    match tokio::task::spawn_blocking(move || served.probe.targets()).await {
        Ok(view) => Json(view).into_response(),
        Err(error) => failed(&error),
    }
}

async fn ready(State(served): extract::State<Served>) -> Response {
    match served.probe.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("{error}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}
