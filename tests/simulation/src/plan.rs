//! What a seed decides before the simulation begins.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use std::time::Duration;

/// A simulated cluster, what is asked of it, and how bad its world is.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) agents: usize,
    pub(crate) producers: usize,
    pub(crate) partitions: u32,
    /// Records of one producer.
    pub(crate) records: u32,
    /// Longest pause between two records of a producer.
    pub(crate) pause_ms: u64,
    pub(crate) batch_records: usize,
    pub(crate) delivery_timeout: Duration,
    /// How long records are kept.
    pub(crate) retention: Option<Duration>,
    /// How long there are faults.
    pub(crate) bad_weather: Duration,
    pub(crate) database: Rates,
    pub(crate) objects: Rates,
    pub(crate) network: Rates,
    /// What may happen to the cluster as a whole, and how often.
    pub(crate) upsets: Upsets,
}

/// How often calls meet each fault, of a thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Nothing happens, and the caller is told.
    pub(crate) refused: u32,
    /// It happens, and the caller is told that it may not have.
    pub(crate) unknown: u32,
    /// It takes up to two lease terms before it happens.
    pub(crate) late: u32,
    /// It happens, and the answer takes long.
    pub(crate) unanswered: u32,
}

/// Which upsets there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upsets {
    pub(crate) kills: bool,
    pub(crate) pauses: bool,
    pub(crate) shutdowns: bool,
    pub(crate) outages: bool,
    pub(crate) cuts: bool,
    /// Longest time between two.
    pub(crate) every_ms: u64,
}

/// Lease term of every agent.
pub(crate) const LEASE_TERM: Duration = Duration::from_millis(3000);
/// Heartbeats, and trials of stores that failed.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(1000);
/// Looks for free leases.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Retention, and the removal of what nothing refers to.
pub(crate) const UPKEEP_INTERVAL: Duration = Duration::from_millis(4000);
/// How long an object without a commit is left alone by others than its writer.
pub(crate) const ORPHAN_GRACE: Duration = Duration::from_millis(30_000);

impl Plan {
    /// Equal generators give equal plans. Every seed has some of the faults, few have all: what only few calls meet shows
    /// other things than what all meet.
    pub(crate) fn draw(random: &mut StdRng) -> Plan {
        Plan {
            agents: random.random_range(1..=3),
            producers: random.random_range(1..=3),
            partitions: random.random_range(1..=3),
            records: random.random_range(5..=30),
            pause_ms: *[5, 200, 1000].choose(random).unwrap_or(&200),
            batch_records: random.random_range(1..=4),
            delivery_timeout: Duration::from_millis(random.random_range(2_000..=40_000)),
            retention: random
                .random_bool(0.25)
                .then(|| Duration::from_millis(random.random_range(2000..=20_000))),
            bad_weather: Duration::from_millis(random.random_range(5_000..=40_000)),
            database: Rates::draw(random),
            objects: Rates::draw(random),
            network: Rates::draw(random),
            upsets: Upsets {
                kills: random.random_bool(0.5),
                pauses: random.random_bool(0.5),
                shutdowns: random.random_bool(0.3),
                outages: random.random_bool(0.3),
                cuts: random.random_bool(0.3),
                every_ms: random.random_range(1_000..=10_000),
            },
        }
    }
}

impl Rates {
    /// No faults.
    pub(crate) const NONE: Rates = Rates { refused: 0, unknown: 0, late: 0, unanswered: 0 };

    fn draw(random: &mut StdRng) -> Rates {
        let mut rate = || *[0, 0, 10, 100].choose(random).unwrap_or(&0);
        Rates { refused: rate(), unknown: rate(), late: rate(), unanswered: rate() }
    }
}
