//! `commit`: the metadata transaction that commits a flush, in the agent, from begin to committed.

use crate::look;
use crate::{Scope, Started};
use tracing::Level;

site!("commit", Commit);

const LEVEL: Level = Level::DEBUG;

/// A metadata transaction that committed a flush, or failed to.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Records in it.
    pub records: u64,
    /// Bytes of keys, values and headers, before compression.
    pub bytes: u64,
    /// When the transaction began.
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

/// Tells whoever looks that a flush was committed or failed; its duration ends now. Never blocks, fails or panics.
#[inline]
pub fn commit(scope: &Scope, event: Commit) {
    if looked_at() {
        observe(scope, event);
    }
}

#[cold]
#[inline(never)]
fn observe(scope: &Scope, event: Commit) {
    let Commit { records, bytes, started, status } = event;
    let duration_ns = started.elapsed_ns();
    if attached() {
        fire(scope.touched(), records, bytes, duration_ns, u64::from(status), 0);
    }
    tracing::event!(
        target: "streamhouse::commit",
        LEVEL,
        topic = scope.topic(),
        partition = scope.partition(),
        records,
        bytes,
        duration = look::timed(duration_ns),
        status,
    );
}
