//! Counting for a process that serves its metrics itself: nothing of it is there without the feature `metrics`.

use crate::{Scope, Site};
use streamhouse_abi::Bins;

/// What of an event is counted.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "read by the recorder only"))]
pub(crate) struct Counted<'a> {
    pub(crate) site: Site,
    /// Operation or method.
    pub(crate) detail: u16,
    pub(crate) status: u8,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) duration_ns: u64,
    pub(crate) bins: Option<&'a Bins>,
}

/// Counts an event, where its scope is counted.
#[cfg(feature = "metrics")]
pub(crate) fn count(scope: &Scope, counted: Counted<'_>) {
    let Counted { site, detail, status, records, bytes, duration_ns, bins } = counted;
    if let Some(subject) = scope.subject() {
        let event = streamhouse_metrics::recorder::Event { status, records, bytes, duration_ns, bins };
        subject.record(site, detail, event);
    }
}

#[cfg(not(feature = "metrics"))]
#[inline(always)]
pub(crate) fn count(_: &Scope, _: Counted<'_>) {}

/// Whether anything of this process is counted.
#[cfg(feature = "metrics")]
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(not(feature = "metrics"))]
#[inline(always)]
pub(crate) fn is_on() -> bool {
    false
}

/// From now on something is: it stays so, for operations may be under way whose times are wanted.
#[cfg(feature = "metrics")]
pub(crate) fn turn_on() {
    ON.store(true, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(feature = "metrics")]
static ON: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
