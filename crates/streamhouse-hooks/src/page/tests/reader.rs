//! Reads a page as a probe does: `pread`s of the file under `/proc/PID/fd`, and nothing but the treaty's layout.

use crate::GaugeId;
use crate::page::Page;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use streamhouse_abi::page::{
    ARENA_OFFSET, CELL, KIND_FREE, KIND_LABEL_SET, KIND_STRING, LabelSet, StringHead,
};

pub(super) struct Copy {
    pub(super) bytes: Vec<u8>,
    /// Slots are read up to here; what lies behind was added while they were copied.
    slots_end: usize,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) gauge: GaugeId,
    pub(super) sequence: u64,
    pub(super) updated_ns: u64,
    pub(super) value: u64,
    pub(super) instance_id: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) group: Option<String>,
    pub(super) partition: Option<u32>,
}

impl Copy {
    pub(super) fn of(page: &Page) -> Copy {
        let path = format!("/proc/{}/fd/{}", std::process::id(), page.memory.file.as_raw_fd());
        assert_eq!(std::fs::read_link(&path).unwrap().to_str(), Some("/memfd:streamhouse (deleted)"));
        let file = File::open(path).unwrap();
        let mut bytes = Vec::new();
        copy_more(&file, &mut bytes);
        let slots_end = bytes.len();
        // A slot used again since then may refer to cells that were not in use before.
        copy_more(&file, &mut bytes);
        Copy { bytes, slots_end }
    }

    pub(super) fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[offset..offset + 4].try_into().unwrap())
    }

    pub(super) fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.bytes[offset..offset + 8].try_into().unwrap())
    }

    pub(super) fn cells_used(&self) -> u32 {
        self.u32(32)
    }

    pub(super) fn cells_capacity(&self) -> u32 {
        self.u32(36)
    }

    pub(super) fn refused(&self) -> u64 {
        self.u64(40)
    }

    /// Every slot in use, with its labels.
    pub(super) fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        let mut cell = 0;
        while ARENA_OFFSET + cell * CELL < self.slots_end {
            let at = ARENA_OFFSET + cell * CELL;
            cell += match self.u32(at) {
                KIND_FREE | KIND_LABEL_SET => 1,
                KIND_STRING => string_cells(self.u32(at + 4) as usize),
                gauge => {
                    slots.push(self.slot(at, GaugeId::from_number(gauge).expect("a gauge")));
                    1
                }
            };
        }
        slots
    }

    fn slot(&self, at: usize, gauge: GaugeId) -> Slot {
        let labels = ARENA_OFFSET + self.u32(at + 4) as usize * CELL;
        assert_eq!(self.u32(labels), KIND_LABEL_SET);
        let partition = self.u32(labels + 16);
        Slot {
            gauge,
            sequence: self.u64(at + 8),
            updated_ns: self.u64(at + 16),
            value: self.u64(at + 24),
            instance_id: self.string(self.u32(labels + 4)),
            topic: self.string(self.u32(labels + 8)),
            group: self.string(self.u32(labels + 12)),
            partition: (partition != LabelSet::NONE).then_some(partition),
        }
    }

    fn string(&self, cell: u32) -> Option<String> {
        if cell == LabelSet::NONE {
            return None;
        }
        let at = ARENA_OFFSET + cell as usize * CELL;
        assert_eq!(self.u32(at), KIND_STRING);
        let len = self.u32(at + 4) as usize;
        Some(String::from_utf8(self.bytes[at + 8..at + 8 + len].to_vec()).unwrap())
    }
}

/// Copies what of the header and the cells in use is not in `bytes` yet.
fn copy_more(file: &File, bytes: &mut Vec<u8>) {
    let mut header = [0; ARENA_OFFSET];
    file.read_exact_at(&mut header, 0).unwrap();
    let used = u32::from_ne_bytes(header[32..36].try_into().unwrap()) as usize;
    let from = bytes.len();
    bytes.resize(ARENA_OFFSET + used * CELL, 0);
    file.read_exact_at(&mut bytes[from..], from as u64).unwrap();
}

fn string_cells(len: usize) -> usize {
    1 + len.saturating_sub(StringHead::BYTES).div_ceil(CELL)
}
