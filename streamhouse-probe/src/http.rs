//! `/metrics`, `/targets`, `/health`, `/ready`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, extract};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::encode::{ClassicBuckets, Format};
use crate::probe::Probe;
use crate::web::Web;

const INDEX: &str = "<!doctype html><title>StreamHouse probe</title><h1>StreamHouse probe</h1><ul>\
    <li><a href=\"/metrics\">/metrics</a>: what the observed processes do\
    <li><a href=\"/targets\">/targets</a>: which files and sites are attached, and why not\
    <li><a href=\"/health\">/health</a>, <a href=\"/ready\">/ready</a></ul>\n";

/// Connections served at a time. Each may hold a page.
const CONNECTIONS_MAX: usize = 64;
/// A request's head has to arrive within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a request; hyper lets it have 100 headers.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A connection is cut off after this: whoever reads a page a byte at a time does not keep its place for good. Longer
/// than any scrape is waited for.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, as when no file may be opened any more.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

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

/// Answers requests, for ever: one a connection.
///
/// When every place is taken, the connection that has waited longest without a request loses its own: whoever opens
/// connections and says nothing keeps nobody out.
pub async fn serve(listener: TcpListener, probe: Arc<Probe>, web: Arc<Web>, buckets: ClassicBuckets) -> ! {
    let router = router(probe, buckets);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open: VecDeque<Connection> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.task.is_finished());
                if places.available_permits() == 0
                    && let Some(oldest) = open.iter().position(Connection::waits_for_head)
                    && let Some(connection) = open.remove(oldest)
                {
                    connection.task.abort();
                }
                let place = places.clone().acquire_owned().await.expect("nobody closes it");
                open.push_back(Connection::start(stream, web.clone(), router.clone(), place));
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection being served.
struct Connection {
    task: AbortHandle,
    has_head: Arc<AtomicBool>,
}

impl Connection {
    fn start(stream: TcpStream, web: Arc<Web>, router: Router, place: OwnedSemaphorePermit) -> Connection {
        let has_head = Arc::new(AtomicBool::new(false));
        let answer = answer(stream, web, router, has_head.clone());
        let task = tokio::spawn(async move {
            answer.await;
            drop(place);
        });
        Connection { task: task.abort_handle(), has_head }
    }

    fn waits_for_head(&self) -> bool {
        !self.has_head.load(Ordering::Relaxed)
    }
}

/// Serves one connection to its end, encrypted when that is configured.
async fn answer(stream: TcpStream, web: Arc<Web>, router: Router, has_head: Arc<AtomicBool>) {
    let served = async {
        match web.current().tls.clone() {
            None => serve_connection(stream, web, router, has_head).await,
            Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.0.accept(stream)).await {
                Ok(Ok(stream)) => serve_connection(stream, web, router, has_head).await,
                Ok(Err(error)) => tracing::debug!("a connection was not encrypted: {error}"),
                Err(_) => tracing::debug!("a connection was not encrypted within {HEAD_TIMEOUT:?}"),
            },
        }
    };
    if tokio::time::timeout(CONNECTION_LIFETIME, served).await.is_err() {
        tracing::debug!("a connection has taken more than {CONNECTION_LIFETIME:?}");
    }
}

/// Serves what is read and written as plain text.
async fn serve_connection<S>(stream: S, web: Arc<Web>, router: Router, has_head: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let (web, router) = (web.clone(), router.clone());
        has_head.store(true, Ordering::Relaxed);
        async move {
            let response = if web.lets_in(request.headers().get(header::AUTHORIZATION)).await {
                router.call(request).await?
            } else {
                unauthorized()
            };
            Ok::<_, Infallible>(with_headers(response, &web.current().config.headers))
        }
    });
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX);
    if let Err(error) = settings.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("a connection has failed: {error}");
    }
}

fn unauthorized() -> Response {
    let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"streamhouse-probe\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, ask, "this needs a name and a password\n").into_response()
}

fn with_headers(mut response: Response, headers: &[(HeaderName, HeaderValue)]) -> Response {
    response.headers_mut().extend(headers.iter().cloned());
    response
}

fn router(probe: Arc<Probe>, buckets: ClassicBuckets) -> Router {
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(metrics))
        .route("/targets", get(targets))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .with_state(Served { probe, buckets })
}

async fn metrics(State(served): extract::State<Served>, headers: HeaderMap) -> Response {
    let Served { probe, buckets } = served;
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    // Collecting makes system calls and waits for its turn: not on the thread that answers.
    match tokio::task::spawn_blocking(move || probe.scrape(format, buckets)).await {
        Ok(Ok(page)) => {
            let headers = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
            (headers, page).into_response()
        }
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
    match served.probe.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("{error}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Room;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// Serves a probe without a kernel program; gives its address.
    async fn start() -> (SocketAddr, Arc<Probe>) {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let probe = Arc::new(Probe::new(Err("no kernel here".to_owned()), Room::default()));
        tokio::spawn(serve(listener, probe.clone(), Arc::new(Web::open()), ClassicBuckets::default()));
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
        assert!(
            metrics.starts_with("HTTP/1.1 200") && metrics.contains(Format::Text.content_type()),
            "{metrics}"
        );
        assert!(metrics.contains("\nstreamhouse_probe_scrapes_total 0\n"), "{metrics}");
        assert!(get(address, "/metrics").await.contains("\nstreamhouse_probe_scrapes_total 1\n"));
        assert!(get(address, "/targets").await.ends_with("{\"targets\":[]}"));
        assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/").await.contains("<a href=\"/metrics\">"));
        assert!(get(address, "/etc/passwd").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
        probe.swept();
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
    }

    /// Opens a connection that never finishes its head.
    async fn open_slow(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.expect("sent");
        stream
    }

    #[tokio::test]
    async fn whoever_sends_no_head_keeps_nobody_out() {
        let (address, _probe) = start().await;
        let mut slow = Vec::new();
        for _ in 0..3 * CONNECTIONS_MAX {
            slow.push(open_slow(address).await);
        }
        assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
        let (oldest, youngest) = (&slow[0], &slow[3 * CONNECTIONS_MAX - 1]);
        let closed = oldest.try_read(&mut [0; 64]);
        assert!(closed.as_ref().is_ok_and(|read| *read == 0) || is_reset(&closed), "{closed:?}");
        let waits = youngest.try_read(&mut [0; 64]).map_err(|error| error.kind());
        assert_eq!(waits, Err(std::io::ErrorKind::WouldBlock), "it loses its place to nobody");
    }

    /// Closed while what was sent lay unread.
    fn is_reset(read: &std::io::Result<usize>) -> bool {
        read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_no_head_is_cut_off() {
        let (address, _probe) = start().await;
        let mut stream = open_slow(address).await;
        let mut answer = Vec::new();
        // Closed, or closed with what was sent still unread.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
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
