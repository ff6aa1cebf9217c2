//! Sends at a rate, evenly.

use std::time::Duration;
use tokio::time::Instant;

/// Of a stall, no more than this is caught up afterwards: a burst would measure the stall twice.
const BACKLOG_MAX: Duration = Duration::from_secs(1);

/// When each record is due.
#[derive(Debug)]
pub(crate) struct Pacer {
    per_second: f64,
    start: Instant,
    /// Records due since `start`, at the last look at the clock.
    due: u64,
    taken: u64,
}

impl Pacer {
    /// Begins now; the first record is due at once.
    pub(crate) fn new(per_second: f64, now: Instant) -> Pacer {
        Pacer { per_second, start: now, due: 1, taken: 0 }
    }

    /// Takes the next record if one is due at `now`, which is read only when none is left from the last look; else
    /// says when one will be.
    pub(crate) fn take(&mut self, now: impl FnOnce() -> Instant) -> Result<(), Instant> {
        if self.taken == self.due {
            let mut elapsed = now().duration_since(self.start);
            let behind = elapsed.saturating_sub(self.time_of(self.taken));
            if behind > BACKLOG_MAX {
                self.start += behind - BACKLOG_MAX;
                elapsed -= behind - BACKLOG_MAX;
            }
            self.due = (elapsed.as_secs_f64() * self.per_second) as u64 + 1;
            if self.taken >= self.due {
                self.due = self.taken;
                return Err(self.start + self.time_of(self.taken));
            }
        }
        self.taken += 1;
        Ok(())
    }

    fn time_of(&self, record: u64) -> Duration {
        Duration::from_secs_f64(record as f64 / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records taken when the clock stands at each of `times`.
    fn run(per_second: f64, times: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        let start = Instant::now();
        let mut pacer = Pacer::new(per_second, start);
        let taken_at = |time: Duration| {
            let mut taken = 0;
            while pacer.take(|| start + time).is_ok() {
                taken += 1;
            }
            taken
        };
        times.into_iter().map(taken_at).collect()
    }

    #[test]
    fn records_come_evenly() {
        let taken = run(1000.0, (0..100).map(Duration::from_millis));
        assert!(taken.iter().all(|&records| (0..=2).contains(&records)), "{taken:?}");
        assert!((99..=101).contains(&taken.iter().sum::<u64>()), "{taken:?}");
    }

    #[test]
    fn a_stall_is_caught_up_for_one_second_at_most() {
        let taken = run(10.0, [0, 500, 60_000, 60_100].map(Duration::from_millis));
        assert_eq!(taken[0], 1);
        assert_eq!(taken[1], 5);
        assert!((10..=11).contains(&taken[2]), "{taken:?}");
        assert!((0..=2).contains(&taken[3]), "{taken:?}");
    }

    #[test]
    fn says_when_the_next_is_due() {
        let start = Instant::now();
        let mut pacer = Pacer::new(10.0, start);
        assert_eq!(pacer.take(|| start), Ok(()));
        assert_eq!(pacer.take(|| start), Err(start + Duration::from_millis(100)));
    }
}
