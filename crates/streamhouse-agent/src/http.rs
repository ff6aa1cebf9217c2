//! `/health`: the process runs. `/ready`: it takes records. `/metrics`: what it counts.

use crate::connections::{Incoming, Rules};
use crate::engine::Seen;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use std::{future::Future, io, time::Duration};
use streamhouse_core::Counted;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Open connections: a few who watch the agent.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection lasts, whatever it does: answers take microseconds, and who asks again connects again.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How long a connection is left alone at least: its request comes with it, and is answered at once. Short, so that who
/// looks after the agent is answered in time however many others connect.
const IDLE_MIN: Duration = Duration::from_millis(50);

/// What `/metrics` says when nothing is counted here: a page without series, so that whoever scrapes all agents learns that
/// this one runs.
const NO_METRICS: &str = "# This agent counts nothing itself: streamhouse-probe serves its metrics, or an agent that is built \
                          with the feature metrics does.\n";
/// The media type of that page: OpenMetrics has no comments.
const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    Seen { readiness, metrics }: Seen,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .with_state(readiness)
        .route("/metrics", get(served).with_state(metrics));
    let rules = Rules {
        server: "HTTP",
        connections_max: CONNECTIONS_MAX,
        greeting_bytes: usize::MAX,
        greeting_time: CONNECTION_TIME,
        idle_min: IDLE_MIN,
    };
    axum::serve(Incoming::new(listener, rules, None), routes).with_graceful_shutdown(stop).await
}

async fn served(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    match metrics.page(accept) {
        Some((media_type, page)) => ([(CONTENT_TYPE, media_type)], page).into_response(),
        None => ([(CONTENT_TYPE, TEXT_TYPE)], NO_METRICS).into_response(),
    }
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match readiness.check(Instant::now()) {
        Ok(partitions) => {
            (StatusCode::OK, format!("ready: {} leased\n", Counted(partitions as u64, "partition")))
        }
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
