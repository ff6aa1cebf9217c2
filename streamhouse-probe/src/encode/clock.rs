//! When counting began, as the formats say it.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What the wall clock showed at one moment. Later moments are told by it and the monotonic clock, so that the same
/// moment is told the same way at each scrape, whoever sets the clock.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    begin: Instant,
    unix: Duration,
}

impl WallClock {
    /// Looks at both clocks.
    pub fn now() -> WallClock {
        let time = clock_gettime(ClockId::Realtime);
        let unix = Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32);
        WallClock { begin: Instant::now(), unix }
    }

    /// CLOCK_MONOTONIC now, in nanoseconds: what pages tell times by.
    pub(crate) fn monotonic_ns(&self) -> u64 {
        let time = clock_gettime(ClockId::Monotonic);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    /// Time from 1970 to the moment that this clock was made.
    pub(crate) fn begin(&self) -> Duration {
        self.unix
    }

    /// Time from 1970 to a moment after this clock was made.
    pub(crate) fn unix(&self, moment: Instant) -> Duration {
        self.unix + moment.saturating_duration_since(self.begin)
    }
}
