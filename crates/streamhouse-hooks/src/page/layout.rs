//! The structures of [`streamhouse_abi::page`] as atomics: the probe reads while we write.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use streamhouse_abi::limits::INSTANCE_ID_BYTES_MAX;
use streamhouse_abi::page as treaty;

/// [`treaty::Header`].
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    pub(super) pid: AtomicU32,
    pub(super) nonce: AtomicU64,
    pub(super) role: AtomicU32,
    pub(super) serves_metrics: AtomicU32,
    pub(super) cells_used: AtomicU32,
    pub(super) cells_capacity: AtomicU32,
    pub(super) refused: AtomicU64,
    pub(super) instance_id: [AtomicU8; INSTANCE_ID_BYTES_MAX + 1],
}

/// [`treaty::Slot`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) kind: AtomicU32,
    pub(super) labels: AtomicU32,
    pub(super) sequence: AtomicU64,
    pub(super) updated_ns: AtomicU64,
    pub(super) value: AtomicU64,
}

/// Any cell: a [`Slot`], or words of a label set or a string. It never changes from the one to the other.
#[repr(C, align(8))]
pub(super) struct Cell {
    pub(super) words: [AtomicU32; treaty::CELL / 4],
}

impl Cell {
    /// Word of [`treaty::LabelSet`] and [`treaty::StringHead`] that holds the kind.
    pub(super) const KIND: usize = 0;
    /// Words of a [`treaty::LabelSet`] that hold labels.
    pub(super) const LABELS: std::ops::Range<usize> = 1..5;
    /// Word of a [`treaty::StringHead`] that holds the length.
    pub(super) const LEN: usize = 1;
    /// First word of a [`treaty::StringHead`] that holds text.
    pub(super) const TEXT: usize = 2;

    pub(super) fn as_slot(&self) -> &Slot {
        // SAFETY: same size, and alignment no less, as asserted below; atomics of any bytes are valid and may be
        // shared.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }
}

const _: () = {
    assert!(size_of::<Header>() == size_of::<treaty::Header>());
    assert!(offset_of!(Header, version) == offset_of!(treaty::Header, version));
    assert!(offset_of!(Header, pid) == offset_of!(treaty::Header, pid));
    assert!(offset_of!(Header, nonce) == offset_of!(treaty::Header, nonce));
    assert!(offset_of!(Header, role) == offset_of!(treaty::Header, role));
    assert!(offset_of!(Header, serves_metrics) == offset_of!(treaty::Header, serves_metrics));
    assert!(offset_of!(Header, cells_used) == offset_of!(treaty::Header, cells_used));
    assert!(offset_of!(Header, cells_capacity) == offset_of!(treaty::Header, cells_capacity));
    assert!(offset_of!(Header, refused) == offset_of!(treaty::Header, refused));
    assert!(offset_of!(Header, instance_id) == offset_of!(treaty::Header, instance_id));
    assert!(size_of::<Slot>() == treaty::CELL && size_of::<Cell>() == treaty::CELL);
    assert!(align_of::<Slot>() <= align_of::<Cell>());
    assert!(offset_of!(Slot, labels) == offset_of!(treaty::Slot, labels));
    assert!(offset_of!(Slot, sequence) == offset_of!(treaty::Slot, sequence));
    assert!(offset_of!(Slot, updated_ns) == offset_of!(treaty::Slot, updated_ns));
    assert!(offset_of!(Slot, value) == offset_of!(treaty::Slot, value));
    assert!(offset_of!(treaty::LabelSet, kind) == 4 * Cell::KIND);
    assert!(offset_of!(treaty::LabelSet, instance_id) == 4 * Cell::LABELS.start);
    assert!(offset_of!(treaty::LabelSet, topic) == 4 * Cell::LABELS.start + 4);
    assert!(offset_of!(treaty::LabelSet, group) == 4 * Cell::LABELS.start + 8);
    assert!(offset_of!(treaty::LabelSet, partition) == 4 * Cell::LABELS.start + 12);
    assert!(offset_of!(treaty::StringHead, kind) == 4 * Cell::KIND);
    assert!(offset_of!(treaty::StringHead, len) == 4 * Cell::LEN);
    assert!(offset_of!(treaty::StringHead, bytes) == 4 * Cell::TEXT);
};
