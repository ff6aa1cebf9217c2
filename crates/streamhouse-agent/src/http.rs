//! `/health`: the process runs. `/ready`: it takes records.

use crate::readiness::Readiness;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use std::{future::Future, io};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    readiness: watch::Receiver<Readiness>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .with_state(readiness);
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
}

async fn ready(State(readiness): State<watch::Receiver<Readiness>>) -> (StatusCode, String) {
    match readiness.borrow().check(Instant::now()) {
        Ok(partitions) => (StatusCode::OK, format!("ready: {partitions} partitions leased\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
