//! Log lines about things that others choose the number of: never a flood.

use std::time::{Duration, Instant};

/// Lines in one period at most.
const LINES_MAX: u32 = 60;
/// How long a period is.
const PERIOD: Duration = Duration::from_secs(60);

/// Lets [`LINES_MAX`] lines a [`PERIOD`] through, and counts the others.
#[derive(Debug, Default)]
pub struct LineBudget {
    period: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl LineBudget {
    /// Whether a line may be written now, and if so how many were left out since the last one.
    pub fn line(&mut self, now: Instant) -> Option<u64> {
        if self.period.is_none_or(|begin| now.saturating_duration_since(begin) >= PERIOD) {
            self.period = Some(now);
            self.said = 0;
        }
        if self.said >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// Writes a line if it may, and before it that others were left out.
    pub fn say(&mut self, write: impl FnOnce()) {
        if let Some(left_out) = self.line(Instant::now()) {
            if left_out > 0 {
                tracing::warn!("{left_out} lines were left out: more than {LINES_MAX} a minute");
            }
            write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (mut budget, begin) = (LineBudget::default(), Instant::now());
        for _ in 0..LINES_MAX {
            assert_eq!(budget.line(begin), Some(0));
        }
        let later = begin + PERIOD;
        for _ in 0..1_000 {
            assert_eq!(budget.line(later - Duration::from_millis(1)), None);
        }
        assert_eq!((budget.line(later), budget.line(later)), (Some(1_000), Some(0)));
    }
}
