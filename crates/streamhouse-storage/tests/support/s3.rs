//! A real S3 protocol server on a loopback port, with objects as files, and faults that requests meet when told to.

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use s3s::{
    Body,
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use std::{
    collections::VecDeque,
    future, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub(crate) const BUCKET: &str = "logs";
pub(crate) const ACCESS_KEY: &str = "test-key";
pub(crate) const SECRET_KEY: &str = "test-secret";

/// What a request meets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// This status and S3 error code, and nothing is done.
    Answer(u16, &'static str),
    /// It is carried out; the connection ends without an answer.
    AnswerLost,
    /// It is carried out; the answer is this status and code.
    AnswerReplaced(u16, &'static str),
    /// It is carried out; half of the answer's body comes, then the connection ends.
    Truncated,
    /// It is carried out; half of the answer's body comes, then nothing more.
    BodyStalls,
    /// Nothing happens at all.
    Stalled,
}

/// A running server; gone when dropped.
pub(crate) struct S3Server {
    address: SocketAddr,
    directory: PathBuf,
    front: Arc<Front>,
    accepting: JoinHandle<()>,
}

/// What stands in front of the service.
struct Front {
    service: S3Service,
    faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Method>>,
}

impl S3Server {
    /// Serves [`BUCKET`], which is made, with its objects below `directory`.
    pub(crate) async fn start(directory: &Path) -> Self {
        std::fs::create_dir_all(directory.join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let front = Front { service: service.build(), faults: Mutex::default(), seen: Mutex::default() };
        let front = Arc::new(front);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, front.clone()));
        Self { address, directory: directory.to_owned(), front, accepting }
    }

    /// The variables that a client of this server needs.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Where the objects of [`BUCKET`] are as files.
    pub(crate) fn files(&self) -> PathBuf {
        self.directory.join(BUCKET)
    }

    /// What the next requests meet, one each.
    pub(crate) fn meet(&self, faults: impl IntoIterator<Item = Fault>) {
        self.front.faults.lock().unwrap().extend(faults);
    }

    /// Methods of the requests since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Method> {
        std::mem::take(&mut self.front.seen.lock().unwrap())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, front: Arc<Front>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, front.clone()));
    }
}

async fn serve(stream: TcpStream, front: Arc<Front>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let front = front.clone();
        async move { front.answer(request.map(Body::from)).await }
    });
    // That a connection ends is the client's choice, or a fault.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Front {
    /// An error ends the connection without an answer.
    async fn answer(&self, request: Request<Body>) -> io::Result<Response<Body>> {
        self.seen.lock().unwrap().push(request.method().clone());
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Stalled) => future::pending().await,
            Some(Fault::Answer(status, code)) => {
                // Read to its end: a connection closed with bytes unread is reset, and the answer lost.
                let _ = BodyExt::collect(request.into_body()).await;
                Ok(document(status, code))
            }
            fault => {
                let done = self
                    .service
                    .call(request)
                    .await
                    .map_err(|error| io::Error::other(format!("{error:?}")))?;
                match fault {
                    Some(Fault::AnswerLost) => Err(io::Error::other("lost")),
                    Some(Fault::AnswerReplaced(status, code)) => Ok(document(status, code)),
                    Some(Fault::Truncated) => half(done, stream::once(cut_off())).await,
                    Some(Fault::BodyStalls) => half(done, stream::pending()).await,
                    _ => Ok(done),
                }
            }
        }
    }
}

/// S3's error document.
fn document(status: u16, code: &str) -> Response<Body> {
    let text =
        format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>as told</Message></Error>");
    let body = Body::http_body(Full::new(Bytes::from(text)));
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body).unwrap()
}

/// Fails once what came before is on its way.
async fn cut_off() -> io::Result<Frame<Bytes>> {
    tokio::task::yield_now().await;
    Err(io::Error::other("cut off"))
}

/// An answer's head and half of its body, and then `rest`.
async fn half(
    answer: Response<Body>,
    rest: impl futures::Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync + 'static,
) -> io::Result<Response<Body>> {
    let (head, body) = answer.into_parts();
    let whole = BodyExt::collect(body).await.map_err(io::Error::other)?.to_bytes();
    let first = Frame::data(whole.slice(..whole.len() / 2));
    let frames = stream::iter([Ok(first)]).chain(rest);
    Ok(Response::from_parts(head, Body::http_body_unsync(StreamBody::new(frames))))
}
