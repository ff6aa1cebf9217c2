mod fork;
mod reader;

use super::{Labels, Page};
use crate::{GaugeId, Role};
use reader::Copy;
use rustix::fs::SealFlags;
use std::collections::BTreeMap;
use std::thread::ScopedJoinHandle;
use streamhouse_abi::page::{ARENA_OFFSET, CELL, MAGIC, VERSION};

fn page(bytes: usize) -> &'static Page {
    Page::create(bytes, 0x5eed, Role::Consumer, "client-1").unwrap()
}

fn labels(topic: &str, partition: u32) -> Labels<'_> {
    Labels { instance_id: "client-1", group: "billing", topic, partition: Some(partition) }
}

#[test]
fn a_reader_finds_what_was_published() {
    let page = page(8192);
    let long = "t".repeat(249);
    let lag = page.gauge(GaugeId::ConsumerLagRecords, labels("orders", 3));
    let offset = page.gauge(GaugeId::ConsumerCurrentOffset, labels(&long, 0));
    let bare = Labels { instance_id: "client-1", group: "", topic: "", partition: None };
    let ready = page.gauge(GaugeId::AgentReady, bare);
    lag.set(41, 1_000);
    lag.set(42, 2_000);
    offset.add(7, 3_000);
    offset.sub(2, 4_000);
    ready.set_now(1);

    let copy = Copy::of(page);
    assert_eq!(copy.u64(0), MAGIC);
    assert_eq!(copy.u32(8), VERSION);
    assert_eq!(copy.u32(12), std::process::id());
    assert_eq!(copy.u64(16), 0x5eed);
    assert_eq!(copy.u32(24), Role::Consumer as u32);
    assert_eq!(copy.u32(28), 0, "it does not serve its metrics itself");
    assert_eq!(copy.cells_capacity() as usize, (8192 - ARENA_OFFSET) / CELL);
    assert_eq!(copy.refused(), 0);
    assert_eq!(&copy.bytes[48..57], b"client-1\0");

    let slots = copy.slots();
    assert_eq!(slots.len(), 3);
    let (lag, offset, ready) = (&slots[0], &slots[1], &slots[2]);
    assert_eq!((lag.gauge, lag.value, lag.updated_ns), (GaugeId::ConsumerLagRecords, 42, 2_000));
    assert_eq!(lag.instance_id.as_deref(), Some("client-1"));
    assert_eq!(lag.topic.as_deref(), Some("orders"));
    assert_eq!(lag.group.as_deref(), Some("billing"));
    assert_eq!(lag.partition, Some(3));
    assert_eq!((offset.gauge, offset.value, offset.updated_ns), (GaugeId::ConsumerCurrentOffset, 5, 4_000));
    assert_eq!(offset.topic, Some(long));
    assert_eq!((ready.gauge, ready.value), (GaugeId::AgentReady, 1));
    assert!(ready.updated_ns > 0);
    assert_eq!((&ready.topic, &ready.group, ready.partition), (&None, &None, None));
}

#[test]
fn an_instance_publishes_gauges_of_groups_that_are_not_its_own() {
    let instance = crate::Instance::new(Role::Agent, "agent-of-groups", "");
    let gauges = ["billing", "audit"]
        .map(|group| instance.group_gauge(GaugeId::GroupLagRecords, group, "orders", Some(1)));
    gauges.iter().zip(7..).for_each(|(gauge, value)| gauge.set_now(value));
    let slots = Copy::of(instance.page().unwrap()).slots();
    let slots = slots.iter().filter(|slot| slot.gauge == GaugeId::GroupLagRecords);
    // Another test's gauges lie on the same page: which places are free is not said.
    let published: BTreeMap<_, _> = slots.map(|slot| (slot.group.as_deref(), slot.value)).collect();
    assert_eq!(published, BTreeMap::from([(Some("billing"), 7), (Some("audit"), 8)]));
}

#[test]
fn over_long_labels_are_cut_as_a_scope_cuts_them() {
    let page = page(8192);
    let labels = Labels {
        instance_id: &"i".repeat(1000),
        group: &"g".repeat(1000),
        topic: &"ë".repeat(1000),
        partition: None,
    };
    let _gauge = page.gauge(GaugeId::ConsumerLagRecords, labels);
    let slots = Copy::of(page).slots();
    assert_eq!(slots[0].instance_id, Some("i".repeat(127)));
    assert_eq!(slots[0].group, Some("g".repeat(255)));
    assert_eq!(slots[0].topic, Some("ë".repeat(124)));
}

#[test]
fn labels_are_stored_once() {
    let page = page(8192);
    let first = page.gauge(GaugeId::ConsumerLagRecords, labels("orders", 0));
    let used = Copy::of(page).cells_used();
    let second = page.gauge(GaugeId::ConsumerCurrentOffset, labels("orders", 0));
    assert_eq!(Copy::of(page).cells_used(), used + 1, "a slot");
    let third = page.gauge(GaugeId::ConsumerCurrentOffset, labels("orders", 1));
    assert_eq!(Copy::of(page).cells_used(), used + 3, "a label set and a slot");
    drop((first, second, third));
}

#[test]
fn a_retired_slot_is_used_again_with_a_higher_sequence() {
    let page = page(8192);
    let slot = page.arena().publish(GaugeId::ConsumerLagRecords, labels("orders", 0)).unwrap();
    let gauge = super::Gauge::new(Some(slot));
    gauge.set(9, 99);
    let before = Copy::of(page);
    let sequence = before.slots()[0].sequence;

    page.arena().retire(slot);
    assert!(Copy::of(page).slots().is_empty());

    let again = page.arena().publish(GaugeId::ConsumerCurrentOffset, labels("orders", 0)).unwrap();
    let after = Copy::of(page);
    assert!(std::ptr::eq(slot, again));
    assert_eq!(after.cells_used(), before.cells_used());
    let slot = &after.slots()[0];
    assert_eq!((slot.gauge, slot.value, slot.updated_ns), (GaugeId::ConsumerCurrentOffset, 0, 0));
    assert!(slot.sequence > sequence);
    std::mem::forget(gauge);
}

#[test]
fn the_longest_retired_slot_is_used_first() {
    let page = page(8192);
    let slots: Vec<_> = (0..3)
        .map(|p| page.arena().publish(GaugeId::ConsumerLagRecords, labels("orders", p)).unwrap())
        .collect();
    page.arena().retire(slots[1]);
    page.arena().retire(slots[0]);
    let again = page.arena().publish(GaugeId::ConsumerLagRecords, labels("orders", 1)).unwrap();
    assert!(std::ptr::eq(again, slots[1]));
}

#[test]
fn a_full_page_refuses_and_counts() {
    // 16 cells: the three strings take one each, so 13 are left for label sets and slots.
    let page = page(ARENA_OFFSET + 16 * CELL);
    let publish = |partition| page.arena().publish(GaugeId::ConsumerLagRecords, labels("orders", partition));
    let slots: Vec<_> = (0..6).map(|partition| publish(partition).unwrap()).collect();
    assert_eq!(Copy::of(page).refused(), 0);
    assert_eq!(Copy::of(page).cells_used(), 15);

    let refused = page.gauge(GaugeId::ConsumerLagRecords, labels("orders", 6));
    refused.set(1, 1);
    let long = "t".repeat(249);
    page.gauge(GaugeId::ConsumerLagRecords, labels(&long, 0)).set(1, 1);
    let copy = Copy::of(page);
    assert_eq!(copy.refused(), 2);
    assert_eq!(copy.slots().len(), 6);
    assert!(copy.slots().iter().all(|slot| slot.value == 0));

    page.arena().retire(slots[4]);
    assert!(publish(5).is_some(), "there is room again");
    assert_eq!(Copy::of(page).slots().len(), 6);
}

#[test]
fn nobody_can_change_the_size_of_a_page() {
    let page = page(8192);
    let seals = rustix::fs::fcntl_get_seals(&page.memory.file).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
    assert!(rustix::fs::ftruncate(&page.memory.file, 0).is_err());
    assert!(rustix::fs::ftruncate(&page.memory.file, 1 << 20).is_err());
    let stat = rustix::fs::fstat(&page.memory.file).unwrap();
    assert_eq!(stat.st_size, 8192);
    assert_eq!(rustix::fs::FileType::from_raw_mode(stat.st_mode), rustix::fs::FileType::RegularFile);
}

#[test]
fn a_page_is_sparse() {
    let page = page(1 << 20);
    let _gauge = page.gauge(GaugeId::ConsumerLagRecords, labels("orders", 0));
    let stat = rustix::fs::fstat(&page.memory.file).unwrap();
    assert!(stat.st_blocks * 512 <= 64 << 10, "{} bytes are resident", stat.st_blocks * 512);
}

#[test]
fn every_copy_is_whole_while_gauges_come_and_go() {
    // Every label set is met once while it is new: only then can a copy miss what a slot refers to.
    for _ in 0..50 {
        copy_while_gauges_come_and_go(page(64 << 10));
    }
}

fn copy_while_gauges_come_and_go(page: &'static Page) {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u32)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let topic = ["orders", "a-topic-of-more-than-one-cell"][round as usize % 2];
                        let labels = labels(topic, writer * 8 + round % 8);
                        let slot = page.arena().publish(GaugeId::ConsumerLagRecords, labels).unwrap();
                        page.arena().retire(slot);
                    }
                })
            })
            .collect();
        while !writers.iter().all(ScopedJoinHandle::is_finished) {
            // Panics when a reference leads nowhere or a string is not whole.
            Copy::of(page).slots();
        }
    });
    assert_eq!(Copy::of(page).refused(), 0);
    assert!(Copy::of(page).cells_used() <= 3 + 3 + 32 + 2, "strings, label sets, and two slots");
}
