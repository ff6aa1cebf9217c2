//! What the probe says of itself: a target that could not be attached is an alarm, never a zero.

use std::collections::BTreeMap;
use std::time::Duration;

use streamhouse_abi::map::Counter;
use streamhouse_metrics::host::Host;
use streamhouse_metrics::{Families, LabelValues, catalog};

use crate::collect::Sums;
use crate::encode::Scrape;
use crate::pages::Rejection;
use crate::room::Room;
use crate::sites::Refusal;

/// Value of the `reason` label for operations whose process exited before its labels could be read.
const UNLABELLED: &str = "unlabelled";

/// The probe's own numbers that no other stage has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// What is attached.
    pub targets: TargetCounts,
    /// Scrapes answered before this one.
    pub scrapes: u64,
    /// The one before this one.
    pub previous_scrape: Option<PreviousScrape>,
    /// What a hit costs the observed process, as measured at start.
    pub hit_cost: Option<Duration>,
    /// Series served, series that may be, and those that had no room since the probe started.
    pub series: SeriesCounts,
    /// How long ago a sweep was finished, or the probe started.
    pub sweep_age: Duration,
    /// What the machine has left.
    pub host: Host,
}

/// What a scrape took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousScrape {
    /// Time to collect and encode.
    pub duration: Duration,
    /// Size of the page, before any compression.
    pub bytes: usize,
}

/// How many series there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// Served.
    pub served: usize,
    /// That may be served.
    pub max: usize,
    /// That had no room.
    pub refused: u64,
}

impl From<&Room> for SeriesCounts {
    fn from(room: &Room) -> SeriesCounts {
        SeriesCounts { served: room.used(), max: room.max(), refused: room.refused() }
    }
}

/// How many files, sites and processes there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetCounts {
    /// Files attached.
    pub attached: u64,
    /// Files not attached: refused as a whole, or waiting for room.
    pub refused: u64,
    /// Files not attached that are in none of these numbers, since the probe started.
    pub forgotten: u64,
    /// Sites attached.
    pub sites_attached: u64,
    /// Sites refused, by reason.
    pub sites_refused: BTreeMap<Refusal, u64>,
    /// Processes that map these files.
    pub processes: u64,
}

impl Own {
    /// Adds the probe's own series.
    pub(crate) fn add_to(&self, families: &mut Families, scrape: &Scrape<'_>) {
        use catalog as c;
        let none = LabelValues::default();
        let since = Some(scrape.clock.begin());
        let version = LabelValues { version: env!("CARGO_PKG_VERSION"), ..none };
        families.count(&c::PROBE_BUILD_INFO, &version, 1, since);
        families.count(&c::PROBE_SCRAPES, &none, self.scrapes, since);
        if let Some(PreviousScrape { duration, bytes }) = self.previous_scrape {
            families.value(&c::PROBE_SCRAPE_DURATION, &none, duration.as_secs_f64(), since);
            families.count(&c::PROBE_SCRAPE_SIZE, &none, bytes as u64, since);
        }
        families.value(&c::PROBE_SWEEP_AGE, &none, self.sweep_age.as_secs_f64(), since);
        families.count(&c::PROBE_SERIES, &none, self.series.served as u64, since);
        families.count(&c::PROBE_SERIES_MAX, &none, self.series.max as u64, since);
        families.count(&c::PROBE_SERIES_REFUSED, &none, self.series.refused, since);
        self.host.add_to(families);
        self.targets.add_to(families, since);
        families.count(&c::PROBE_PAGES_READ, &none, scrape.state.pages_read, since);
        for reason in Rejection::ALL {
            let count = scrape.state.rejected.get(&reason).copied().unwrap_or(0);
            families.count(
                &c::PROBE_PAGES_REJECTED,
                &LabelValues { reason: reason.name(), ..none },
                count,
                since,
            );
        }
        if let Some(sums) = scrape.sums {
            add_kernel(families, sums, since);
            if let Some(cost) = self.hit_cost {
                let seconds = sums.counter(Counter::Hits) as f64 * cost.as_secs_f64();
                families.value(&c::PROBE_OVERHEAD, &none, seconds, since);
                families.value(&c::PROBE_HIT_COST, &none, cost.as_secs_f64(), since);
            }
        }
    }
}

impl TargetCounts {
    fn add_to(&self, families: &mut Families, since: Option<Duration>) {
        use catalog as c;
        let none = LabelValues::default();
        let state = |state| LabelValues { state, ..none };
        families.count(&c::PROBE_TARGETS, &state("attached"), self.attached, since);
        families.count(&c::PROBE_TARGETS, &state("refused"), self.refused, since);
        families.count(&c::PROBE_TARGETS_FORGOTTEN, &none, self.forgotten, since);
        families.count(&c::PROBE_SITES, &state("attached"), self.sites_attached, since);
        families.count(&c::PROBE_SITES, &state("refused"), self.sites_refused.values().sum(), since);
        for (reason, count) in &self.sites_refused {
            families.count(
                &c::PROBE_SITES_REFUSED,
                &LabelValues { reason: reason.name(), ..none },
                *count,
                since,
            );
        }
        families.count(&c::PROBE_PROCESSES, &none, self.processes, since);
    }
}

fn add_kernel(families: &mut Families, sums: &Sums, since: Option<Duration>) {
    use catalog as c;
    let none = LabelValues::default();
    families.count(&c::PROBE_HITS, &none, sums.counter(Counter::Hits), since);
    for counter in Counter::ALL.into_iter().filter(|counter| *counter != Counter::Hits) {
        let labels = LabelValues { reason: counter.name(), ..none };
        families.count(&c::PROBE_REFUSED, &labels, sums.counter(counter), since);
    }
    let unlabelled = LabelValues { reason: UNLABELLED, ..none };
    families.count(&c::PROBE_REFUSED, &unlabelled, sums.unlabelled_operations, since);
    families.count(&c::PROBE_VALUES_HELD_BACK, &none, sums.held_back, since);
    for map in &sums.maps {
        let labels = LabelValues { map: map.name, ..none };
        families.count(&c::PROBE_MAP_ENTRIES, &labels, map.entries, since);
        families.count(&c::PROBE_MAP_CAPACITY, &labels, map.capacity, since);
    }
}
