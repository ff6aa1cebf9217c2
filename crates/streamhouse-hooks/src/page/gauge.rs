//! What callers hold of a page: one value.

use super::layout::Slot;
use crate::started::monotonic_ns;
use std::sync::atomic::Ordering::Relaxed;
#[cfg(feature = "metrics")]
use {std::sync::Arc, streamhouse_metrics::recorder::Value};

/// A value that is true now, on the process's state page until it is dropped.
///
/// Each call is two relaxed stores or adds, never more; none at all when the page had no room for it. Call it where
/// the value changes in bulk (a batch, a poll, a renewal), not for every record.
#[derive(Debug, Default)]
pub struct Gauge {
    slot: Option<&'static Slot>,
    /// The same value, where the process serves it itself.
    #[cfg(feature = "metrics")]
    recorded: Option<Arc<Value>>,
}

/// Does the same to what the process counts for itself.
macro_rules! record {
    ($gauge:ident.$change:ident($value:expr)) => {
        #[cfg(feature = "metrics")]
        if let Some(recorded) = &$gauge.recorded {
            recorded.$change($value);
        }
    };
}

impl Gauge {
    pub(super) fn new(slot: Option<&'static Slot>) -> Gauge {
        Gauge {
            slot,
            #[cfg(feature = "metrics")]
            recorded: None,
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn recorded(mut self, value: Arc<Value>) -> Gauge {
        self.recorded = Some(value);
        self
    }

    /// Sets the value, as of `now_ns` (CLOCK_MONOTONIC): call it also when the value has not changed, so that a value
    /// that stands still can be told from one that nobody updates.
    #[inline]
    pub fn set(&self, value: u64, now_ns: u64) {
        record!(self.set(value));
        if let Some(slot) = self.slot() {
            slot.value.store(value, Relaxed);
            slot.updated_ns.store(now_ns, Relaxed);
        }
    }

    /// Sets the value as of now; reads the clock.
    #[inline]
    pub fn set_now(&self, value: u64) {
        self.set(value, if self.slot().is_some() { monotonic_ns() } else { 0 });
    }

    /// Adds to the value, as of `now_ns`. Wraps around.
    #[inline]
    pub fn add(&self, amount: u64, now_ns: u64) {
        record!(self.add(amount));
        if let Some(slot) = self.slot() {
            slot.value.fetch_add(amount, Relaxed);
            slot.updated_ns.store(now_ns, Relaxed);
        }
    }

    /// Subtracts from the value, as of `now_ns`. Wraps around, so that the [`add`](Gauge::add) it undoes may also come
    /// after it.
    #[inline]
    pub fn sub(&self, amount: u64, now_ns: u64) {
        record!(self.sub(amount));
        if let Some(slot) = self.slot() {
            slot.value.fetch_sub(amount, Relaxed);
            slot.updated_ns.store(now_ns, Relaxed);
        }
    }

    #[inline(always)]
    fn slot(&self) -> Option<&'static Slot> {
        if cfg!(feature = "disabled") { None } else { self.slot }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        if let Some(slot) = self.slot() {
            super::retire(slot);
        }
    }
}
