//! The consumer on segments written by hand.

mod support;

use std::{task::Poll, time::Duration};
use streamhouse_client::{Admin, ClientError, Compression, OffsetReset, OffsetTarget};
use streamhouse_core::ErrorKind;
use support::{Log, number, read};

/// 4 segments of several batches in partition 0, compressed and not; 77 records.
async fn seventy_seven() -> Log {
    let log = Log::without_agent(&[("orders", 2)]).await;
    log.write("orders", 0, &[1, 7, 6], Compression::None).await;
    log.write("orders", 0, &[14], Compression::Zstd).await;
    log.write("orders", 0, &[1], Compression::Lz4).await;
    log.write("orders", 0, &[20, 1, 27], Compression::Lz4).await;
    log
}

#[tokio::test]
async fn offsets_are_right_across_every_batch_and_segment_boundary() {
    let log = seventy_seven().await;
    for max_poll_records in [1, 7, 500] {
        for start in 0..77 {
            let consumer = log.consumer("g", &["orders"]).max_poll_records(max_poll_records);
            let mut consumer = consumer.build().await.unwrap();
            consumer.seek("orders", 0, start).await.unwrap();
            let mut expected = start;
            while expected < 77 {
                let records = consumer.poll(Duration::ZERO).await.unwrap();
                assert!(!records.is_empty() && records.len() <= max_poll_records);
                for record in records {
                    assert_eq!((record.offset, number(&record.value)), (expected, expected));
                    assert_eq!(record.timestamp_ms, expected as i64);
                    assert_eq!(record.key.is_some(), expected % 3 == 0);
                    expected += 1;
                }
                assert_eq!(consumer.position("orders", 0).unwrap(), expected);
            }
            assert!(consumer.poll(Duration::ZERO).await.unwrap().is_empty());
            consumer.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_consumer_resumes_where_its_group_committed() {
    let log = seventy_seven().await;
    let mut consumer = log.consumer("g", &["orders"]).max_poll_records(30).build().await.unwrap();
    assert_eq!(consumer.committed("orders", 0).await.unwrap(), None);
    assert_eq!(consumer.lag("orders", 0).await.unwrap(), 77);
    assert_eq!(consumer.poll(Duration::ZERO).await.unwrap().len(), 30);
    consumer.commit().await.unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).await.unwrap().len(), 30);
    assert_eq!(consumer.committed("orders", 0).await.unwrap(), Some(30));
    assert_eq!(consumer.lag("orders", 0).await.unwrap(), 47);
    consumer.close().await.unwrap();

    // What was polled and not committed comes again.
    let mut consumer = log.consumer("g", &["orders"]).build().await.unwrap();
    let records = read(&mut consumer, 47).await;
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), (30..77).collect::<Vec<_>>());
    consumer.commit().await.unwrap();
    assert_eq!(consumer.lag("orders", 0).await.unwrap(), 0);
    consumer.commit_offset("orders", 0, 76).await.unwrap();
    assert_eq!(consumer.lag("orders", 0).await.unwrap(), 1);
    assert!(consumer.poll(Duration::ZERO).await.unwrap().is_empty(), "a commit moves no position");
    assert_eq!(consumer.commit_offset("orders", 0, 78).await.unwrap_err().kind(), ErrorKind::Invalid);
    // Another group has its own offsets.
    let mut other = log.consumer("other", &["orders"]).build().await.unwrap();
    assert_eq!(other.poll(Duration::ZERO).await.unwrap()[0].offset, 0);
}

#[tokio::test]
async fn auto_commit_commits_what_earlier_polls_returned() {
    let log = seventy_seven().await;
    let builder = log.consumer("g", &["orders"]).max_poll_records(10).auto_commit(Duration::ZERO);
    let mut consumer = builder.build().await.unwrap();
    for committed in [Some(0), Some(10), Some(20)] {
        consumer.poll(Duration::ZERO).await.unwrap();
        assert_eq!(consumer.committed("orders", 0).await.unwrap(), committed);
    }
    consumer.close().await.unwrap();
    let consumer = log.consumer("g", &["orders"]).build().await.unwrap();
    assert_eq!(consumer.position("orders", 0).unwrap(), 30);
}

#[tokio::test]
async fn without_a_usable_offset_the_reset_policy_decides() {
    let log = seventy_seven().await;
    let latest = |group: &str| log.consumer(group, &["orders"]).offset_reset(OffsetReset::Latest);
    let mut consumer = latest("late").build().await.unwrap();
    assert_eq!(consumer.position("orders", 0).unwrap(), 77);
    assert!(consumer.poll(Duration::ZERO).await.unwrap().is_empty());
    log.write("orders", 0, &[3], Compression::None).await;
    let records = read(&mut consumer, 3).await;
    assert_eq!(records[0].offset, 77);
    // A committed offset wins. Nobody outside of the group commits what a member has claimed.
    let admin = Admin::new(log.store.clone());
    let reset = || admin.reset_offsets("late", "orders", Some(0), OffsetTarget::Offset(5));
    let refused = reset().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("stop the group's consumers"), "{refused}");
    consumer.close().await.unwrap();
    reset().await.unwrap();
    assert_eq!(latest("late").build().await.unwrap().position("orders", 0).unwrap(), 5);
}

#[tokio::test]
async fn an_idle_poll_returns_empty_and_a_waiting_one_sees_what_comes() {
    let log = Log::without_agent(&[("orders", 1)]).await;
    let mut consumer = log.consumer("g", &["orders"]).build().await.unwrap();
    let before = std::time::Instant::now();
    assert!(consumer.poll(Duration::from_millis(120)).await.unwrap().is_empty());
    assert!(before.elapsed() >= Duration::from_millis(120));
    let (records, ()) = tokio::join!(consumer.poll(Duration::from_secs(30)), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        log.write("orders", 0, &[2], Compression::None).await;
    });
    assert_eq!(records.unwrap().len(), 2);
}

#[tokio::test]
async fn partitions_take_turns_and_none_is_forgotten() {
    let log = Log::without_agent(&[("a", 2), ("b", 2)]).await;
    log.write("a", 0, &[5000], Compression::None).await;
    log.write("a", 1, &[300], Compression::None).await;
    let mut consumer = log.consumer("g", &["b", "a", "b"]).max_poll_records(200).build().await.unwrap();
    let mut seen = std::collections::HashMap::new();
    for _ in 0..5 {
        for record in consumer.poll(Duration::ZERO).await.unwrap() {
            *seen.entry((record.topic.to_string(), record.partition)).or_insert(0) += 1;
        }
    }
    assert_eq!(seen[&("a".to_owned(), 1)], 300, "the small one is done while the large one is being read");
    // What comes while the consumer is busy with another partition is seen before that is read to its end.
    log.write("b", 1, &[1], Compression::None).await;
    tokio::time::sleep(Duration::from_millis(110)).await;
    let found = loop {
        let records = consumer.poll(Duration::ZERO).await.unwrap();
        if let Some(found) = records.into_iter().find(|record| record.topic.as_str() == "b") {
            break found;
        }
    };
    assert_eq!((found.partition, found.offset), (1, 0));
    assert!(consumer.position("a", 0).unwrap() < 5000);
}

#[tokio::test]
async fn a_cancelled_poll_loses_nothing() {
    let log = seventy_seven().await;
    let mut cancelled = 0;
    // As many groups as it takes: what one asks for may be there before it waits for it.
    for group in 0..1000 {
        let group = format!("g{group}");
        let mut consumer = log.consumer(&group, &["orders"]).max_poll_records(500).build().await.unwrap();
        let mut offsets = Vec::new();
        while offsets.len() < 77 {
            // Cancelled after as many steps as polls were before it, so that every await point is met.
            let mut polled = std::pin::pin!(consumer.poll(Duration::ZERO));
            let mut done = None;
            for _ in 0..=cancelled {
                if let Poll::Ready(result) = futures::poll!(&mut polled) {
                    done = Some(result);
                    break;
                }
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
            match done {
                Some(records) => offsets.extend(records.unwrap().iter().map(|record| record.offset)),
                None => cancelled += 1,
            }
        }
        assert_eq!(offsets, (0..77).collect::<Vec<_>>());
        if cancelled > 0 {
            return;
        }
    }
    panic!("nothing was cancelled");
}

#[tokio::test]
async fn a_damaged_segment_is_named_and_reading_goes_on_around_it() {
    let log = Log::without_agent(&[("orders", 2)]).await;
    log.write("orders", 0, &[10, 10], Compression::None).await;
    let path = log.objects().pop().unwrap();
    log.write("orders", 0, &[10], Compression::None).await;
    log.write("orders", 1, &[5], Compression::None).await;
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    std::fs::write(&path, &damaged).unwrap();

    let mut consumer = log.consumer("g", &["orders"]).build().await.unwrap();
    let mut errors = Vec::new();
    let mut others = 0;
    for _ in 0..4 {
        match consumer.poll(Duration::ZERO).await {
            Ok(records) => others += records.iter().filter(|record| record.partition == 1).count(),
            Err(error) => errors.push(error),
        }
    }
    assert_eq!(others, 5, "the other partition is read");
    let error = errors.pop().expect("the damage is told");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(matches!(&error, ClientError::Storage { offset: 0, next_offset: Some(20), .. }), "{error}");
    let message = error.to_string();
    for says in [name, "orders/0 at offset 0", "restore it", "behind it is 20", "groups reset-offsets"] {
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(consumer.position("orders", 0).unwrap(), 0);

    // Past the damage by hand, and back once it is restored.
    consumer.seek("orders", 0, 20).await.unwrap();
    assert_eq!(read(&mut consumer, 10).await[0].offset, 20);
    std::fs::write(&path, &whole).unwrap();
    consumer.seek("orders", 0, 0).await.unwrap();
    assert_eq!(read(&mut consumer, 30).await.len(), 30);
}

#[tokio::test]
async fn a_seek_leaves_behind_what_was_met_at_the_old_position() {
    let log = Log::without_agent(&[("orders", 2)]).await;
    log.write("orders", 1, &[10], Compression::None).await;
    let path = log.objects().pop().unwrap();
    log.write("orders", 1, &[5], Compression::None).await;
    log.write("orders", 0, &[5], Compression::None).await;
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[100] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    for (sought, offset, meets_it) in [(1, 10, false), (0, 0, true)] {
        let mut consumer = log.consumer("g", &["orders"]).build().await.unwrap();
        // Partition 0 gives its records, and the next poll would say what partition 1 met.
        assert_eq!(consumer.poll(Duration::ZERO).await.unwrap().len(), 5);
        consumer.seek("orders", sought, offset).await.unwrap();
        let next = consumer.poll(Duration::ZERO).await;
        assert_eq!(next.is_err(), meets_it, "after a seek in partition {sought}: {next:?}");
    }
}

#[tokio::test]
async fn what_is_not_read_here_is_not_found() {
    let log = Log::without_agent(&[("orders", 2), ("other", 1)]).await;
    let mut consumer = log.consumer("g", &["orders"]).build().await.unwrap();
    for (topic, partition) in [("other", 0), ("orders", 2), ("nothing", 0)] {
        let error = consumer.position(topic, partition).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&format!("{topic}/{partition}")), "{error}");
        assert!(consumer.lag(topic, partition).await.is_err());
        assert!(consumer.seek(topic, partition, 0).await.is_err());
        assert!(consumer.commit_offset(topic, partition, 0).await.is_err());
    }
    assert_eq!(consumer.seek("orders", 0, 1).await.unwrap_err().kind(), ErrorKind::Invalid);
    let partitions: Vec<_> = consumer.partitions().map(ToString::to_string).collect();
    assert_eq!(partitions, ["orders/0", "orders/1"]);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_the_reason() {
    let log = Log::without_agent(&[("orders", 1)]).await;
    for (builder, kind, says) in [
        (log.consumer("bad group", &["orders"]), ErrorKind::Invalid, "invalid group id"),
        (log.consumer("g", &[]), ErrorKind::Invalid, "topics"),
        (log.consumer("g", &["a/b"]), ErrorKind::Invalid, "invalid topic name"),
        (log.consumer("g", &["unknown"]), ErrorKind::NotFound, "unknown"),
        (log.consumer("g", &["orders"]).max_poll_records(0), ErrorKind::Invalid, "max_poll_records"),
    ] {
        let error = builder.build().await.err().expect("it is refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn groups_are_listed_described_and_moved() {
    let log = seventy_seven().await;
    let admin = Admin::new(log.store.clone());
    let lag = admin.lag("g", "orders").await.unwrap();
    assert_eq!(lag.iter().map(|offset| offset.lag_records).collect::<Vec<_>>(), [77, 0]);
    assert_eq!(admin.describe_group("g").await.unwrap_err().kind(), ErrorKind::NotFound);
    let moved = admin.reset_offsets("g", "orders", None, OffsetTarget::Latest).await.unwrap();
    assert_eq!(moved.iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), [77, 0]);
    assert_eq!(admin.describe_group("g").await.unwrap()[0].lag_records, 0);
    assert_eq!(admin.groups().await.unwrap().len(), 1);
    for to in ["earliest", "40"] {
        admin.reset_offsets("g", "orders", Some(0), to.parse().unwrap()).await.unwrap();
    }
    assert_eq!(admin.describe_group("g").await.unwrap()[0].committed, Some(40));
    let beyond = admin.reset_offsets("g", "orders", None, OffsetTarget::Offset(40)).await.unwrap_err();
    assert!(beyond.kind() == ErrorKind::Invalid && beyond.to_string().contains("orders/1"), "{beyond}");
    assert_eq!(
        admin.reset_offsets("g", "orders", Some(9), OffsetTarget::Earliest).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!("soon".parse::<OffsetTarget>().is_err());
    let topic = admin.describe_topic("orders").await.unwrap();
    assert_eq!((topic.topic.partitions, topic.partitions[0].watermarks.high_watermark), (2, 77));
}
