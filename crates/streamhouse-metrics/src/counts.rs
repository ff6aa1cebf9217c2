//! What is counted at one site: plain sums, whoever took them.

use streamhouse_abi::map::{STATUS_SLOTS, Sizes, Value};
use streamhouse_abi::{Method, Operation, Site, Status, bucket};

/// Counts by bucket, indexed as [`bucket::of_ns`] and [`bucket::of_size`] give them.
pub type Buckets = [u64; bucket::COUNT];

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
    pub fn add_value(&mut self, value: &Value) {
        add_each(&mut self.operations, &value.operations);
        add_each(&mut self.records, &value.records);
        self.bytes = self.bytes.wrapping_add(value.bytes);
        self.duration_ns = self.duration_ns.wrapping_add(value.duration_ns);
        add_each(&mut self.durations, &value.buckets);
    }

    /// Adds the sizes beside one value of the kernel.
    pub fn add_sizes(&mut self, sizes: &Sizes) {
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
