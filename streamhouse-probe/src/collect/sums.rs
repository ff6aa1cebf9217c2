//! What a collection gives: plain sums by label set, for the encoder.

use std::time::Instant;

use streamhouse_abi::map::Counter;
use streamhouse_abi::{Role, Site, Status};
use streamhouse_metrics::{Counts, Detail};

/// Who and where. Equal labels of several processes are one label set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels {
    /// What kind of process it is.
    pub role: Role,
    /// Agent or client id.
    pub instance_id: String,
    /// Consumer group, or empty.
    pub group: String,
    /// Topic, or empty when the scope is a whole instance.
    pub topic: String,
    /// Partition, when the scope has one.
    pub partition: Option<u32>,
}

/// What the sums of one site are kept by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// The site.
    pub site: Site,
    /// What the site tells apart itself.
    pub detail: Detail,
    /// Who and where, as far as metrics of the site have it; `None` is the overflow series of all label sets that had
    /// no room.
    pub labels: Option<Labels>,
}

/// The sums of one site and label set. Every number only grows while the series is served.
#[derive(Clone, Debug)]
pub struct SiteSum {
    /// Site, operation and labels.
    pub key: SeriesKey,
    /// When the collector saw it first: nothing was counted before the collection preceding this one.
    pub created: Instant,
    /// Which failures count in the overflow series, because their own had no room.
    pub overflowed: Statuses,
    /// What was counted.
    pub counts: Counts,
}

/// Some of all statuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statuses(u8);

impl Statuses {
    /// Whether it is among them.
    pub fn has(self, status: Status) -> bool {
        self.0 & 1 << status as u8 != 0
    }

    /// Puts it among them.
    pub fn insert(&mut self, status: Status) {
        self.0 |= 1 << status as u8;
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Status> {
        Status::ALL.into_iter().filter(move |status| self.has(*status))
    }
}

/// How full a kernel map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// The map's name.
    pub name: &'static str,
    /// Entries it holds.
    pub entries: u64,
    /// Entries it has room for.
    pub capacity: u64,
}

/// Two targets that are one file below: each hit came through both, and `dropped`'s were ignored.
///
/// Leave one link of all that are [`super::Collector::one_file`], then tell [`super::Collector::merge_targets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SameFile {
    /// The target whose number stands for both: the lower one.
    pub kept: u32,
    /// The other one.
    pub dropped: u32,
}

/// Everything one collection found.
#[derive(Clone, Debug)]
pub struct Sums {
    /// The sums, sorted by key.
    pub sites: Vec<SiteSum>,
    /// The program's counters, indexed by [`Counter`].
    pub counters: [u64; Counter::ALL.len()],
    /// How full the kernel maps are.
    pub maps: Vec<MapUse>,
    /// Values held back because their labels could not be read yet.
    pub held_back: u64,
    /// Operations never served, because their process exited before its labels could be read.
    pub unlabelled_operations: u64,
    /// Pairs of targets that turned out to be one file, each reported until merged.
    pub same_files: Vec<SameFile>,
}

impl Sums {
    /// One counter of the program.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
}
