//! What the process's state page says, read as a probe does.

use std::mem::offset_of;
use streamhouse_abi::page::{ARENA_OFFSET, CELL, Gauge, LabelSet, Slot, StringHead};

/// A gauge of a group and a partition.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) value: u64,
}

/// The published gauges of a kind and an instance, in order.
pub(crate) fn values(gauge: Gauge, instance_id: &str) -> Vec<Value> {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().map(|file| file.unwrap().path());
    let is_page = |path: &std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|link| link.to_str() == Some("/memfd:streamhouse (deleted)"))
    };
    let page = std::fs::read(files.into_iter().find(is_page).expect("a page")).unwrap();
    let word = |cell: u32, offset: usize| {
        let at = ARENA_OFFSET + CELL * cell as usize + offset;
        u32::from_ne_bytes(page[at..at + 4].try_into().unwrap())
    };
    let text = |cell: u32| {
        if cell == LabelSet::NONE {
            return String::new();
        }
        let at = ARENA_OFFSET + CELL * cell as usize + offset_of!(StringHead, bytes);
        let len = word(cell, offset_of!(StringHead, len)) as usize;
        String::from_utf8(page[at..at + len].to_vec()).unwrap()
    };
    let used = u32::from_ne_bytes(page[32..36].try_into().unwrap());
    let mut values: Vec<_> = (0..used)
        .filter(|cell| word(*cell, 0) == gauge as u32)
        .map(|cell| (cell, word(cell, offset_of!(Slot, labels))))
        .filter(|(_, labels)| text(word(*labels, offset_of!(LabelSet, instance_id))) == instance_id)
        .map(|(cell, labels)| Value {
            group: text(word(labels, offset_of!(LabelSet, group))),
            topic: text(word(labels, offset_of!(LabelSet, topic))),
            partition: word(labels, offset_of!(LabelSet, partition)),
            value: word(cell, offset_of!(Slot, value)).into(),
        })
        .collect();
    values.sort();
    values
}
