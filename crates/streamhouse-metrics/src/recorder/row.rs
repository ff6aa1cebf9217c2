//! The atomics that events are counted in.

use crate::{Counts, SizeCounts};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use streamhouse_abi::map::STATUS_SLOTS;
use streamhouse_abi::{Bins, Site, Status, UNTIMED, bucket};

/// An event, as hooks know it.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// A status's number.
    pub status: u8,
    /// Records in it.
    pub records: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// How long it took, or [`UNTIMED`]; with `bins` the sum of their durations.
    pub duration_ns: u64,
    /// For `send` its records by duration.
    pub bins: Option<&'a Bins>,
}

/// What events about one label set are counted in. Kept as long as what it describes.
#[derive(Debug)]
pub struct Subject {
    sites: Box<[SiteRows]>,
}

/// What one site counts in, by operation or method.
#[derive(Debug)]
pub(super) struct SiteRows {
    pub(super) site: Site,
    pub(super) rows: Box<[Arc<Row>]>,
}

impl Subject {
    pub(super) fn new(sites: impl Iterator<Item = SiteRows>) -> Subject {
        Subject { sites: sites.collect() }
    }

    /// Counts an event. A site, operation or method that the label set does not have is ignored.
    pub fn record(&self, site: Site, detail: u16, event: Event<'_>) {
        let of_site = self.sites.iter().find(|of| of.site == site);
        if let Some(row) = of_site.and_then(|of| of.rows.get(usize::from(detail))) {
            row.record(event);
        }
    }
}

/// The counters of one label set.
#[derive(Debug)]
pub(super) struct Row {
    operations: [AtomicU64; STATUS_SLOTS],
    records: [AtomicU64; STATUS_SLOTS],
    bytes: AtomicU64,
    pub(super) durations: Arc<Durations>,
}

/// The histograms of one label set without its partition.
#[derive(Debug)]
pub(super) struct Durations {
    sum_ns: AtomicU64,
    buckets: [AtomicU64; bucket::COUNT],
    sizes: Option<Box<Sizes>>,
}

#[derive(Debug)]
struct Sizes {
    records: [AtomicU64; bucket::COUNT],
    bytes: [AtomicU64; bucket::COUNT],
}

impl Durations {
    pub(super) fn new(with_sizes: bool) -> Durations {
        let sizes = || Box::new(Sizes { records: zeros(), bytes: zeros() });
        Durations { sum_ns: AtomicU64::new(0), buckets: zeros(), sizes: with_sizes.then(sizes) }
    }

    fn record(&self, Event { records, bytes, duration_ns, bins, .. }: Event<'_>) {
        if let Some(bins) = bins {
            self.sum_ns.fetch_add(duration_ns, Relaxed);
            for bin in bins.bins.iter().take(bins.len as usize) {
                self.add(bin.bucket as usize, bin.records.into());
            }
        } else if duration_ns != UNTIMED {
            self.sum_ns.fetch_add(duration_ns, Relaxed);
            self.add(bucket::of_ns(duration_ns), 1);
        }
        if let Some(sizes) = &self.sizes {
            sizes.records[bucket::of_size(records)].fetch_add(1, Relaxed);
            sizes.bytes[bucket::of_size(bytes)].fetch_add(1, Relaxed);
        }
    }

    fn add(&self, bucket: usize, count: u64) {
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(count, Relaxed);
        }
    }
}

impl Row {
    pub(super) fn new(durations: Arc<Durations>) -> Row {
        Row { operations: zeros(), records: zeros(), bytes: AtomicU64::new(0), durations }
    }

    /// Counts as the kernel program does: bytes, durations and sizes of what succeeded only.
    fn record(&self, event: Event<'_>) {
        let status = usize::from(event.status) % STATUS_SLOTS;
        if event.status == Status::Ok as u8 {
            self.bytes.fetch_add(event.bytes, Relaxed);
            self.durations.record(event);
        }
        self.records[status].fetch_add(event.records, Relaxed);
        self.operations[status].fetch_add(1, Relaxed);
    }

    /// What was counted, if anything; `with_histograms` for one of all rows that share them.
    pub(super) fn counts(&self, with_histograms: bool) -> Option<Counts> {
        let operations = load(&self.operations);
        if operations.iter().all(|count| *count == 0) {
            return None;
        }
        let Durations { sum_ns, buckets, sizes } = &*self.durations;
        let mut counts = Counts {
            operations,
            records: load(&self.records),
            bytes: self.bytes.load(Relaxed),
            sizes: sizes.as_ref().map(|_| Box::default()),
            ..Counts::default()
        };
        if with_histograms {
            counts.duration_ns = sum_ns.load(Relaxed);
            counts.durations = load(buckets);
            let load =
                |sizes: &Sizes| SizeCounts { records: load(&sizes.records), bytes: load(&sizes.bytes) };
            counts.sizes = sizes.as_ref().map(|sizes| Box::new(load(sizes)));
        }
        Some(counts)
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn load<const N: usize>(from: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|index| from[index].load(Relaxed))
}
