//! `request`: a gRPC request, in the agent, from the start of its handler to the response.

use crate::look;
use crate::record::{self, Counted};
use crate::{Method, Scope, Site, Started, trace};
use tracing::Level;

site!(Request, "request", Request);

const LEVEL: Level = Level::DEBUG;

/// A gRPC request that ended.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What was asked for.
    pub method: Method,
    /// When its handler began.
    pub started: Started,
    /// 0 when it succeeded, else an error kind's number.
    pub status: u8,
}

/// Call it when the handler begins; reads a clock only while somebody looks.
#[inline]
pub fn start() -> Started {
    Started::now_when(looked_at())
}

#[inline]
pub(crate) fn looked_at() -> bool {
    look::at(attached(), LEVEL)
}

/// Tells whoever looks that a request ended; its duration ends now. Never blocks, fails or panics.
#[inline]
pub fn request(scope: &Scope, event: Request) {
    if looked_at() {
        observe(scope, event);
    }
}

#[cold]
#[inline(never)]
fn observe(scope: &Scope, event: Request) {
    let Request { method, started, status } = event;
    let duration_ns = started.elapsed_ns();
    let trace_id = trace::current_id();
    if attached() {
        fire(scope.touched(), 0, 0, duration_ns, u64::from(status), method as u64);
    }
    let (site, detail, records, bytes) = (Site::Request, method as u16, 0, 0);
    record::count(scope, Counted { site, detail, status, records, bytes, duration_ns, bins: None });
    tracing::event!(
        target: "streamhouse::request",
        LEVEL,
        topic = scope.topic(),
        partition = scope.partition(),
        method = method.name(),
        records,
        bytes,
        duration = look::timed(duration_ns),
        status,
        trace_id = trace_id.map(tracing::field::display),
    );
}
