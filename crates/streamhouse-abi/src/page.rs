//! The state page: values that are true now, in a sealed memfd of the observed process.
//!
//! One [`Header`], then an arena of 32-byte [`CELL`]s that grows by a bump index, so that one bounded `pread` copies
//! all that is in use. A cell is one of:
//!
//! - a **slot**: [`Slot`]; one gauge of one label set;
//! - a **label set**: [`LabelSet`]; interned, never freed;
//! - a **string**: [`StringHead`], then as many whole cells as its remaining bytes need; interned, never freed;
//! - **free** (kind 0): never used or retired.
//!
//! Publishing order, so that a reader never sees half a thing: contents first, then the cell's `kind` with a release
//! store, then [`Header::cells_used`]. A slot's value is one relaxed store, its time another. A slot is retired by
//! storing kind 0 and used again with a higher sequence; its labels may then lie behind the cells that a reader found in
//! use when it began, so a reader copies what was added meanwhile before it follows a reference. Every byte is hostile
//! to the reader.

use crate::limits::INSTANCE_ID_BYTES_MAX;
use core::mem::{offset_of, size_of};

/// Name of the memfd: `/proc/PID/maps` shows `/memfd:streamhouse (deleted)`.
pub const MEMFD_NAME: &str = "streamhouse";
/// First eight bytes of a page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SHPAGE\r\n");
/// Layout version.
pub const VERSION: u32 = 1;
/// Size of a cell in bytes.
pub const CELL: usize = 32;
/// Offset of the first cell.
pub const ARENA_OFFSET: usize = 256;

/// Kind of a label-set cell; slots have a [`Gauge`]'s number.
pub const KIND_LABEL_SET: u32 = 0xffff_0001;
/// Kind of a string's first cell.
pub const KIND_STRING: u32 = 0xffff_0002;
/// Kind of a cell that holds nothing.
pub const KIND_FREE: u32 = 0;

/// At offset 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// [`MAGIC`]; stored last, with release, when the rest of the header is there.
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Process that owns the page, as its own pid namespace numbers it. A forked child makes its own.
    pub pid: u32,
    /// The nonce of the process's scopes.
    pub nonce: u64,
    /// A [`Role`](crate::Role)'s number: what the process made first.
    pub role: u32,
    /// 1 when the process serves its catalog itself and the probe must not.
    pub serves_metrics: u32,
    /// Cells that were ever used: the arena's bump index.
    pub cells_used: u32,
    /// Cells the arena has.
    pub cells_capacity: u32,
    /// Slots, label sets and strings that found no room.
    pub refused: u64,
    /// Agent or client id, NUL-terminated.
    pub instance_id: [u8; INSTANCE_ID_BYTES_MAX + 1],
}

/// One gauge of one label set.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// A [`Gauge`]'s number.
    pub kind: u32,
    /// Cell index of the [`LabelSet`].
    pub labels: u32,
    /// Raised by each publication of this cell: tells a slot from a later user of its cell.
    pub sequence: u64,
    /// CLOCK_MONOTONIC nanoseconds of the last update; 0 while there was none, and so no value yet.
    pub updated_ns: u64,
    /// The value, in the gauge's unit.
    pub value: u64,
}

/// Labels shared by slots. String references are cell indexes; [`LabelSet::NONE`] where a label is absent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LabelSet {
    /// [`KIND_LABEL_SET`].
    pub kind: u32,
    /// Agent or client id.
    pub instance_id: u32,
    /// Topic.
    pub topic: u32,
    /// Consumer group.
    pub group: u32,
    /// Partition, or [`LabelSet::NONE`].
    pub partition: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

impl LabelSet {
    /// No such label.
    pub const NONE: u32 = u32::MAX;
}

/// The first cell of a string: UTF-8 without a NUL, at most 255 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StringHead {
    /// [`KIND_STRING`].
    pub kind: u32,
    /// Length in bytes.
    pub len: u32,
    /// The first bytes; the others follow in the next cells.
    pub bytes: [u8; StringHead::BYTES],
}

impl StringHead {
    /// How many bytes of a string its first cell holds.
    pub const BYTES: usize = 24;
}

/// What a slot may hold. The catalog gives each its metric name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Gauge {
    /// Records sent and not yet acknowledged or failed, in a producer.
    ProducerPendingRecords = 1,
    /// High watermark minus committed offset.
    ConsumerLagRecords = 2,
    /// Milliseconds between the commit of the segment that holds the first record not committed, and now.
    ConsumerLagMilliseconds = 3,
    /// The offset the group has committed.
    ConsumerLastCommittedOffset = 4,
    /// The offset the next poll starts at.
    ConsumerCurrentOffset = 5,
    /// Partitions whose lease the agent holds.
    AgentActivePartitions = 6,
    /// gRPC connections open.
    AgentActiveConnections = 7,
    /// Lease renewals since start; a counter.
    AgentLeaseRenewals = 8,
    /// 1 when the agent answers 200 on `/ready`.
    AgentReady = 9,
    /// [`ConsumerLagRecords`](Gauge::ConsumerLagRecords) of a group, in the agent that leases the partition.
    GroupLagRecords = 10,
    /// [`ConsumerLagMilliseconds`](Gauge::ConsumerLagMilliseconds) of a group, in the agent that leases the partition.
    GroupLagMilliseconds = 11,
    /// Bytes of batches received and neither committed nor refused, in an agent.
    AgentUnflushedBytes = 12,
    /// When the oldest of those batches was received: CLOCK_MONOTONIC nanoseconds, 0 while there are none. A time, not an
    /// age, so that it grows older also in an agent that hangs.
    AgentUnflushedSince = 13,
    /// Leases lost before they were given back, since start; a counter.
    AgentLeaseLosses = 14,
    /// Commits refused because the lease's epoch was not the current one, by partition, since start; a counter.
    AgentLeaseFencings = 15,
    /// The offset that a group has committed, in the agent that leases the partition.
    GroupCommittedOffset = 16,
}

impl Gauge {
    /// Every gauge, in the order of its number.
    pub const ALL: [Gauge; 16] = [
        Gauge::ProducerPendingRecords,
        Gauge::ConsumerLagRecords,
        Gauge::ConsumerLagMilliseconds,
        Gauge::ConsumerLastCommittedOffset,
        Gauge::ConsumerCurrentOffset,
        Gauge::AgentActivePartitions,
        Gauge::AgentActiveConnections,
        Gauge::AgentLeaseRenewals,
        Gauge::AgentReady,
        Gauge::GroupLagRecords,
        Gauge::GroupLagMilliseconds,
        Gauge::AgentUnflushedBytes,
        Gauge::AgentUnflushedSince,
        Gauge::AgentLeaseLosses,
        Gauge::AgentLeaseFencings,
        Gauge::GroupCommittedOffset,
    ];

    /// The gauge of a number, if there is one.
    pub fn from_number(number: u32) -> Option<Gauge> {
        Gauge::ALL.get(number.checked_sub(1)? as usize).copied()
    }
}

const _: () = {
    assert!(size_of::<Slot>() == CELL);
    assert!(size_of::<LabelSet>() == CELL);
    assert!(size_of::<StringHead>() == CELL);
    assert!(size_of::<Header>() <= ARENA_OFFSET);
    assert!(ARENA_OFFSET.is_multiple_of(CELL));
    assert!(offset_of!(Header, cells_used) == 32);
    assert!(offset_of!(Header, refused) == 40);
    assert!(offset_of!(Header, instance_id) == 48);
    assert!(offset_of!(Slot, value) == 24);
    let mut index = 0;
    while index < Gauge::ALL.len() {
        assert!(Gauge::ALL[index] as usize == index + 1);
        index += 1;
    }
};
