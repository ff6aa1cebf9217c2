//! Each request is told to whoever looks, whatever becomes of it.

use futures::future::{BoxFuture, FutureExt};
use std::convert::Infallible as Never;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use streamhouse_core::ErrorKind;
use streamhouse_hooks::trace::TRACEPARENT;
use streamhouse_hooks::{Method, Request, Scope, Started, TraceContext, request};
use streamhouse_proto::status::error_kind;
use streamhouse_proto::v1::{agent_server, metadata_server};
use tonic::Status;
use tonic::codegen::{Service, http};

/// A service whose requests are told of.
#[derive(Clone)]
pub(super) struct Told<S> {
    inner: S,
    scope: Arc<Scope>,
}

impl<S> Told<S> {
    /// `scope` is that of the agent.
    pub(super) fn new(inner: S, scope: Arc<Scope>) -> Told<S> {
        Told { inner, scope }
    }
}

impl<S, B, R> Service<http::Request<B>> for Told<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = Never>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Never;
    type Future = Telling<BoxFuture<'static, Result<S::Response, Never>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Never>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, asked: http::Request<B>) -> Self::Future {
        // Also without a context: the log lines of a request belong together.
        let trace = caller(asked.headers()).map_or_else(TraceContext::new, |caller| caller.child());
        let end = End {
            scope: Arc::clone(&self.scope),
            trace,
            method: method(asked.uri().path()),
            started: request::start(),
            status: ErrorKind::Retry.number(),
        };
        // What refuses a request does so before there is a future.
        let answer = trace.within(|| self.inner.call(asked));
        Telling { inner: trace.of(answer).boxed(), end: Some(end) }
    }
}

/// The caller's context. Several are none: they do not say which is the caller's.
fn caller(headers: &http::HeaderMap) -> Option<TraceContext> {
    let mut contexts = headers.get_all(TRACEPARENT).iter();
    let (context, None) = (contexts.next()?, contexts.next()) else { return None };
    TraceContext::parse(context.to_str().ok()?)
}

fn method(path: &str) -> Method {
    match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((agent_server::SERVICE_NAME | metadata_server::SERVICE_NAME, name)) => Method::from_name(name),
        _ => Method::Other,
    }
}

/// A request under way.
pub(super) struct Telling<F> {
    inner: F,
    end: Option<End>,
}

impl<F, R> Future for Telling<F>
where
    F: Future<Output = Result<http::Response<R>, Never>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.inner).poll(context));
        if let Some(mut end) = self.end.take() {
            let failed = Status::from_header_map(response.headers());
            end.status = failed.map_or(0, |status| error_kind(&status).number());
        }
        Poll::Ready(Ok(response))
    }
}

/// Tells of a request when dropped. One that nobody waits for any more, because its caller went or its time is over, ends
/// without a response: as its caller sees it, it may be tried again.
struct End {
    scope: Arc<Scope>,
    trace: TraceContext,
    method: Method,
    started: Started,
    status: u8,
}

impl Drop for End {
    fn drop(&mut self) {
        let End { trace, method, started, status, .. } = *self;
        let _entered = trace.enter();
        request(&self.scope, Request { method, started, status });
    }
}
