//! `flush`: a batch of a produce request, in the producer, from sealed to acknowledged.

use crate::look;
use crate::{Scope, Started};
use tracing::Level;

site!("flush", Flush);

const LEVEL: Level = Level::DEBUG;

/// A batch of a produce request that was acknowledged or failed.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// Records in it.
    pub records: u64,
    /// Bytes of keys, values and headers, before compression.
    pub bytes: u64,
    /// When the batch was sealed.
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

/// Tells whoever looks that a batch of a produce request ended; its duration ends now. Never blocks, fails or panics.
#[inline]
pub fn flush(scope: &Scope, event: Flush) {
    if looked_at() {
        observe(scope, event);
    }
}

#[cold]
#[inline(never)]
fn observe(scope: &Scope, event: Flush) {
    let Flush { records, bytes, started, status } = event;
    let duration_ns = started.elapsed_ns();
    if attached() {
        fire(scope.touched(), records, bytes, duration_ns, u64::from(status), 0);
    }
    tracing::event!(
        target: "streamhouse::flush",
        LEVEL,
        topic = scope.topic(),
        partition = scope.partition(),
        records,
        bytes,
        duration = look::timed(duration_ns),
        status,
    );
}
