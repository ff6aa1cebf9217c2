//! Time, taken from outside so that tests can move it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Two clocks: one to measure with, one to date records with.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds of a clock that never goes back (CLOCK_MONOTONIC).
    fn monotonic_ns(&self) -> u64;
    /// Milliseconds since 1970-01-01 UTC (CLOCK_REALTIME).
    fn unix_ms(&self) -> i64;
}

/// The kernel's clocks, read through the vDSO: about 25 ns a reading, no system call.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic_ns(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    fn unix_ms(&self) -> i64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }
}

/// A clock that moves when told: for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    ns: AtomicU64,
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: std::time::Duration) {
        self.ns.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn monotonic_ns(&self) -> u64 {
        self.ns.load(Ordering::Relaxed)
    }

    fn unix_ms(&self) -> i64 {
        (self.ns.load(Ordering::Relaxed) / 1_000_000) as i64
    }
}
