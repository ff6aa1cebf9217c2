//! `object`: an object-store operation, in agent and consumer, from start to completion.

use crate::look;
use crate::record::{self, Counted};
use crate::{Operation, Scope, Site, Started, trace};
use tracing::Level;

site!(Object, "object", Object);

const LEVEL: Level = Level::DEBUG;

/// An object-store operation that ended.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// What it did.
    pub operation: Operation,
    /// Bytes moved.
    pub bytes: u64,
    /// When it began.
    pub started: Started,
    /// 0 when it succeeded, else an error kind's number.
    pub status: u8,
}

/// Call it when the operation begins; reads a clock only while somebody looks.
#[inline]
pub fn start() -> Started {
    Started::now_when(looked_at())
}

#[inline]
pub(crate) fn looked_at() -> bool {
    look::at(attached(), LEVEL)
}

/// Tells whoever looks that an operation ended; its duration ends now. Never blocks, fails or panics.
#[inline]
pub fn object(scope: &Scope, event: Object) {
    if looked_at() {
        observe(scope, event);
    }
}

#[cold]
#[inline(never)]
fn observe(scope: &Scope, event: Object) {
    let Object { operation, bytes, started, status } = event;
    let duration_ns = started.elapsed_ns();
    let trace_id = trace::current_id();
    if attached() {
        fire(scope.touched(), 0, bytes, duration_ns, u64::from(status), operation as u64);
    }
    let (site, detail, records) = (Site::Object, operation as u16, 0);
    record::count(scope, Counted { site, detail, status, records, bytes, duration_ns, bins: None });
    tracing::event!(
        target: "streamhouse::object",
        LEVEL,
        topic = scope.topic(),
        partition = scope.partition(),
        operation = operation.name(),
        records,
        bytes,
        duration = look::timed(duration_ns),
        status,
        trace_id = trace_id.map(tracing::field::display),
    );
}
