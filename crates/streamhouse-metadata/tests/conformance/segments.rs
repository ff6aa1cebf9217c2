//! Flushes and what can be read of them.

use super::*;
use std::task::Poll;
use streamhouse_core::limits::IDEMPOTENCE_WINDOW;
use streamhouse_metadata::{MetadataError, ProducerState, SegmentRange, SequencedBatch};

pub(crate) async fn commits_are_dense_and_readable(store: &dyn MetadataStore) {
    leased(store, "orders", 1, "a").await;
    let orders = at("orders", 0);
    let mut flushes = Vec::new();
    for (base_offset, records) in [(0, 3), (3, 1), (4, 100)] {
        flushes.push(append(store, "a", &orders, 1, base_offset, records).await);
    }
    assert_eq!(high_watermark(store, &orders).await, 104);
    let ranges = store.ranges(&orders, 0, 100).await.unwrap();
    assert_eq!(ranges.len(), 3);
    for (read, flush) in ranges.iter().zip(&flushes) {
        let written = &flush.ranges[0];
        let expected = SegmentRange {
            segment: flush.segment,
            object: flush.object.clone(),
            base_offset: written.base_offset,
            end_offset: written.base_offset + written.records,
            position: written.position,
            bytes: written.bytes,
            index_position: written.index_position,
            index_bytes: written.index_bytes,
            committed_ms: read.committed_ms,
        };
        assert_eq!(read, &expected);
        assert!(exists(store, flush.segment).await);
    }
    assert!(
        ranges.is_sorted_by_key(|range| range.committed_ms) && ranges[0].committed_ms > 1_700_000_000_000
    );
}

pub(crate) async fn what_does_not_hold_the_lease_is_fenced(store: &dyn MetadataStore) {
    let orders = at("orders", 0);
    leased(store, "orders", 1, "a").await;
    store.expire_all_leases().await.unwrap();
    acquire(store, "a").await;
    store.register_agent(&agent("b"), "host:1").await.unwrap();
    append(store, "a", &orders, 2, 0, 10).await;

    let late = |holder: &str, at: &TopicPartition, epoch, base_offset| {
        flush(holder, vec![range(at, epoch, base_offset, 5)])
    };
    let fenced = [
        ("another agent", late("b", &orders, 2, 10)),
        ("an agent nobody knows", late("c", &orders, 2, 10)),
        ("an old epoch", late("a", &orders, 1, 10)),
        ("an epoch never granted", late("a", &orders, 3, 10)),
        ("offsets that were given already", late("a", &orders, 2, 5)),
        ("a gap", late("a", &orders, 2, 11)),
        ("a partition that does not exist", late("a", &at("orders", 1), 2, 0)),
        ("a topic that does not exist", late("a", &at("nothing", 0), 2, 0)),
    ];
    for (why, flush) in &fenced {
        assert_eq!(store.commit_flush(flush).await.unwrap(), [FENCED], "{why}");
    }
    expire(store, "a", &orders, 2).await;
    assert_eq!(store.commit_flush(&late("a", &orders, 2, 10)).await.unwrap(), [FENCED], "expired");

    assert_eq!(high_watermark(store, &orders).await, 10);
    assert_eq!(store.ranges(&orders, 0, 100).await.unwrap().len(), 1, "a fenced range cannot be read");
}

pub(crate) async fn a_fenced_partition_leaves_the_others_standing(store: &dyn MetadataStore) {
    leased(store, "orders", 5, "a").await;
    append(store, "a", &at("orders", 4), 1, 0, 1).await;
    expire(store, "a", &at("orders", 1), 1).await;
    let mixed = flush(
        "a",
        vec![
            range(&at("orders", 4), 1, 1, 2),
            range(&at("orders", 1), 1, 0, 2), // expired
            range(&at("orders", 0), 1, 0, 2),
            range(&at("orders", 2), 2, 0, 2), // epoch
            range(&at("orders", 3), 1, 9, 2), // base offset
        ],
    );
    let outcomes = [COMMITTED, FENCED, COMMITTED, FENCED, FENCED];
    assert_eq!(store.commit_flush(&mixed).await.unwrap(), outcomes);
    assert_eq!(store.flush_outcome(&mixed).await.unwrap().unwrap(), outcomes);
    let asked: Vec<_> = (0..5).map(|partition| at("orders", partition)).collect();
    let high: Vec<_> =
        store.watermarks(&asked).await.unwrap().iter().map(|ends| ends.high_watermark).collect();
    assert_eq!(high, [2, 0, 0, 0, 3]);
    for (partition, ranges) in [(0, 1), (1, 0), (2, 0), (3, 0), (4, 2)] {
        assert_eq!(store.ranges(&at("orders", partition), 0, 9).await.unwrap().len(), ranges);
    }
}

pub(crate) async fn a_wholly_fenced_flush_is_known(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let fenced = flush("a", vec![range(&at("orders", 0), 7, 0, 1), range(&at("orders", 1), 7, 0, 1)]);
    assert_eq!(store.commit_flush(&fenced).await.unwrap(), [FENCED, FENCED]);
    assert_eq!(store.flush_outcome(&fenced).await.unwrap().unwrap(), [FENCED, FENCED]);
    assert!(exists(store, fenced.segment).await);
    assert_eq!(store.ranges(&at("orders", 0), 0, 9).await.unwrap(), []);
}

pub(crate) async fn a_commit_is_repeated_without_effect(store: &dyn MetadataStore) {
    let orders = at("orders", 0);
    leased(store, "orders", 2, "a").await;
    let twice = flush("a", vec![range(&at("orders", 1), 9, 0, 5), range(&orders, 1, 0, 5)]);
    for _ in 0..2 {
        assert_eq!(store.commit_flush(&twice).await.unwrap(), [FENCED, COMMITTED]);
    }
    append(store, "a", &orders, 1, 5, 1).await;
    store.expire_all_leases().await.unwrap();
    assert_eq!(store.commit_flush(&twice).await.unwrap(), [FENCED, COMMITTED], "also after the lease ended");
    assert_eq!(high_watermark(store, &orders).await, 6);
    assert_eq!(store.ranges(&orders, 0, 9).await.unwrap().len(), 2);
}

pub(crate) async fn an_outcome_is_known_by_the_segment(store: &dyn MetadataStore) {
    let orders = at("orders", 0);
    leased(store, "orders", 1, "a").await;
    let lost = flush("a", vec![range(&orders, 1, 0, 5)]);
    assert_eq!(store.flush_outcome(&lost).await.unwrap(), None);
    assert!(!exists(store, lost.segment).await);
    // Another flush has the offsets; the one that was lost has not.
    let other = append(store, "a", &orders, 1, 0, 5).await;
    assert_eq!(store.flush_outcome(&lost).await.unwrap(), None);
    assert_eq!(store.flush_outcome(&other).await.unwrap().unwrap(), [COMMITTED]);
    // Committed late, it is fenced, and that is what is known of it.
    assert_eq!(store.commit_flush(&lost).await.unwrap(), [FENCED]);
    assert_eq!(store.flush_outcome(&lost).await.unwrap().unwrap(), [FENCED]);
    assert_eq!(store.flush_outcome(&other).await.unwrap().unwrap(), [COMMITTED]);
}

pub(crate) async fn ranges_begin_at_the_one_that_holds_the_offset(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let orders = at("orders", 1);
    assert_eq!(store.ranges(&orders, 0, 9).await.unwrap(), []);
    for base_offset in [0, 10, 20, 30] {
        append(store, "a", &orders, 1, base_offset, 10).await;
    }
    let bases = async |offset, max| -> Vec<u64> {
        let ranges = store.ranges(&orders, offset, max).await.unwrap();
        ranges.iter().map(|range| range.base_offset).collect()
    };
    assert_eq!(bases(0, 9).await, [0, 10, 20, 30]);
    assert_eq!(bases(9, 9).await, [0, 10, 20, 30]);
    assert_eq!(bases(10, 2).await, [10, 20]);
    assert_eq!(bases(25, 1).await, [20]);
    assert_eq!(bases(39, u32::MAX).await, [30]);
    for above in [40, 41, u64::MAX] {
        assert_eq!(bases(above, 9).await, [0; 0], "offset {above}");
    }
    assert_eq!(bases(0, 0).await, [0; 0]);
    assert_eq!(store.ranges(&at("orders", 0), 0, 9).await.unwrap(), [], "the neighbour is empty");
}

pub(crate) async fn ranges_of_unknown_partitions_are_not_found(store: &dyn MetadataStore) {
    create(store, "orders", 2).await.unwrap();
    let error = store.ranges(&at("nothing", 0), 0, 1).await.unwrap_err();
    assert!(matches!(error, MetadataError::TopicNotFound(_)), "{error}");
    let error = store.ranges(&at("orders", 2), 0, 1).await.unwrap_err();
    assert!(matches!(error, MetadataError::PartitionNotFound { partition: 2, partitions: 2, .. }), "{error}");
}

pub(crate) async fn producers_are_kept_where_the_range_stands(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let batches = vec![SequencedBatch { base_sequence: 0, records: 1, base_offset: 0 }];
    let producers = vec![ProducerState { producer_id: 1, epoch: i16::MAX, batches }];
    let mut ranges = vec![range(&at("orders", 0), 1, 0, 1), range(&at("orders", 1), 2, 0, 1)];
    for range in &mut ranges {
        range.producers = producers.clone();
    }
    assert_eq!(store.commit_flush(&flush("a", ranges)).await.unwrap(), [COMMITTED, FENCED]);
    store.expire_all_leases().await.unwrap();
    for lease in acquire(store, "b").await {
        let expected = if lease.partition.partition == 0 { producers.clone() } else { Vec::new() };
        assert_eq!(lease.producers, expected, "{}", lease.partition);
    }
}

pub(crate) async fn impossible_flushes_are_refused(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let good = || range(&at("orders", 0), 1, 0, 1);
    let batch = SequencedBatch { base_sequence: 0, records: 1, base_offset: 0 };
    let window =
        |producer_id, batches| vec![ProducerState { producer_id, epoch: 0, batches: vec![batch; batches] }];
    let impossible = [
        ("no partition", vec![]),
        ("a partition twice", vec![good(), good()]),
        ("no records", vec![range(&at("orders", 0), 1, 0, 0)]),
        ("an offset over the top", vec![FlushRange { base_offset: u64::MAX, ..good() }]),
        ("a last offset over the top", vec![FlushRange { records: u64::MAX, ..good() }]),
        ("an epoch over the top", vec![FlushRange { epoch: u64::MAX, ..good() }]),
        ("a position over the top", vec![FlushRange { position: u64::MAX, ..good() }]),
        ("a window too long", vec![FlushRange { producers: window(1, IDEMPOTENCE_WINDOW + 1), ..good() }]),
        ("a producer id over the top", vec![FlushRange { producers: window(u64::MAX, 1), ..good() }]),
    ];
    for (why, ranges) in impossible {
        // Beside a range that is fine: nothing of the flush may stay.
        let flush = flush("a", ranges);
        let error = store.commit_flush(&flush).await.expect_err(why);
        assert!(matches!(error, MetadataError::Invalid(_)), "{why}: {error}");
        assert!(!exists(store, flush.segment).await, "{why}");
    }
    assert_eq!(high_watermark(store, &at("orders", 0)).await, 0);
}

pub(crate) async fn one_flush_holds_many_partitions(store: &dyn MetadataStore) {
    const PARTITIONS: u32 = 500;
    leased(store, "orders", PARTITIONS, "a").await;
    let all: Vec<_> = (0..PARTITIONS).map(|partition| at("orders", partition)).collect();
    for round in 0..3 {
        // Back to front: the outcome's order is the flush's, not the database's.
        let ranges = all.iter().rev().map(|at| {
            let epoch = if at.partition % 7 == 3 { 2 } else { 1 };
            range(at, epoch, round * 4, 4)
        });
        let flush = flush("a", ranges.collect());
        let outcomes = store.commit_flush(&flush).await.unwrap();
        for (range, outcome) in flush.ranges.iter().zip(&outcomes) {
            let expected = if range.partition.partition % 7 == 3 { FENCED } else { COMMITTED };
            assert_eq!(*outcome, expected, "{}", range.partition);
        }
        assert_eq!(store.flush_outcome(&flush).await.unwrap().unwrap(), outcomes);
    }
    let watermarks = store.watermarks(&all).await.unwrap();
    for (at, watermarks) in all.iter().zip(watermarks) {
        assert_eq!(watermarks.high_watermark, if at.partition % 7 == 3 { 0 } else { 12 }, "{at}");
    }
}

pub(crate) async fn of_two_commits_at_one_offset_one_stands(store: &dyn MetadataStore) {
    let orders = at("orders", 0);
    leased(store, "orders", 1, "a").await;
    for base_offset in 0..5 {
        let rivals = [0, 1].map(|_| flush("a", vec![range(&orders, 1, base_offset, 1)]));
        let (one, two) = tokio::join!(store.commit_flush(&rivals[0]), store.commit_flush(&rivals[1]));
        let mut outcomes = [one.unwrap()[0], two.unwrap()[0]];
        outcomes.sort_by_key(|outcome| *outcome == FENCED);
        assert_eq!(outcomes, [COMMITTED, FENCED]);
        assert_eq!(high_watermark(store, &orders).await, base_offset + 1);
    }
    assert_eq!(store.ranges(&orders, 0, 99).await.unwrap().len(), 5);
}

pub(crate) async fn an_abandoned_commit_is_over_when_its_outcome_is_told(store: &dyn MetadataStore) {
    let orders = at("orders", 0);
    leased(store, "orders", 1, "a").await;
    let mut base_offset = 0;
    for polls in 0..30 {
        let flush = flush("a", vec![range(&orders, 1, base_offset, 1)]);
        let mut commit = store.commit_flush(&flush);
        for _ in 0..polls {
            let ready =
                std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context).is_ready())).await;
            if ready {
                break;
            }
            // The database works on another thread; the test's own tasks get their turn too.
            std::thread::sleep(Duration::from_micros(50));
            tokio::task::yield_now().await;
        }
        drop(commit);
        let outcome = store.flush_outcome(&flush).await.unwrap();
        base_offset += u64::from(outcome.is_some());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(exists(store, flush.segment).await, outcome.is_some(), "{polls} polls");
        assert_eq!(high_watermark(store, &orders).await, base_offset, "{polls} polls");
    }
}
