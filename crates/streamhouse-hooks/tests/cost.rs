//! What the hooks cost the process that carries them: no allocation when they fire, and little memory for each subject.
#![cfg(all(target_os = "linux", not(feature = "disabled")))]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
#[cfg(not(feature = "metrics"))]
use streamhouse_abi::page::CELL;
use streamhouse_hooks::{
    Commit, Flush, Gauge, GaugeId, Instance, Method, Object, Operation, Poll, Request, Role, Scope, Send,
    Site, Started, Write, commit, flush, object, poll, request, send, write,
};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    CALLS.set(CALLS.get() + 1);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: passes every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Attaching by hand changes what the whole process does.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn fire_all(scope: &Scope, gauge: &Gauge) {
    let sent_ns = [5, 6, 7, u64::MAX];
    for status in [0, 1] {
        send(scope, Send { records: 4, bytes: 400, sent_ns: &sent_ns, ended_ns: 1_000_000, status });
        flush(scope, Flush { records: 4, bytes: 400, started: flush::start(), status });
        poll(scope, Poll { records: 4, bytes: 400, started: poll::start(), status });
        write(scope, Write { records: 4, bytes: 400, started: write::start(), status });
        object(scope, Object { operation: Operation::Put, bytes: 400, started: object::start(), status });
        commit(scope, Commit { records: 4, bytes: 400, started: commit::start(), status });
        request(scope, Request { method: Method::Produce, started: request::start(), status });
    }
    gauge.set(4, 5);
    gauge.set_now(4);
    gauge.add(1, 6);
    gauge.sub(1, 7);
}

#[test]
fn hooks_allocate_nothing_and_read_no_clock_while_nobody_looks() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let instance = Instance::new(Role::Producer, "client-1", "");
    let scope = instance.scope("orders", Some(1));
    let gauge = instance.gauge(GaugeId::ProducerPendingRecords, "orders", Some(1));
    let before = CALLS.get();
    fire_all(&scope, &gauge);
    let _sent = scope;
    assert_eq!(CALLS.get(), before);
    for site in Site::ALL {
        assert_eq!(Started::now_if(site), Started::UNTIMED);
    }
}

#[test]
fn hooks_allocate_nothing_while_somebody_looks() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let notes = support::notes();
    let attached: Vec<_> = notes.iter().map(support::Note::attach).collect();
    assert_eq!(attached.len(), Site::ALL.len());
    let instance = Instance::new(Role::Producer, "client-1", "");
    let scope = instance.scope("orders", Some(1));
    let gauge = instance.gauge(GaugeId::ProducerPendingRecords, "orders", Some(1));
    let before = CALLS.get();
    fire_all(&scope, &gauge);
    assert_eq!(CALLS.get(), before);
    assert!(attached.iter().all(|attached| attached.count() == 1));
}

/// The budget is 256 bytes a partition and group: a scope, four gauges, and what the page keeps for them. A process that
/// can serve its metrics itself pays more.
#[cfg(not(feature = "metrics"))]
#[test]
fn a_partition_and_group_take_no_more_than_their_budget() {
    const PARTITIONS: u32 = 1000;
    const GAUGES: [GaugeId; 4] = [
        GaugeId::ConsumerLagRecords,
        GaugeId::ConsumerLagMilliseconds,
        GaugeId::ConsumerLastCommittedOffset,
        GaugeId::ConsumerCurrentOffset,
    ];
    let instance = Instance::new(Role::Consumer, "client-1", "billing");
    let _first = (instance.scope("orders", None), instance.gauge(GAUGES[0], "orders", None));
    let mut kept = Vec::with_capacity(PARTITIONS as usize);
    let before = BYTES.get();
    for partition in 0..PARTITIONS {
        let gauges = GAUGES.map(|gauge| instance.gauge(gauge, "orders", Some(partition)));
        kept.push((instance.scope("orders", Some(partition)), gauges));
    }
    let heap = (BYTES.get() - before) / i64::from(PARTITIONS);
    let handles = size_of_val(&kept[0]) as i64;
    let page = (GAUGES.len() + 1) as i64 * CELL as i64;
    assert!(heap > 32, "the scopes are on the heap");
    assert!(heap + handles + page <= 256, "{heap} on the heap, {handles} of handles, {page} on the page");
}

#[test]
fn a_scope_and_an_instance_free_what_they_took() {
    let before = BYTES.get();
    let instance = Instance::new(Role::Producer, "client-1", "");
    let page = BYTES.get();
    let scope = instance.scope(&"t".repeat(300), Some(1));
    let clone = instance.clone();
    drop(instance);
    assert_eq!((scope.topic().len(), scope.partition()), (249, Some(1)));
    drop(scope);
    assert_eq!(BYTES.get(), page, "the scope");
    drop(clone);
    let again = Instance::new(Role::Producer, "client-1", "");
    let after = BYTES.get();
    drop(again);
    assert!(BYTES.get() < after && after >= before, "the instance");
}
