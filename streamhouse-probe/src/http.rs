//! `/metrics`, `/targets`, `/health`, `/ready`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, extract};
use tokio::net::TcpListener;

use crate::encode::ClassicBuckets;
use crate::probe::Probe;

/// The content type of the text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const INDEX: &str = "<!doctype html><title>StreamHouse probe</title><h1>StreamHouse probe</h1><ul>\
    <li><a href=\"/metrics\">/metrics</a>: what the observed processes do\
    <li><a href=\"/targets\">/targets</a>: which files and sites are attached, and why not\
    <li><a href=\"/health\">/health</a>, <a href=\"/ready\">/ready</a></ul>\n";

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; choose another address with --web.listen-address, or end what uses this one"
)]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What the handlers share.
#[derive(Clone, Debug)]
struct Served {
    probe: Arc<Probe>,
    buckets: ClassicBuckets,
}

/// Takes an address.
///
/// # Errors
///
/// [`BindError`] says what to do.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// Answers requests until the listener fails.
///
/// # Errors
///
/// When connections cannot be accepted any more.
pub async fn serve(listener: TcpListener, probe: Arc<Probe>, buckets: ClassicBuckets) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(metrics))
        .route("/targets", get(targets))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .with_state(Served { probe, buckets });
    axum::serve(listener, router).await
}

async fn metrics(State(served): extract::State<Served>) -> Response {
    let Served { probe, buckets } = served;
    // Collecting makes system calls and waits for its turn: not on the thread that answers.
    match tokio::task::spawn_blocking(move || probe.scrape(buckets)).await {
        Ok(Ok(page)) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], page).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

async fn targets(State(served): extract::State<Served>) -> Response {
    match tokio::task::spawn_blocking(move || served.probe.targets()).await {
        Ok(view) => Json(view).into_response(),
        Err(error) => failed(&error),
    }
}

async fn ready(State(served): extract::State<Served>) -> Response {
    if served.probe.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first sweep is not done yet\n").into_response()
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("{error}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}
