//! `poll`: a partition that returned records in one `Consumer::poll()`: fetch and decode, without idle waiting.

use crate::look;
use crate::{Scope, Started};
use tracing::Level;

site!("poll", Poll);

const LEVEL: Level = Level::TRACE;

/// What one poll returned from one partition.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    /// Records in it.
    pub records: u64,
    /// Bytes of keys, values and headers, before compression.
    pub bytes: u64,
    /// When its fetch began.
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

/// Tells whoever looks that a partition returned records; its duration ends now. Never blocks, fails or panics.
#[inline]
pub fn poll(scope: &Scope, event: Poll) {
    if looked_at() {
        observe(scope, event);
    }
}

#[cold]
#[inline(never)]
fn observe(scope: &Scope, event: Poll) {
    let Poll { records, bytes, started, status } = event;
    let duration_ns = started.elapsed_ns();
    if attached() {
        fire(scope.touched(), records, bytes, duration_ns, u64::from(status), 0);
    }
    tracing::event!(
        target: "streamhouse::poll",
        LEVEL,
        topic = scope.topic(),
        partition = scope.partition(),
        records,
        bytes,
        duration = look::timed(duration_ns),
        status,
    );
}
