//! What was observed, known to the last sample.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use streamhouse_abi::map::Counter;
use streamhouse_abi::{Role, Site, bucket};
use streamhouse_probe::collect::{Counts, Detail, Labels, SeriesKey, SiteSum, Statuses, Sums};
use streamhouse_probe::encode::{ClassicBuckets, Format, Scrape, WallClock, encode};
use streamhouse_probe::own::Own;
use streamhouse_probe::pages::State;

/// Durations, sorted.
pub(crate) struct Observed {
    durations_ns: Vec<u64>,
    pub(crate) records: u64,
    clock: WallClock,
    sums: Sums,
}

impl Observed {
    /// From 2 us to 20 s, as many in each octave, so that no quantile falls between two samples far from each other.
    pub(crate) fn spread() -> Observed {
        let durations_ns: Vec<u64> =
            (0..20_000).map(|step| (2_000.0 * 10f64.powf(7.0 * f64::from(step) / 20_000.0)) as u64).collect();
        let records = durations_ns.len() as u64 * 3;
        let mut counts =
            Counts { bytes: records * 100, duration_ns: durations_ns.iter().sum(), ..Counts::default() };
        counts.operations[0] = durations_ns.len() as u64;
        counts.records[0] = records;
        durations_ns.iter().for_each(|duration_ns| counts.durations[bucket::of_ns(*duration_ns)] += 1);
        let labels = Labels {
            role: Role::Agent,
            instance_id: "agent-1".to_owned(),
            group: String::new(),
            topic: "a \"b\"\\\n".to_owned(),
            partition: Some(0),
        };
        let clock = WallClock::now();
        let key = SeriesKey { site: Site::Write, detail: Detail::None, labels: Some(labels) };
        let sum = SiteSum { key, created: Instant::now(), overflowed: Statuses::default(), counts };
        let sums = Sums {
            sites: vec![sum],
            counters: [0; Counter::ALL.len()],
            maps: Vec::new(),
            held_back: 0,
            unlabelled_operations: 0,
            same_files: Vec::new(),
        };
        Observed { durations_ns, records, clock, sums }
    }

    pub(crate) fn page(&self, format: Format) -> Vec<u8> {
        let state = State { series: BTreeMap::new(), ..State::default() };
        let own = Own { sweep_age: Duration::ZERO, ..Own::default() };
        let scrape = Scrape { sums: Some(&self.sums), state: &state, own: &own, clock: &self.clock };
        encode(&scrape, format, ClassicBuckets::default())
    }

    pub(crate) fn count(&self) -> usize {
        self.durations_ns.len()
    }

    pub(crate) fn sum_seconds(&self) -> f64 {
        self.durations_ns.iter().sum::<u64>() as f64 / 1e9
    }

    /// In seconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.durations_ns.len() as f64).ceil() as usize;
        self.durations_ns[rank - 1] as f64 / 1e9
    }

    pub(crate) fn fraction_below_second(&self) -> f64 {
        let below = self.durations_ns.partition_point(|duration_ns| *duration_ns <= 1_000_000_000);
        below as f64 / self.durations_ns.len() as f64
    }
}
