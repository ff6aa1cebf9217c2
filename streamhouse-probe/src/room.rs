//! Room for series: what Prometheus has to keep is bounded, whoever starts processes with whatever labels.

use std::collections::HashMap;

use streamhouse_metrics::{Kind, Metric};

use crate::encode::ClassicBuckets;

/// Most series of observed processes served at one time, unless told otherwise. A series is one of Prometheus' own: a
/// classic histogram is as many as it has buckets, and two.
pub const SERIES_MAX: usize = 10_000;
/// Fewest that may be asked for: one agent with one topic has about three hundred.
pub const SERIES_MIN: usize = 1_000;
/// One process may take this part of all series, a half: whatever it does, others have room.
const PROCESS_SHARE: usize = 2;

/// What series there may be, and how many there are.
#[derive(Debug)]
pub struct Room {
    max: usize,
    used: usize,
    /// Series that one histogram is.
    histogram: usize,
    /// Series that each process has taken, while it runs.
    taken: HashMap<u32, usize>,
    refused: u64,
}

impl Room {
    /// Room for `max` series, of histograms with these buckets.
    pub fn new(max: usize, buckets: ClassicBuckets) -> Room {
        // The sum and the count.
        let histogram = buckets.count() + 2;
        Room { max, used: 0, histogram, taken: HashMap::new(), refused: 0 }
    }

    /// Takes room for series that a process brings, or that it has left behind when there is none; counts them as
    /// refused when there is no room.
    pub(crate) fn take(&mut self, pid: Option<u32>, series: usize) -> bool {
        let taken = pid.and_then(|pid| self.taken.get(&pid)).copied().unwrap_or(0);
        if self.used + series > self.max || taken + series > self.max / PROCESS_SHARE {
            self.refused += series as u64;
            return false;
        }
        if let Some(pid) = pid {
            self.taken.insert(pid, taken + series);
        }
        self.used += series;
        true
    }

    /// Series are served no more.
    pub(crate) fn give_back(&mut self, series: usize) {
        self.used = self.used.saturating_sub(series);
    }

    /// A process has gone: what it took stays until it is given back, and is nobody's share.
    pub(crate) fn exited(&mut self, pid: u32) {
        self.taken.remove(&pid);
    }

    /// Whether room gets scarce: more than three quarters are taken.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used > self.max / 4 * 3
    }

    /// How many series one of a metric's is to Prometheus.
    pub(crate) fn series_of(&self, metric: &Metric) -> usize {
        match metric.kind {
            Kind::Counter | Kind::Gauge => 1,
            Kind::Histogram => self.histogram,
        }
    }

    /// Series served.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Series that may be served.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Series that had no room since the probe started: what they count is in the overflow series of their metric, or
    /// when they are gauges nowhere.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl Default for Room {
    fn default() -> Room {
        Room::new(SERIES_MAX, ClassicBuckets::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_for_a_process_at_its_half_and_for_all_at_the_whole() {
        let mut room = Room::new(100, ClassicBuckets::default());
        assert!(room.take(Some(1), 50) && !room.take(Some(1), 1), "its half");
        assert!(
            room.take(Some(2), 40)
                && !room.take(Some(3), 11)
                && room.take(Some(3), 10)
                && !room.take(Some(4), 1),
            "the whole"
        );
        assert_eq!((room.used(), room.refused()), (100, 13));
        room.give_back(50);
        assert!(!room.take(Some(1), 1), "what it took is still its own");
        room.exited(1);
        assert!(room.take(Some(1), 1));
    }

    #[test]
    fn scarce_is_more_than_three_quarters() {
        let mut room = Room::new(100, ClassicBuckets::default());
        assert!(room.take(Some(1), 45) && room.take(Some(2), 30) && !room.is_scarce());
        assert!(room.take(Some(2), 1) && room.is_scarce());
    }
}
