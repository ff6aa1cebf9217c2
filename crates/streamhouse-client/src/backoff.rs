//! How long to wait before trying again.

use std::time::Duration;

/// Doubling pauses with jitter, so that clients that failed together do not come back together.
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    state: u64,
}

impl Backoff {
    /// Pauses from about `base` up to `max`. Equal seeds give equal pauses.
    pub(crate) fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self { base, max, state: seed }
    }

    /// The pause after `attempt` failures (from 1): between half and all of the doubled base.
    pub(crate) fn pause(&mut self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.base.saturating_mul(factor).min(self.max);
        full.mul_f64(0.5 + 0.5 * self.fraction())
    }

    /// SplitMix64, as a fraction of 1.
    fn fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_replay_from_their_seed() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200), seed);
            (1..100).map(|attempt| backoff.pause(attempt)).collect::<Vec<_>>()
        };
        let first = pauses(7);
        for (index, pause) in first.iter().enumerate() {
            let full = Duration::from_millis((10 << index.min(10)).min(200));
            assert!(*pause >= full / 2 && *pause <= full, "attempt {}: {pause:?}", index + 1);
        }
        assert_eq!(first, pauses(7));
        assert_ne!(first, pauses(8));
    }
}
