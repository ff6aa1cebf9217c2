//! Connections: how many, how long, encrypted or not, and who is let in.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::web::Web;

/// Connections served at a time. Each may hold a page.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// A request's head has to arrive within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a request; hyper lets it have 100 headers.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A connection is cut off after this: whoever reads a page a byte at a time does not keep its place for good. Longer
/// than any scrape is waited for.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, as when no file may be opened any more.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Answers requests, for ever: one a connection.
///
/// When every place is taken, the connection that has been longest without being let in loses its own: whoever opens
/// connections and says nothing, or guesses passwords, keeps nobody out.
pub(super) async fn accept(listener: TcpListener, web: Arc<Web>, router: Router) -> ! {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open: VecDeque<Connection> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.task.is_finished());
                if places.available_permits() == 0
                    && let Some(oldest) = open.iter().position(Connection::is_outside)
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
    let_in: Arc<AtomicBool>,
}

impl Connection {
    fn start(stream: TcpStream, web: Arc<Web>, router: Router, place: OwnedSemaphorePermit) -> Connection {
        let let_in = Arc::new(AtomicBool::new(false));
        let answer = answer(stream, web, router, let_in.clone());
        let task = tokio::spawn(async move {
            answer.await;
            drop(place);
        });
        Connection { task: task.abort_handle(), let_in }
    }

    fn is_outside(&self) -> bool {
        !self.let_in.load(Ordering::Relaxed)
    }
}

/// Serves one connection to its end, encrypted when that is configured.
async fn answer(stream: TcpStream, web: Arc<Web>, router: Router, let_in: Arc<AtomicBool>) {
    let served = async {
        match web.current().tls.clone() {
            None => serve(stream, web, router, let_in).await,
            Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.0.accept(stream)).await {
                Ok(Ok(stream)) => serve(stream, web, router, let_in).await,
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
pub(super) async fn serve<S>(stream: S, web: Arc<Web>, router: Router, let_in: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let (web, router) = (web.clone(), router.clone());
        let let_in = let_in.clone();
        async move {
            let response = if web.lets_in(request.headers().get(header::AUTHORIZATION)).await {
                let_in.store(true, Ordering::Relaxed);
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
