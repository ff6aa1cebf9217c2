//! What a collection gives: plain sums by label set, for the encoder.

use std::time::Instant;

use streamhouse_abi::map::{Counter, STATUS_SLOTS, Sizes, Value};
use streamhouse_abi::{Method, Operation, Role, Site, Status, bucket};

/// Counts by bucket, indexed as [`bucket::of_ns`] and [`bucket::of_size`] give them.
pub type Buckets = [u64; bucket::COUNT];

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

/// What sums of one site and label set are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing: the site observes one thing.
    None,
    /// For `object` what was done.
    Operation(Operation),
    /// For `request` what was asked for.
    Method(Method),
}

impl Detail {
    /// From the number in a [`Key`](streamhouse_abi::map::Key); `None` when the site has no such number.
    pub fn of(site: Site, number: u16) -> Option<Detail> {
        match site {
            Site::Object => Operation::from_number(number).map(Detail::Operation),
            Site::Request => Method::from_number(number).map(Detail::Method),
            Site::Send | Site::Flush | Site::Poll | Site::Write | Site::Commit => Some(Detail::None),
        }
    }
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

/// What one site counted for one label set.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Operations by [`Status`] number.
    pub operations: [u64; STATUS_SLOTS],
    /// Records by [`Status`] number.
    pub records: [u64; STATUS_SLOTS],
    /// Bytes of operations that succeeded.
    pub bytes: u64,
    /// Sum of the durations in `durations`, in nanoseconds.
    pub duration_ns: u64,
    /// What succeeded and was timed, by duration; for `send` records, else operations.
    pub durations: Buckets,
    /// For `flush` the sizes of the batches that succeeded, else none.
    pub sizes: Option<Box<SizeCounts>>,
}

/// The sizes of the batches that one label set flushed.
#[derive(Clone, Debug)]
pub struct SizeCounts {
    /// Batches by number of records.
    pub records: Buckets,
    /// Batches by bytes.
    pub bytes: Buckets,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            operations: [0; STATUS_SLOTS],
            records: [0; STATUS_SLOTS],
            bytes: 0,
            duration_ns: 0,
            durations: [0; bucket::COUNT],
            sizes: None,
        }
    }
}

impl Default for SizeCounts {
    fn default() -> SizeCounts {
        SizeCounts { records: [0; bucket::COUNT], bytes: [0; bucket::COUNT] }
    }
}

impl Counts {
    /// Operations that ended with `status`.
    pub fn operations_with(&self, status: Status) -> u64 {
        self.operations[status as usize]
    }

    /// Records of operations that ended with `status`.
    pub fn records_with(&self, status: Status) -> u64 {
        self.records[status as usize]
    }

    /// Adds what another label set counted, for series that leave a label out.
    pub fn add(&mut self, other: &Counts) {
        add_each(&mut self.operations, &other.operations);
        add_each(&mut self.records, &other.records);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.duration_ns = self.duration_ns.wrapping_add(other.duration_ns);
        add_each(&mut self.durations, &other.durations);
        if let Some(sizes) = &other.sizes {
            let own = self.sizes.get_or_insert_default();
            add_each(&mut own.records, &sizes.records);
            add_each(&mut own.bytes, &sizes.bytes);
        }
    }

    /// Adds one value of the kernel.
    pub(super) fn add_value(&mut self, value: &Value) {
        add_each(&mut self.operations, &value.operations);
        add_each(&mut self.records, &value.records);
        self.bytes = self.bytes.wrapping_add(value.bytes);
        self.duration_ns = self.duration_ns.wrapping_add(value.duration_ns);
        add_each(&mut self.durations, &value.buckets);
    }

    /// Adds the sizes beside one value of the kernel.
    pub(super) fn add_sizes(&mut self, sizes: &Sizes) {
        let own = self.sizes.get_or_insert_default();
        add_each(&mut own.records, &sizes.records);
        add_each(&mut own.bytes, &sizes.bytes);
    }
}

/// Wrapping, as Prometheus counters may: an observed process can state numbers whose sum passes 2^64.
fn add_each<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
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
