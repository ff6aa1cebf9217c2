//! The bytes of a state page → values. Pure, and every byte is hostile: whoever can run a process writes them.

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::Arc;

use streamhouse_abi::Role;
use streamhouse_abi::limits::{AGENT_PAGE_BYTES, INSTANCE_ID_BYTES_MAX};
use streamhouse_abi::page::{
    ARENA_OFFSET, CELL, Gauge, Header, KIND_FREE, KIND_LABEL_SET, KIND_STRING, LabelSet, MAGIC, Slot,
    StringHead, VERSION,
};

/// Most slots that are taken from one page; an agent with 500 partitions and ten groups needs as many.
pub const PAGE_SLOTS_MAX: usize = 10_000;
/// Longest string on a page, in bytes.
const STRING_BYTES_MAX: u32 = 255;

/// The beginning of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageHead {
    /// The owner, as it sees itself: a number in its own pid namespace.
    pub pid: u32,
    /// What the process made first.
    pub role: Role,
    /// Agent or client id.
    pub instance_id: Arc<str>,
    /// The nonce of the process's scopes.
    pub nonce: u64,
    /// The process serves its metrics itself; the probe must not count them twice.
    pub serves_metrics: bool,
    /// Bytes from the start of the page to the end of the cells in use.
    pub used_bytes: usize,
}

/// Whose a value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageLabels {
    /// Agent or client id.
    pub instance_id: Arc<str>,
    /// Consumer group, or empty.
    pub group: Arc<str>,
    /// Topic, or empty.
    pub topic: Arc<str>,
    /// Partition, when it is one's.
    pub partition: Option<u32>,
}

/// One value of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotValue {
    /// What it is.
    pub gauge: Gauge,
    /// Whose it is.
    pub labels: PageLabels,
    /// Index of its cell and number of its publication: together they tell it from any other slot of the page.
    pub publication: (u32, u64),
    /// CLOCK_MONOTONIC nanoseconds of its last update.
    pub updated_ns: u64,
    /// The value, in the gauge's unit.
    pub value: u64,
}

/// What a page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The values, in the order of their cells.
    pub values: Vec<SlotValue>,
    /// Slots that were left out: unknown, pointing to no label set, or more than [`PAGE_SLOTS_MAX`].
    pub rejected: u64,
}

/// Why a page is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Rejection {
    /// It can still change its size.
    #[error("it is no memfd sealed against shrinking and growing")]
    NotSealed,
    /// Its size is none that a page may have.
    #[error("its size is none that a state page may have")]
    BadSize,
    /// It does not begin as a page does.
    #[error("its header is malformed")]
    BadHeader,
    /// It has another layout.
    #[error("its layout is not version {VERSION}; use a probe of the same release as the process")]
    OtherVersion,
    /// It could not be read.
    #[error("it could not be read")]
    Unreadable,
    /// More pages or bytes than one scrape reads.
    #[error("the pages of all processes are more than one scrape reads")]
    TooMuch,
    /// A slot of it is malformed.
    #[error("a slot of it is malformed")]
    BadSlot,
    /// More series than the probe keeps.
    #[error("the pages of all processes hold more series than the probe keeps")]
    TooManySeries,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Rejection; 8] = [
        Rejection::NotSealed,
        Rejection::BadSize,
        Rejection::BadHeader,
        Rejection::OtherVersion,
        Rejection::Unreadable,
        Rejection::TooMuch,
        Rejection::BadSlot,
        Rejection::TooManySeries,
    ];

    /// The value of the `reason` label.
    pub const fn name(self) -> &'static str {
        match self {
            Rejection::NotSealed => "not_sealed",
            Rejection::BadSize => "bad_size",
            Rejection::BadHeader => "bad_header",
            Rejection::OtherVersion => "other_version",
            Rejection::Unreadable => "unreadable",
            Rejection::TooMuch => "too_much",
            Rejection::BadSlot => "bad_slot",
            Rejection::TooManySeries => "too_many_series",
        }
    }
}

/// The beginning of a page, from at least its first [`ARENA_OFFSET`] bytes; `None` while the process still makes it.
/// `page_bytes` is the size of the whole page.
///
/// # Errors
///
/// A [`Rejection`] when these bytes are no page's.
pub fn parse_head(bytes: &[u8], page_bytes: u64) -> Result<Option<PageHead>, Rejection> {
    let cells_max = page_bytes
        .checked_sub(ARENA_OFFSET as u64)
        .filter(|_| page_bytes <= AGENT_PAGE_BYTES as u64)
        .ok_or(Rejection::BadSize)?
        / CELL as u64;
    let bytes = bytes.get(..ARENA_OFFSET).ok_or(Rejection::BadHeader)?;
    match u64_at(bytes, offset_of!(Header, magic)) {
        MAGIC => {}
        0 => return Ok(None),
        _ => return Err(Rejection::BadHeader),
    }
    if u32_at(bytes, offset_of!(Header, version)) != VERSION {
        return Err(Rejection::OtherVersion);
    }
    let id = &bytes[offset_of!(Header, instance_id)..][..INSTANCE_ID_BYTES_MAX + 1];
    let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
    let cells_used = u64::from(u32_at(bytes, offset_of!(Header, cells_used)));
    if cells_used > cells_max {
        return Err(Rejection::BadHeader);
    }
    Ok(Some(PageHead {
        pid: u32_at(bytes, offset_of!(Header, pid)),
        role: Role::from_number(u32_at(bytes, offset_of!(Header, role))).ok_or(Rejection::BadHeader)?,
        instance_id: std::str::from_utf8(id).map_err(|_| Rejection::BadHeader)?.into(),
        nonce: u64_at(bytes, offset_of!(Header, nonce)),
        serves_metrics: u32_at(bytes, offset_of!(Header, serves_metrics)) != 0,
        // At most AGENT_PAGE_BYTES, checked above.
        used_bytes: ARENA_OFFSET + CELL * cells_used as usize,
    }))
}

/// The values in the first `slot_bytes` of a page's cells. `arena` is the bytes from [`ARENA_OFFSET`] on: longer than
/// `slot_bytes` where a slot was used again while it was copied, for labels that were not there before.
pub fn parse_slots(arena: &[u8], slot_bytes: usize) -> Slots {
    let mut cells = Cells { arena, strings: HashMap::new(), label_sets: HashMap::new() };
    let mut slots = Slots::default();
    let count = (arena.len().min(slot_bytes) / CELL) as u32;
    let mut index = 0;
    while index < count {
        let cell = cells.cell(index).unwrap_or_default();
        let kind = u32_at(cell, offset_of!(Slot, kind));
        let at = index;
        index += 1;
        match kind {
            KIND_FREE | KIND_LABEL_SET => {}
            // What follows a string's head is its bytes, whatever they look like.
            KIND_STRING => index += continuation(cell),
            // Nothing is looked up any more, so what is looked up is bounded too.
            _ if slots.values.len() as u64 + slots.rejected >= PAGE_SLOTS_MAX as u64 => slots.rejected += 1,
            _ => match cells.slot(at, kind, cell) {
                // It is published, and there is no value yet.
                Some(value) if value.updated_ns == 0 => {}
                Some(value) => slots.values.push(value),
                None => slots.rejected += 1,
            },
        }
    }
    slots
}

/// Cells that follow the head of a string.
fn continuation(head: &[u8]) -> u32 {
    let len = u32_at(head, offset_of!(StringHead, len)).min(STRING_BYTES_MAX);
    let in_head = (CELL - offset_of!(StringHead, bytes)) as u32;
    len.saturating_sub(in_head).div_ceil(CELL as u32)
}

/// The cells of a page, with what was already looked up: many slots share a label set, many label sets a string.
struct Cells<'a> {
    arena: &'a [u8],
    strings: HashMap<u32, Option<Arc<str>>>,
    label_sets: HashMap<u32, Option<PageLabels>>,
}

impl<'a> Cells<'a> {
    fn cell(&self, index: u32) -> Option<&'a [u8]> {
        self.arena.get(index as usize * CELL..)?.get(..CELL)
    }

    fn slot(&mut self, index: u32, kind: u32, cell: &[u8]) -> Option<SlotValue> {
        Some(SlotValue {
            gauge: Gauge::from_number(kind)?,
            labels: self.label_set(u32_at(cell, offset_of!(Slot, labels)))?,
            publication: (index, u64_at(cell, offset_of!(Slot, sequence))),
            updated_ns: u64_at(cell, offset_of!(Slot, updated_ns)),
            value: u64_at(cell, offset_of!(Slot, value)),
        })
    }

    fn label_set(&mut self, index: u32) -> Option<PageLabels> {
        if let Some(known) = self.label_sets.get(&index) {
            return known.clone();
        }
        let read = self.read_label_set(index);
        self.label_sets.insert(index, read.clone());
        read
    }

    fn read_label_set(&mut self, index: u32) -> Option<PageLabels> {
        let cell = self.cell(index)?;
        if u32_at(cell, offset_of!(LabelSet, kind)) != KIND_LABEL_SET {
            return None;
        }
        let partition = u32_at(cell, offset_of!(LabelSet, partition));
        Some(PageLabels {
            instance_id: self.string(u32_at(cell, offset_of!(LabelSet, instance_id)))?,
            group: self.string(u32_at(cell, offset_of!(LabelSet, group)))?,
            topic: self.string(u32_at(cell, offset_of!(LabelSet, topic)))?,
            partition: (partition != LabelSet::NONE).then_some(partition),
        })
    }

    /// The string whose head is at a cell; empty for [`LabelSet::NONE`].
    fn string(&mut self, index: u32) -> Option<Arc<str>> {
        if index == LabelSet::NONE {
            return Some(Arc::from(""));
        }
        if let Some(known) = self.strings.get(&index) {
            return known.clone();
        }
        let read = self.read_string(index).map(Arc::from);
        self.strings.insert(index, read.clone());
        read
    }

    fn read_string(&self, index: u32) -> Option<&'a str> {
        let head = self.cell(index)?;
        let len = u32_at(head, offset_of!(StringHead, len));
        if u32_at(head, offset_of!(StringHead, kind)) != KIND_STRING || len > STRING_BYTES_MAX {
            return None;
        }
        let start = index as usize * CELL + offset_of!(StringHead, bytes);
        let text = std::str::from_utf8(self.arena.get(start..)?.get(..len as usize)?).ok()?;
        // What separates labels is in none.
        (!text.contains('\0')).then_some(text)
    }
}

/// A number at an offset that lies in the bytes; 0 where they end.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let number = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    number.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// A number at an offset that lies in the bytes; 0 where they end.
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let number = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    number.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
