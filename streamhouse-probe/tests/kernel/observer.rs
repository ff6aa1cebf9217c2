//! The probe's kernel side around one trial: a program, what it is attached to, and what it has counted.

use std::fs::File;
use std::time::Instant;

use streamhouse_abi::map::Counter;
use streamhouse_abi::{Site, Status};
use streamhouse_metrics::Label;
use streamhouse_metrics::sources::of_site;
use streamhouse_probe::attach::{self, Kernel, Link, Program, SiteOffsets};
use streamhouse_probe::collect::{Collector, Counts, SeriesKey, SiteSum, Sums};
use streamhouse_probe::encode::ClassicBuckets;
use streamhouse_probe::room::Room;
use streamhouse_probe::sites;

use crate::raw;

/// Room for every series that a trial makes: each has its own topics.
const SERIES_MAX: usize = 1_000_000;

/// A loaded program of its own: trials do not share maps.
pub(crate) struct Observer {
    pub(crate) program: Program,
    pub(crate) collector: Collector,
    room: Room,
}

impl Observer {
    pub(crate) fn new() -> Observer {
        let object = attach::object(None).expect("checked before any trial");
        let Kernel { program, maps, .. } = Kernel::load(&object).expect("the program loads");
        Observer {
            program,
            collector: Collector::new(maps),
            room: Room::new(SERIES_MAX, ClassicBuckets::default()),
        }
    }

    /// Attaches the raw sites of this executable.
    pub(crate) fn attach_raw(&self, target: u32) -> Link {
        self.attach(target, &raw::sites())
    }

    /// Attaches the hooks' sites of this executable.
    pub(crate) fn attach_hooks(&self, target: u32) -> Link {
        self.attach(target, &hook_sites())
    }

    fn attach(&self, target: u32, sites: &[SiteOffsets]) -> Link {
        self.program.attach(&own_file(), target, sites).expect("it attaches")
    }

    /// Collects, and checks that every hit is accounted for (invariant 8).
    pub(crate) fn sums(&mut self) -> Sums {
        let sums = self.collector.collect(Instant::now(), &mut self.room).expect("the maps can be read");
        let operations: u64 = sums.sites.iter().flat_map(|site| site.counts.operations).sum();
        let refusals =
            [Counter::MapFull, Counter::OverShare, Counter::BadPointer, Counter::Clamped, Counter::Foreign];
        let refused: u64 = refusals.into_iter().map(|counter| sums.counter(counter)).sum();
        if sums.held_back == 0 {
            assert_eq!(
                sums.counter(Counter::Hits),
                operations + refused + sums.unlabelled_operations,
                "hits are sums or refusals: {:?}",
                sums.counters
            );
        }
        sums
    }
}

/// This executable.
pub(crate) fn own_file() -> File {
    File::open("/proc/self/exe").expect("the executable can be opened")
}

/// The sites that hooks left in this executable.
pub(crate) fn hook_sites() -> Vec<SiteOffsets> {
    let found = sites::find_in_file(&own_file()).expect("the executable's notes can be read");
    let sites: Vec<SiteOffsets> = found.into_iter().filter_map(|site| site.place.ok()).collect();
    assert_eq!(sites.len(), Site::ALL.len(), "one site a hook");
    sites
}

/// The sums of one site and topic; those of a site whose metrics have no topic.
pub(crate) fn of<'s>(sums: &'s Sums, site: Site, topic: &str) -> &'s SiteSum {
    let topic = if of_site(site).has(Label::Topic) { topic } else { "" };
    let is_it = |key: &SeriesKey| key.site == site && key.labels.as_ref().is_some_and(|l| l.topic == topic);
    sums.sites.iter().find(|sum| is_it(&sum.key)).expect("the site has counted something")
}

/// Non-empty buckets, in order.
pub(crate) fn filled(buckets: &[u64]) -> Vec<(usize, u64)> {
    buckets.iter().copied().enumerate().filter(|&(_, count)| count > 0).collect()
}

/// Operations and records that succeeded.
pub(crate) fn succeeded(counts: &Counts) -> (u64, u64) {
    (counts.operations_with(Status::Ok), counts.records_with(Status::Ok))
}
