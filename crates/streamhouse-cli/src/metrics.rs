//! `/metrics` of a producer or consumer that serves its own.

use anyhow::{Context, Result};
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use prometheus_client::{encoding::text, registry::Registry};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The media type of what is served.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Makes metrics, and serves them in the background until the process ends; `None` without an address.
pub(crate) async fn serve<M>(
    address: Option<SocketAddr>,
    make: impl FnOnce(&mut Registry) -> M,
) -> Result<Option<Arc<M>>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot serve metrics on {address}: choose another --metrics-listen-address")
    })?;
    let mut registry = Registry::default();
    let metrics = Arc::new(make(&mut registry));
    let registry = Arc::new(registry);
    let page = async move || {
        let mut page = String::new();
        // A string takes everything.
        let _ = text::encode(&mut page, &registry);
        ([(CONTENT_TYPE, OPEN_METRICS)], page)
    };
    tokio::spawn(axum::serve(listener, Router::new().route("/metrics", get(page))).into_future());
    Ok(Some(metrics))
}
