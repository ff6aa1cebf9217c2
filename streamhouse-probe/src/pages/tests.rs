//! Pages as hooks write them, and as an enemy would.

use super::*;
use crate::files::FileId;
use crate::room::SERIES_MAX;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use streamhouse_abi::limits::{AGENT_PAGE_BYTES, CLIENT_PAGE_BYTES};
use streamhouse_abi::page::{ARENA_OFFSET, CELL, KIND_LABEL_SET, KIND_STRING, LabelSet, MAGIC, VERSION};

mod merging;

const PID: u32 = 77;

/// The bytes of a page.
struct Writer {
    role: Role,
    instance_id: &'static str,
    cells: Vec<u8>,
}

impl Writer {
    fn new(role: Role, instance_id: &'static str) -> Writer {
        Writer { role, instance_id, cells: Vec::new() }
    }

    fn next(&self) -> u32 {
        (self.cells.len() / CELL) as u32
    }

    fn words(&mut self, words: [u32; 8]) -> u32 {
        let index = self.next();
        self.cells.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        index
    }

    fn string(&mut self, string: &str) -> u32 {
        if string.is_empty() {
            return LabelSet::NONE;
        }
        let index = self.next();
        self.cells.extend(KIND_STRING.to_le_bytes());
        self.cells.extend((string.len() as u32).to_le_bytes());
        self.cells.extend(string.as_bytes());
        self.cells.resize(self.cells.len().next_multiple_of(CELL), 0);
        index
    }

    fn labels(&mut self, group: &str, topic: &str, partition: Option<u32>) -> u32 {
        let strings = [self.instance_id, topic, group].map(|string| self.string(string));
        let partition = partition.unwrap_or(LabelSet::NONE);
        self.words([KIND_LABEL_SET, strings[0], strings[1], strings[2], partition, 0, 0, 0])
    }

    fn slot(&mut self, gauge: Gauge, labels: u32, updated_ns: u64, value: u64) -> u32 {
        let [updated_low, updated_high] = [updated_ns as u32, (updated_ns >> 32) as u32];
        let [low, high] = [value as u32, (value >> 32) as u32];
        self.words([gauge as u32, labels, 1, 0, updated_low, updated_high, low, high])
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        for word in [VERSION, PID, 5, 0, self.role as u32, 0, self.next(), 1 << 15, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.instance_id.as_bytes());
        bytes.resize(ARENA_OFFSET, 0);
        bytes.extend(&self.cells);
        bytes
    }

    fn memfd(&self) -> File {
        let file = memfd(&self.bytes(), CLIENT_PAGE_BYTES as u64);
        seal(&file, SealFlags::SHRINK | SealFlags::GROW);
        file
    }

    fn page(&self) -> PageFile {
        page(self.memfd())
    }
}

fn memfd(bytes: &[u8], size: u64) -> File {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("streamhouse", flags).expect("a memfd"));
    file.set_len(size).expect("sized");
    file.write_all_at(bytes, 0).expect("written");
    file
}

fn seal(file: &File, seals: SealFlags) {
    rustix::fs::fcntl_add_seals(file, seals).expect("sealed");
}

fn page(file: File) -> PageFile {
    let size = file.metadata().expect("open").len();
    match source::check(file, size, PID) {
        Ok(Sought::Page(page)) => page,
        other => panic!("{other:?}"),
    }
}

/// A page of the agent `a`, whose owner calls itself 7, for other tests.
pub(crate) fn sealed_page() -> File {
    let mut bytes = Writer::new(Role::Agent, "a").bytes();
    bytes[12] = 7;
    let file = memfd(&bytes, CLIENT_PAGE_BYTES as u64);
    seal(&file, SealFlags::SHRINK | SealFlags::GROW);
    file
}

/// The values by gauge and partition.
fn values(state: &State) -> Vec<(Gauge, Option<u32>, u64)> {
    state.series.iter().map(|(key, value)| (key.gauge, key.labels.partition, *value)).collect()
}

#[test]
fn a_page_gives_its_values_with_their_labels() {
    let mut writer = Writer::new(Role::Consumer, "host-consumer");
    let long_topic = "t".repeat(249);
    let labels = writer.labels("grüppe", &long_topic, Some(3));
    writer.slot(Gauge::ConsumerLagRecords, labels, 5, u64::MAX - 1);
    let (mut pages, mut room) = (Pages::default(), Room::default());
    pages.add(1, writer.page());
    let state = pages.read(Instant::now(), &mut room);
    let expected = GaugeKey {
        gauge: Gauge::ConsumerLagRecords,
        labels: PageLabels {
            instance_id: "host-consumer".into(),
            group: "grüppe".into(),
            topic: long_topic.as_str().into(),
            partition: Some(3),
        },
    };
    assert_eq!(state.series, BTreeMap::from([(expected, u64::MAX - 1)]));
    let process = ProcessKey { role: Role::Consumer, instance_id: "host-consumer".into() };
    assert_eq!(state.processes, BTreeMap::from([(process, true)]));
    assert_eq!((state.pages_read, state.rejected), (1, BTreeMap::new()));
}

#[test]
fn bytes_of_a_string_are_no_slot() {
    let mut writer = Writer::new(Role::Agent, "a");
    let head = writer.string(&"x".repeat(24 + 2 * CELL));
    // The continuation looks like a slot of a gauge.
    let at = (head as usize + 1) * CELL;
    writer.cells[at..at + 4].copy_from_slice(&(Gauge::AgentReady as u32).to_le_bytes());
    assert_eq!(parse_slots(&writer.cells, writer.cells.len()), Slots::default());
}

#[test]
fn a_slot_used_again_while_it_is_copied_finds_its_new_labels() {
    let mut writer = Writer::new(Role::Agent, "a");
    let first = writer.labels("", "", None);
    let reused = writer.slot(Gauge::AgentReady, first, 1, 1) as usize * CELL;
    let slot_bytes = writer.cells.len();
    let added = writer.labels("", "a topic of later", Some(7));
    writer.slot(Gauge::AgentReady, added, 1, 1);
    writer.cells[reused + 4..reused + 8].copy_from_slice(&added.to_le_bytes());

    let slots = parse_slots(&writer.cells, slot_bytes);
    assert_eq!(slots.rejected, 0);
    let labels: Vec<_> =
        slots.values.iter().map(|slot| (&*slot.labels.topic, slot.labels.partition)).collect();
    assert_eq!(labels, [("a topic of later", Some(7))], "what was added later is for the next copy");
}

#[test]
fn what_points_nowhere_is_rejected_and_the_rest_is_read() {
    let mut writer = Writer::new(Role::Agent, "a");
    let labels = writer.labels("", "", None);
    let string = writer.string("text");
    let not_utf8 = writer.string("\u{fe}");
    let at = not_utf8 as usize * CELL + 8;
    writer.cells[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
    let too_long = writer.string("x");
    let at = too_long as usize * CELL + 4;
    writer.cells[at..at + 4].copy_from_slice(&256u32.to_le_bytes());
    // Seven cells follow the head of a string that long.
    writer.cells.resize(writer.cells.len() + 8 * CELL, 0);
    let mut bad = vec![string];
    for index in [not_utf8, too_long, u32::MAX - 1, 1 << 30, labels] {
        bad.push(writer.words([KIND_LABEL_SET, index, LabelSet::NONE, LabelSet::NONE, 0, 0, 0, 0]));
    }
    for labels in &bad {
        writer.slot(Gauge::AgentReady, *labels, 1, 1);
    }
    writer.words([9999, labels, 0, 0, 0, 0, 0, 0]);
    writer.slot(Gauge::AgentReady, labels, 1, 1);
    let slots = parse_slots(&writer.cells, writer.cells.len());
    assert_eq!(slots.rejected, bad.len() as u64 + 1);
    assert_eq!(slots.values.len(), 1);
    // Cut anywhere, what is left is read or rejected.
    for len in 0..writer.cells.len() {
        parse_slots(&writer.cells[..len], len);
    }
}

#[test]
fn a_page_of_nothing_but_slots_is_bounded() {
    let mut writer = Writer::new(Role::Agent, "a");
    let labels = writer.labels("", "", None);
    for _ in 0..PAGE_SLOTS_MAX + 10 {
        writer.slot(Gauge::AgentReady, labels, 1, 1);
    }
    let slots = parse_slots(&writer.cells, writer.cells.len());
    assert_eq!((slots.values.len(), slots.rejected), (PAGE_SLOTS_MAX, 10));
}

#[test]
fn only_a_sealed_memfd_of_a_right_size_is_a_page() {
    let bytes = Writer::new(Role::Agent, "a").bytes();
    let reject = |file: File| {
        let size = file.metadata().expect("open").len();
        source::check(file, size, PID).expect_err("no page")
    };
    let ordinary = tempfile::tempfile().expect("a temporary file");
    ordinary.write_all_at(&bytes, 0).expect("written");
    assert_eq!(reject(ordinary), Rejection::NotSealed);
    let growing = memfd(&bytes, CLIENT_PAGE_BYTES as u64);
    seal(&growing, SealFlags::SHRINK);
    assert_eq!(reject(growing), Rejection::NotSealed);
    for size in [0, ARENA_OFFSET as u64 - 1, AGENT_PAGE_BYTES as u64 + 1, 1 << 40] {
        let file = memfd(&[], size);
        seal(&file, SealFlags::SHRINK | SealFlags::GROW);
        assert_eq!(reject(file), Rejection::BadSize);
    }
}

#[test]
fn headers_are_checked() {
    let right = Writer::new(Role::Agent, "a").bytes();
    let size = CLIENT_PAGE_BYTES as u64;
    let with = |at: usize, value: &[u8]| {
        let mut bytes = right.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        parse_head(&bytes, size)
    };
    assert!(parse_head(&right, size).is_ok_and(|head| head.is_some_and(|head| head.pid == PID)));
    assert_eq!(with(0, &[0; 8]), Ok(None), "still being made");
    assert_eq!(with(0, b"?"), Err(Rejection::BadHeader));
    assert_eq!(with(8, &[9]), Err(Rejection::OtherVersion));
    assert_eq!(with(24, &[9]), Err(Rejection::BadHeader), "role");
    assert_eq!(with(32, &u32::MAX.to_le_bytes()), Err(Rejection::BadHeader), "cells beyond the page");
    assert_eq!(with(48, &[0xff]), Err(Rejection::BadHeader), "instance id");
    let unterminated = with(48, &[b'a'; 128]).expect("right").expect("made");
    assert_eq!(unterminated.instance_id.len(), 128);
    assert_eq!(parse_head(&right[..100], size), Err(Rejection::BadHeader));
}

#[test]
fn a_page_inherited_by_a_fork_is_not_the_childs() {
    let file = Writer::new(Role::Agent, "a").memfd();
    let sought = source::check(file, CLIENT_PAGE_BYTES as u64, PID + 1);
    assert!(matches!(sought, Ok(Sought::Inherited)), "{sought:?}");
}

#[test]
fn a_page_is_found_among_the_open_files_of_a_process() {
    let file = Writer::new(Role::Agent, "a").memfd();
    let id = FileId::of(&rustix::fs::fstat(&file).expect("open"));
    assert!(matches!(open("/proc/self".as_ref(), id, PID), Sought::Page(_)));
    let other = FileId { inode: id.inode + 1_000_000, ..id };
    assert!(matches!(open("/proc/self".as_ref(), other, PID), Sought::NotYet));
}

#[test]
fn a_hole_punched_after_the_check_is_a_rejection() {
    let mut writer = Writer::new(Role::Agent, "a");
    let labels = writer.labels("", "", None);
    writer.slot(Gauge::AgentReady, labels, 1, 1);
    let file = writer.memfd();
    let (mut pages, mut room) = (Pages::default(), Room::default());
    pages.add(1, page(file.try_clone().expect("cloned")));
    assert_eq!(pages.read(Instant::now(), &mut room).series.len(), 1);
    file.write_all_at(&[0; 512], 0).expect("written");
    let state = pages.read(Instant::now(), &mut room);
    assert_eq!((state.series.len(), state.rejected), (0, BTreeMap::from([(Rejection::BadHeader, 1)])));
}

#[test]
fn series_and_memory_are_bounded() {
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let now = Instant::now();
    for pid in 0..3 {
        let mut writer = Writer::new(Role::Consumer, ["a", "b", "c"][pid as usize]);
        for partition in 0..SERIES_MAX as u32 / 2 {
            let labels = writer.words([KIND_LABEL_SET, u32::MAX, u32::MAX, u32::MAX, partition, 0, 0, 0]);
            let gauges = [
                Gauge::ConsumerLastCommittedOffset,
                Gauge::ConsumerCurrentOffset,
                Gauge::ProducerPendingRecords,
            ];
            writer.slot(gauges[pid as usize], labels, 1, 1);
        }
        pages.add(pid, writer.page());
    }
    let state = pages.read(now, &mut room);
    assert_eq!(state.series.len(), SERIES_MAX);
    assert_eq!(state.rejected[&Rejection::TooManySeries], SERIES_MAX as u64 / 2);
    (0..3).for_each(|pid| pages.exited(pid, now, &mut room));
    assert_eq!(pages.read(now, &mut room).series.len(), SERIES_MAX);
}

#[test]
fn a_page_of_too_much_takes_no_room_of_the_others() {
    let (mut pages, mut room, now) = (Pages::default(), Room::default(), Instant::now());
    let mut hog = Writer::new(Role::Agent, "hog");
    for partition in 0..PAGE_SLOTS_MAX as u32 {
        let labels =
            hog.words([KIND_LABEL_SET, LabelSet::NONE, LabelSet::NONE, LabelSet::NONE, partition, 0, 0, 0]);
        hog.slot(Gauge::ConsumerLagRecords, labels, 1, 1);
    }
    let mut small = Writer::new(Role::Consumer, "small");
    let labels = small.labels("g", "orders", Some(1));
    small.slot(Gauge::ConsumerLagRecords, labels, 5, 42);
    for pid in 0..40 {
        pages.add(pid, if pid % 8 == 7 { small.page() } else { hog.page() });
    }
    let state = pages.read(now, &mut room);
    assert_eq!(state.series.len(), SERIES_MAX);
    assert!(state.series.iter().any(|(key, value)| &*key.labels.instance_id == "small" && *value == 42));
    assert!(state.rejected[&Rejection::TooManySeries] > 0);
}

fn a_page() -> Vec<u8> {
    let mut writer = Writer::new(Role::Consumer, "instance");
    let labels = writer.labels("group", "topic", Some(1));
    writer.slot(Gauge::ConsumerLagRecords, labels, 1, 1);
    writer.slot(Gauge::ConsumerCurrentOffset, labels, 1, 2);
    writer.bytes()
}

fn parse(bytes: &[u8]) {
    if let Ok(Some(head)) = parse_head(bytes, CLIENT_PAGE_BYTES as u64) {
        assert!(head.used_bytes <= CLIENT_PAGE_BYTES);
        let arena = bytes.get(ARENA_OFFSET..head.used_bytes.min(bytes.len())).unwrap_or_default();
        parse_slots(arena, arena.len());
    }
}

#[test]
fn every_bit_flip_is_survived() {
    let right = a_page();
    for bit in 0..right.len() * 8 {
        let mut bytes = right.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        parse(&bytes);
    }
}

proptest! {
    #[test]
    fn random_cells_never_panic(
        words in proptest::collection::vec(
            prop_oneof![
                Just(KIND_STRING), Just(KIND_LABEL_SET), Just(u32::MAX), 0u32..32, any::<u32>()
            ],
            0..512,
        ),
    ) {
        let arena: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let slots = parse_slots(&arena, arena.len());
        prop_assert!(slots.values.len() as u64 + slots.rejected <= (arena.len() / CELL) as u64);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
        parse(&bytes);
        parse_slots(&bytes, bytes.len());
    }
}
