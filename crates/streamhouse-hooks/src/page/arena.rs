//! Hands out the page's cells: interns strings and label sets, publishes and retires slots.

use super::Labels;
use super::layout::{Cell, Header, Slot};
use crate::{GaugeId, text};
use hashbrown::HashTable;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering::{Relaxed, Release};
use streamhouse_abi::limits::{GROUP_BYTES_MAX, INSTANCE_ID_BYTES_MAX, TOPIC_BYTES_MAX};
use streamhouse_abi::page::{CELL, KIND_FREE, KIND_LABEL_SET, KIND_STRING, LabelSet, StringHead};

/// The one writer of a page.
pub(super) struct Arena {
    header: &'static Header,
    cells: &'static [Cell],
    /// Cells ever used; also in the header, once what they hold is published.
    used: usize,
    /// Retired slots, the longest retired first: a reader that is just copying one should not meet its successor.
    free: VecDeque<u32>,
    strings: HashMap<Box<str>, u32>,
    /// Cells of label sets, found by the labels in them: an index of a few bytes a set, for there is one a partition.
    label_sets: HashTable<u32>,
    hasher: RandomState,
}

/// The labels in a cell, in the order of [`LabelSet`].
type LabelWords = [u32; 4];

impl Arena {
    pub(super) fn new(header: &'static Header, cells: &'static [Cell]) -> Arena {
        Arena {
            header,
            cells,
            used: 0,
            free: VecDeque::new(),
            strings: HashMap::new(),
            label_sets: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// Publishes a slot without a value yet; `None` when the page has no room for it or its labels.
    pub(super) fn publish(&mut self, gauge: GaugeId, labels: Labels<'_>) -> Option<&'static Slot> {
        let labels = self.label_set(labels)?;
        let reused = self.free.pop_front();
        let cell = match reused {
            Some(cell) => cell as usize,
            None => self.room(1)?,
        };
        let slot = self.cells[cell].as_slot();
        slot.labels.store(labels, Relaxed);
        slot.sequence.fetch_add(1, Relaxed);
        slot.updated_ns.store(0, Relaxed);
        slot.value.store(0, Relaxed);
        slot.kind.store(gauge as u32, Release);
        if reused.is_none() {
            self.advance(1);
        }
        Some(slot)
    }

    /// Takes a slot back; ignores one that is not of this page.
    pub(super) fn retire(&mut self, slot: &'static Slot) {
        let distance = std::ptr::from_ref(slot).addr().wrapping_sub(self.cells.as_ptr().addr());
        let cell = distance / CELL;
        if cell < self.used {
            slot.kind.store(KIND_FREE, Release);
            self.free.push_back(cell as u32);
        }
    }

    fn label_set(&mut self, labels: Labels<'_>) -> Option<u32> {
        let words: LabelWords = [
            self.string(text::cut(labels.instance_id, INSTANCE_ID_BYTES_MAX))?,
            self.string(text::cut(labels.topic, TOPIC_BYTES_MAX))?,
            self.string(text::cut(labels.group, GROUP_BYTES_MAX))?,
            labels.partition.unwrap_or(LabelSet::NONE),
        ];
        let (cells, hasher) = (self.cells, &self.hasher);
        let hash = hasher.hash_one(words);
        if let Some(cell) = self.label_sets.find(hash, |cell| label_words(cells, *cell) == words) {
            return Some(*cell);
        }
        let cell = self.room(1)?;
        for (to, word) in cells[cell].words[Cell::LABELS].iter().zip(words) {
            to.store(word, Relaxed);
        }
        cells[cell].words[Cell::KIND].store(KIND_LABEL_SET, Release);
        self.label_sets.insert_unique(hash, cell as u32, |cell| hasher.hash_one(label_words(cells, *cell)));
        self.advance(1);
        Some(cell as u32)
    }

    /// The cell of a string; [`LabelSet::NONE`] of an empty one.
    fn string(&mut self, text: &str) -> Option<u32> {
        if text.is_empty() {
            return Some(LabelSet::NONE);
        }
        if let Some(cell) = self.strings.get(text) {
            return Some(*cell);
        }
        let more = text.len().saturating_sub(StringHead::BYTES).div_ceil(CELL);
        let cell = self.room(1 + more)?;
        let (head, tail) = (&self.cells[cell], &self.cells[cell + 1..=cell + more]);
        let room = head.words[Cell::TEXT..].iter().chain(tail.iter().flat_map(|cell| &cell.words));
        for (to, four) in room.zip(text.as_bytes().chunks(4)) {
            let mut word = [0; 4];
            word[..four.len()].copy_from_slice(four);
            to.store(u32::from_ne_bytes(word), Relaxed);
        }
        head.words[Cell::LEN].store(text.len() as u32, Relaxed);
        head.words[Cell::KIND].store(KIND_STRING, Release);
        self.advance(1 + more);
        self.strings.insert(text.into(), cell as u32);
        Some(cell as u32)
    }

    /// The first of `count` cells that were never used, if there are as many.
    fn room(&self, count: usize) -> Option<usize> {
        (count <= self.cells.len() - self.used).then_some(self.used)
    }

    /// Counts cells as used, now that what they hold is published.
    fn advance(&mut self, count: usize) {
        self.used += count;
        self.header.cells_used.store(self.used as u32, Release);
    }
}

fn label_words(cells: &[Cell], cell: u32) -> LabelWords {
    let words = &cells[cell as usize].words[Cell::LABELS];
    std::array::from_fn(|index| words[index].load(Relaxed))
}
