//! Keys and values of the kernel maps.
//!
//! Values change by atomic adds only: programs on several CPUs, and on a preemptible kernel several on one CPU, add to
//! the same value at the same time.

use crate::bucket;
use crate::limits::{GROUP_BYTES_MAX, INSTANCE_ID_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::{ScopeHead, Site, Status};
use core::mem::{offset_of, size_of};

/// Name of the hash map [`Key`] → [`Value`].
pub const VALUES: &str = "VALUES";
/// Name of the hash map [`Key`] (of `flush`) → [`Sizes`].
pub const SIZES: &str = "SIZES";
/// Name of the hash map [`ScopeKey`] → [`ScopeLabels`].
pub const SCOPES: &str = "SCOPES";
/// Name of the hash map tgid (u32) → [`Process`].
pub const PROCESSES: &str = "PROCESSES";
/// Name of the per-CPU array of u64 counters indexed by [`Counter`]. Per CPU, so that CPUs do not fight for one cache
/// line at every hit; each slot changes by atomic adds all the same, because a program may be moved or preempted.
pub const COUNTERS: &str = "COUNTERS";
/// Name of the hash map target (u32) → target (u32) whose hits count as its own: the probe found that both are one file.
pub const TARGETS: &str = "TARGETS";
/// Name of the program that serves every site.
pub const PROGRAM: &str = "site";

/// Slots for statuses in a value: a power of two above the number of statuses.
pub const STATUS_SLOTS: usize = 8;

/// One process's scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeKey {
    /// From [`ScopeHead::nonce`].
    pub nonce: u64,
    /// From [`ScopeHead::scope_id`].
    pub scope_id: u64,
    /// Process id (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// Zero: a key has no padding.
    pub zero: u32,
}

/// What values are kept by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// From [`ScopeHead::nonce`].
    pub nonce: u64,
    /// From [`ScopeHead::scope_id`].
    pub scope_id: u64,
    /// Process id (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// A [`Site`]'s number.
    pub site: u16,
    /// For `object` an [`Operation`](crate::Operation)'s number, for `request` a [`Method`](crate::Method)'s, else 0.
    pub detail: u16,
}

impl Key {
    /// The scope this key belongs to.
    pub const fn scope(&self) -> ScopeKey {
        ScopeKey { nonce: self.nonce, scope_id: self.scope_id, tgid: self.tgid, zero: 0 }
    }
}

/// The sums of one key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// Target (see [`Cookie`]) of the first hit, plus 1; 0 while the value is being made. Hits of another target are
    /// ignored and counted in `foreign_hits`: one file attached through two paths.
    pub target: u64,
    /// The other target that was seen last, plus 1; 0 while there was none.
    pub foreign_target: u64,
    /// Hits ignored because they came through another target.
    pub foreign_hits: u64,
    /// 1 once the scope's labels are ready, so that a hit need not look them up again.
    pub labelled: u64,
    /// Operations by status number.
    pub operations: [u64; STATUS_SLOTS],
    /// Records by status number.
    pub records: [u64; STATUS_SLOTS],
    /// Bytes of operations that succeeded.
    pub bytes: u64,
    /// Sum of the durations in the buckets, in nanoseconds.
    pub duration_ns: u64,
    /// What succeeded, by duration; for `send` records, else operations.
    pub buckets: [u64; bucket::COUNT],
}

/// The batch sizes of one `flush` key, of batches that succeeded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Batches by number of records.
    pub records: [u64; bucket::COUNT],
    /// Batches by bytes.
    pub bytes: [u64; bucket::COUNT],
}

/// Labels of a scope, copied once from the process, so that they survive it. Strings are NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ScopeLabels {
    /// How far the copy is: [`ScopeLabels::EMPTY`], [`ScopeLabels::COPYING`] or [`ScopeLabels::READY`].
    pub ready: u64,
    /// The head as it was when the strings were copied.
    pub head: ScopeHead,
    /// Agent or client id.
    pub instance_id: [u8; INSTANCE_ID_BYTES_MAX + 1],
    /// Consumer group or empty.
    pub group: [u8; GROUP_BYTES_MAX + 1],
    /// Topic or empty.
    pub topic: [u8; TOPIC_BYTES_MAX + 7],
}

impl ScopeLabels {
    /// Nothing has been read; a later hit tries again.
    pub const EMPTY: u64 = 0;
    /// Every string has been read; nothing changes any more.
    pub const READY: u64 = 1;
    /// One hit is reading the strings; the others leave it alone.
    pub const COPYING: u64 = 2;
}

/// What one process holds in the maps: no process may take more than its share.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Entries in [`VALUES`].
    pub values: u64,
    /// Entries in [`SIZES`].
    pub sizes: u64,
    /// Entries in [`SCOPES`].
    pub scopes: u64,
}

/// Index into [`COUNTERS`]. Every hit is in `Hits`; each other counter says what of a hit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Counter {
    /// Runs of the program.
    Hits = 0,
    /// Hits refused because a map had no room.
    MapFull = 1,
    /// Hits refused because the process holds its share of a map already.
    OverShare = 2,
    /// Hits refused because the scope's head could not be read.
    BadPointer = 3,
    /// Hits refused because an argument was over its limit, a status, operation or role unknown, or the scope's head of
    /// another scope than the hit.
    Clamped = 4,
    /// Records that succeeded and are counted, but whose latency bins could not be read or did not add up.
    BinsLost = 5,
    /// Batches counted whose sizes found no room in [`SIZES`].
    SizesLost = 6,
    /// Hits ignored because the value belongs to another target.
    Foreign = 7,
}

impl Counter {
    /// Every counter, in the order of its index.
    pub const ALL: [Counter; 8] = [
        Counter::Hits,
        Counter::MapFull,
        Counter::OverShare,
        Counter::BadPointer,
        Counter::Clamped,
        Counter::BinsLost,
        Counter::SizesLost,
        Counter::Foreign,
    ];

    /// The value of the `reason` label.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::Hits => "hits",
            Counter::MapFull => "map_full",
            Counter::OverShare => "over_share",
            Counter::BadPointer => "bad_pointer",
            Counter::Clamped => "clamped",
            Counter::BinsLost => "bins_lost",
            Counter::SizesLost => "sizes_lost",
            Counter::Foreign => "foreign_target",
        }
    }
}

/// What the attach cookie of a site says: the target (a file the probe attached to) and the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The probe's number of the file; never reused while the probe runs.
    pub target: u32,
    /// A [`Site`]'s number.
    pub site: u16,
}

impl Cookie {
    /// As the kernel keeps it.
    pub const fn to_bits(self) -> u64 {
        (self.target as u64) << 16 | self.site as u64
    }

    /// From what `bpf_get_attach_cookie` gives.
    pub const fn from_bits(bits: u64) -> Cookie {
        Cookie { target: (bits >> 16) as u32, site: bits as u16 }
    }
}

const _: () = {
    assert!(size_of::<ScopeKey>() == 24);
    assert!(size_of::<Key>() == 24);
    assert!(offset_of!(Key, site) == 20);
    assert!(size_of::<Value>() == 8 * (4 + 2 * STATUS_SLOTS + 2 + bucket::COUNT));
    assert!(size_of::<Sizes>() == 16 * bucket::COUNT);
    assert!(size_of::<ScopeLabels>() == 8 + 32 + 128 + 256 + 256);
    assert!(size_of::<Process>() == 24);
    assert!(Status::ALL.len() <= STATUS_SLOTS);
    assert!(Site::ALL.len() <= 16);
    let mut index = 0;
    while index < Counter::ALL.len() {
        assert!(Counter::ALL[index] as usize == index);
        index += 1;
    }
};
