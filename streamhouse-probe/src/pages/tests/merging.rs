//! What is told of processes that speak of the same thing, or that speak no longer.

use super::*;

/// Overwrites the value of the slot at a cell, as its owner does.
fn store(file: &File, cell: u32, updated_ns: u64, value: u64) {
    let at = (ARENA_OFFSET + CELL * cell as usize) as u64;
    file.write_all_at(&updated_ns.to_le_bytes(), at + 16).expect("written");
    file.write_all_at(&value.to_le_bytes(), at + 24).expect("written");
}

fn retire(file: &File, cell: u32) {
    file.write_all_at(&[0; 4], (ARENA_OFFSET + CELL * cell as usize) as u64).expect("written");
}

#[test]
fn equal_labels_of_two_processes_merge_by_meaning() {
    let (mut pages, mut room) = (Pages::default(), Room::default());
    for (pid, updated, value) in [(1, 10, 5), (2, 30, 7), (3, 20, 9)] {
        let mut writer = Writer::new(Role::Consumer, "same");
        let labels = writer.labels("g", "t", Some(0));
        writer.slot(Gauge::ConsumerLagRecords, labels, updated, value);
        writer.slot(Gauge::ProducerPendingRecords, labels, updated, value);
        writer.slot(Gauge::AgentReady, labels, updated, u64::from(pid == 2));
        pages.add(pid, writer.page());
    }
    let state = pages.read(Instant::now(), &mut room);
    assert_eq!(
        values(&state),
        [
            (Gauge::ProducerPendingRecords, Some(0), 21),
            (Gauge::ConsumerLagRecords, Some(0), 7),
            (Gauge::AgentReady, Some(0), 1),
        ]
    );
    assert_eq!(state.processes.len(), 1);
}

#[test]
fn the_last_values_of_a_process_outlive_it_for_a_while_but_for_its_lag() {
    let mut writer = Writer::new(Role::Consumer, "c");
    let labels = writer.labels("g", "t", Some(0));
    let offset = writer.slot(Gauge::ConsumerCurrentOffset, labels, 1, 5);
    writer.slot(Gauge::ConsumerLagRecords, labels, 1, 3);
    writer.slot(Gauge::GroupLagRecords, labels, 1, 3);
    writer.slot(Gauge::ProducerPendingRecords, labels, 1, 4);
    let file = writer.memfd();
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let start = Instant::now();
    pages.add(1, page(file.try_clone().expect("cloned")));
    assert_eq!(pages.read(start, &mut room).series.len(), 4);
    // Written after the last scrape and before the exit was noticed.
    store(&file, offset, 2, 6);
    pages.exited(1, start, &mut room);
    let state = pages.read(start + Duration::from_secs(1), &mut room);
    assert_eq!(
        values(&state),
        [(Gauge::ProducerPendingRecords, Some(0), 0), (Gauge::ConsumerCurrentOffset, Some(0), 6)]
    );
    assert_eq!(state.processes.values().collect::<Vec<_>>(), [&false]);
    let state = pages.read(start + KEPT_AFTER_EXIT, &mut room);
    assert!(state.series.is_empty() && state.processes.is_empty());
}

#[test]
fn who_has_stopped_says_nothing_of_what_another_reads_by_now() {
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let consumer = |id: &'static str, gauge, updated_ns| {
        let mut writer = Writer::new(Role::Consumer, id);
        let labels = writer.labels("g", "t", Some(0));
        writer.slot(gauge, labels, updated_ns, 5);
        writer.page()
    };
    let (begin, second) = (1_000_000_000_000, 1_000_000_000);
    for gauge in [Gauge::ConsumerLagRecords, Gauge::ConsumerCurrentOffset, Gauge::GroupLagRecords] {
        pages.add(1, consumer("stopped", gauge, begin));
        pages.add(2, consumer("reads", gauge, begin + 10 * second));
        pages.add(3, consumer("reads too", gauge, begin + second));
        let state = pages.read(Instant::now(), &mut room);
        let ids: Vec<_> = state.series.keys().map(|key| key.labels.instance_id.to_string()).collect();
        assert_eq!(ids, ["reads", "reads too"], "{gauge:?}");
    }
}

#[test]
fn an_agent_that_stands_still_is_not_ready_and_tells_nothing_of_others() {
    let mut writer = Writer::new(Role::Agent, "a");
    let lag = writer.labels("g", "t", Some(0));
    let own = writer.labels("", "", None);
    writer.slot(Gauge::GroupLagRecords, lag, 10, 200_000);
    writer.slot(Gauge::AgentUnflushedBytes, own, 10, 7);
    let ready = writer.slot(Gauge::AgentReady, own, 11, 1);
    let file = writer.memfd();
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let start = Instant::now();
    pages.add(1, page(file.try_clone().expect("cloned")));
    let says = |pages: &mut Pages, room: &mut Room, after: Duration| {
        let state = pages.read(start + after, room);
        state.series.iter().map(|(key, value)| (key.gauge, *value)).collect::<Vec<_>>()
    };
    let (bytes, lag) = ((Gauge::AgentUnflushedBytes, 7), (Gauge::GroupLagRecords, 200_000));
    let all = [(Gauge::AgentReady, 1), lag, bytes];
    let second = Duration::from_secs(1);
    assert_eq!(says(&mut pages, &mut room, Duration::ZERO), all);
    assert_eq!(says(&mut pages, &mut room, AGENT_SILENCE_MAX - second), all);
    assert_eq!(says(&mut pages, &mut room, AGENT_SILENCE_MAX), [(Gauge::AgentReady, 0), bytes]);
    // It goes on.
    store(&file, ready, 12, 1);
    assert_eq!(says(&mut pages, &mut room, AGENT_SILENCE_MAX + second), all);
}

#[test]
fn a_slot_without_a_value_says_nothing() {
    let mut writer = Writer::new(Role::Consumer, "c");
    let labels = writer.labels("g", "t", Some(0));
    let committed = writer.slot(Gauge::ConsumerLastCommittedOffset, labels, 0, 0);
    let file = writer.memfd();
    let (mut pages, mut room) = (Pages::default(), Room::default());
    pages.add(1, page(file.try_clone().expect("cloned")));
    let state = pages.read(Instant::now(), &mut room);
    assert_eq!((state.series.len(), state.rejected), (0, BTreeMap::new()));
    store(&file, committed, 1, 0);
    assert_eq!(
        values(&pages.read(Instant::now(), &mut room)),
        [(Gauge::ConsumerLastCommittedOffset, Some(0), 0)]
    );
}

#[test]
fn what_was_said_of_a_partition_ends_when_another_process_speaks_of_it() {
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let now = Instant::now();
    let consumer = |id: &'static str, partitions: &[u32]| {
        let mut writer = Writer::new(Role::Consumer, id);
        for &partition in partitions {
            let labels = writer.labels("g", "t", Some(partition));
            writer.slot(Gauge::ConsumerCurrentOffset, labels, 1, 5);
        }
        writer.page()
    };
    pages.add(1, consumer("killed", &[0, 1]));
    pages.exited(1, now, &mut room);
    assert_eq!(pages.read(now, &mut room).series.len(), 2);
    pages.add(2, consumer("successor", &[1]));
    let state = pages.read(now, &mut room);
    let told = |key: &GaugeKey| (key.labels.instance_id.to_string(), key.labels.partition);
    let told: Vec<_> = state.series.keys().map(told).collect();
    assert_eq!(told, [("killed".to_owned(), Some(0)), ("successor".to_owned(), Some(1))]);
}

#[test]
fn a_running_process_wins_over_one_that_has_gone() {
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let now = Instant::now();
    for (pid, updated, value) in [(1, 100, 5), (2, 1, 7)] {
        let mut writer = Writer::new(Role::Consumer, "c");
        let labels = writer.labels("g", "t", None);
        writer.slot(Gauge::ConsumerCurrentOffset, labels, updated, value);
        pages.add(pid, writer.page());
        if pid == 1 {
            pages.exited(1, now, &mut room);
        }
    }
    let state = pages.read(now, &mut room);
    assert_eq!(values(&state), [(Gauge::ConsumerCurrentOffset, None, 7)]);
    assert_eq!(state.processes.values().collect::<Vec<_>>(), [&true]);
}

#[test]
fn a_process_that_begins_to_serve_itself_is_left_out_and_no_other() {
    let now = Instant::now();
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let mut writer = Writer::new(Role::Agent, "a");
    let labels = writer.labels("", "", None);
    writer.slot(Gauge::AgentReady, labels, 1, 1);
    let file = writer.memfd();
    pages.add(1, page(file.try_clone().expect("a descriptor")));
    // Another states the same nonce.
    pages.add(2, writer.page());
    assert_eq!(pages.self_serving(now), HashSet::new());
    assert_eq!(values(&pages.read(now, &mut room)), [(Gauge::AgentReady, None, 1)]);

    let serves = std::mem::offset_of!(streamhouse_abi::page::Header, serves_metrics) as u64;
    file.write_all_at(&1u32.to_le_bytes(), serves).expect("written");
    let left_out = pages.self_serving(now);
    assert_eq!(left_out.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [1]);
    assert_eq!(pages.read(now, &mut room).pages_read, 3, "the other's only");
    // Until the kernel's values of it are read, then no more.
    pages.exited(1, now, &mut room);
    assert_eq!(pages.self_serving(now), left_out);
    assert_eq!(pages.self_serving(now + SELF_SERVING_KEPT), HashSet::new());
    let mut even = Pages::even_self_serving();
    even.add(1, page(file));
    assert_eq!((even.self_serving(now).len(), even.read(now, &mut room).series.len()), (0, 1));
}

#[test]
fn a_counter_never_goes_backwards() {
    let renewals = |state: &State| values(state).first().map(|(_, _, value)| *value);
    let agent = |value| {
        let mut writer = Writer::new(Role::Agent, "a");
        let labels = writer.labels("", "", None);
        let slot = writer.slot(Gauge::AgentLeaseRenewals, labels, 1, value);
        (writer.memfd(), slot)
    };
    let now = Instant::now();
    let (mut pages, mut room) = (Pages::default(), Room::default());
    let (first, slot) = agent(10);
    pages.add(1, page(first.try_clone().expect("cloned")));
    assert_eq!(renewals(&pages.read(now, &mut room)), Some(10));
    store(&first, slot, 2, 8);
    assert_eq!(renewals(&pages.read(now, &mut room)), Some(10), "a counter that falls is not believed");
    retire(&first, slot);
    assert_eq!(renewals(&pages.read(now, &mut room)), Some(10), "retired");
    pages.exited(1, now, &mut room);
    assert_eq!(renewals(&pages.read(now, &mut room)), Some(10), "exited");
    let (second, _) = agent(3);
    pages.add(2, page(second.try_clone().expect("cloned")));
    assert_eq!(renewals(&pages.read(now, &mut room)), Some(13), "continued by the next process");
    second.write_all_at(b"?", 0).expect("written");
    assert_eq!(renewals(&pages.read(now, &mut room)), Some(13), "unreadable");
    pages.exited(2, now, &mut room);
    assert_eq!(renewals(&pages.read(now, &mut room)), Some(13), "gone unread");
    let later = now + KEPT_AFTER_EXIT;
    assert_eq!(renewals(&pages.read(later, &mut room)), None);
}
