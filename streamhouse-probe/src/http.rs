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
}

/// Takes an address.
///
/// # Errors
///
/// [`BindError`] says what to do.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|cause| BindError { address, cause })
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// Serves a probe without a kernel program; gives its address.
    async fn start() -> (SocketAddr, Arc<Probe>) {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let probe = Arc::new(Probe::new(Err("no kernel here".to_owned())));
        tokio::spawn(serve(listener, probe.clone(), ClassicBuckets::default()));
        (address, probe)
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn each_path_answers_as_documented() {
        let (address, probe) = start().await;
        let metrics = get(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains(TEXT_FORMAT), "{metrics}");
        assert!(metrics.contains("\nstreamhouse_probe_scrapes_total 0\n"), "{metrics}");
        assert!(get(address, "/metrics").await.contains("\nstreamhouse_probe_scrapes_total 1\n"));
        assert!(get(address, "/targets").await.ends_with("{\"targets\":[]}"));
        assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/").await.contains("<a href=\"/metrics\">"));
        assert!(get(address, "/etc/passwd").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
        probe.apply(Vec::new());
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn scrapes_at_the_same_time_take_their_turn() {
        let (address, _probe) = start().await;
        let pages = futures_of(8, || get(address, "/metrics")).await;
        let mut numbers: Vec<u64> = pages
            .iter()
            .map(|page| {
                let lines =
                    page.lines().filter_map(|line| line.strip_prefix("streamhouse_probe_scrapes_total "));
                lines.map(|number| number.parse().expect("a number")).next().expect("served")
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..8).collect::<Vec<_>>());
    }

    async fn futures_of<F>(count: usize, make: impl Fn() -> F) -> Vec<String>
    where
        F: Future<Output = String> + Send + 'static,
    {
        let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(make())).collect();
        let mut done = Vec::new();
        for task in tasks {
            done.push(task.await.expect("no panic"));
        }
        done
    }

    #[tokio::test]
    async fn an_address_in_use_is_said() {
        let (address, _probe) = start().await;
        let error = listen(address).await.expect_err("in use").to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--web.listen-address"), "{error}");
    }
}
