//! Consumers of topics that are deleted.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;
use streamhouse_client::{Admin, ClientError, Compression, Consumer, Retention};
use streamhouse_core::ErrorKind;
use support::{Log, read};
use tokio::time::Instant;

/// So long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// With `audit` and `orders`, of which a consumer has read all there is, and not committed.
async fn reading(is_standalone: bool) -> (Log, Consumer) {
    let log = Log::without_agent(&[("audit", 1), ("orders", 2)]).await;
    for (topic, partition) in [("audit", 0), ("orders", 0), ("orders", 1)] {
        log.write(topic, partition, &[10], Compression::None).await;
    }
    let builder = log.consumer("g", &["audit", "orders"]).standalone(is_standalone);
    let mut consumer = builder.heartbeat_interval(Duration::from_millis(50)).build().await.unwrap();
    read(&mut consumer, 30).await;
    (log, consumer)
}

/// Polls until there is an error.
async fn told(consumer: &mut Consumer) -> ClientError {
    let start = Instant::now();
    loop {
        if let Err(error) = consumer.poll(Duration::from_millis(20)).await {
            return error;
        }
        assert!(start.elapsed() < PATIENCE, "it is told nothing, and reads {:?}", topics(consumer));
    }
}

fn topics(consumer: &Consumer) -> BTreeSet<String> {
    consumer.partitions().map(|partition| partition.topic.to_string()).collect()
}

fn is_about_orders(error: &ClientError) -> bool {
    error.kind() == ErrorKind::NotFound && error.to_string().contains("topic orders does not exist")
}

#[tokio::test]
async fn who_reads_a_deleted_topic_is_told_and_reads_the_others_on() {
    for is_standalone in [false, true] {
        // While nothing comes, and while the other topic keeps it busy.
        for is_busy in [false, true] {
            let (log, mut consumer) = reading(is_standalone).await;
            Admin::new(log.store.clone()).delete_topic("orders").await.unwrap();
            if is_busy {
                log.write("audit", 0, &[1000], Compression::None).await;
            }
            let error = told(&mut consumer).await;
            assert!(is_about_orders(&error), "standalone {is_standalone}, busy {is_busy}: {error}");
            assert_eq!(topics(&consumer), BTreeSet::from(["audit".to_owned()]));
            log.write("audit", 0, &[5], Compression::None).await;
            let start = Instant::now();
            let end = if is_busy { 1015 } else { 15 };
            while consumer.position("audit", 0).unwrap() < end {
                match consumer.poll(Duration::from_millis(20)).await {
                    Ok(_) => {}
                    Err(error) => assert!(is_about_orders(&error), "{error}"),
                }
                assert!(start.elapsed() < PATIENCE, "it does not read on");
            }
        }
    }
}

#[tokio::test]
async fn a_commit_with_a_deleted_topic_says_so_and_the_next_commits_the_others() {
    for is_standalone in [false, true] {
        let (log, mut consumer) = reading(is_standalone).await;
        Admin::new(log.store.clone()).delete_topic("orders").await.unwrap();
        let error = consumer.commit().await.unwrap_err();
        assert!(is_about_orders(&error), "{error}");
        // What was read there is lost with it: that is told once.
        if let Err(error) = consumer.commit().await {
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            assert!(
                error.to_string().contains("orders/0") && !error.to_string().contains("audit"),
                "{error}"
            );
            consumer.commit().await.unwrap();
        }
        assert_eq!(consumer.committed("audit", 0).await.unwrap(), Some(10), "standalone {is_standalone}");
    }
}

#[tokio::test]
async fn who_commits_by_itself_reads_on_too() {
    let (log, consumer) = reading(false).await;
    consumer.close().await.unwrap();
    let builder = log.consumer("auto", &["audit", "orders"]).auto_commit(Duration::ZERO);
    let mut consumer = builder.heartbeat_interval(Duration::from_secs(3)).build().await.unwrap();
    read(&mut consumer, 30).await;
    Admin::new(log.store.clone()).delete_topic("orders").await.unwrap();
    assert!(is_about_orders(&told(&mut consumer).await));
    log.write("audit", 0, &[5], Compression::None).await;
    let start = Instant::now();
    while consumer.committed("audit", 0).await.unwrap() != Some(15) {
        if let Err(error) = consumer.poll(Duration::from_millis(20)).await {
            assert!(is_about_orders(&error), "{error}");
        }
        assert!(start.elapsed() < PATIENCE, "it does not read and commit on");
    }
}

#[tokio::test]
async fn a_smaller_topic_of_the_name_is_read_as_far_as_it_goes() {
    let (log, mut consumer) = reading(true).await;
    let admin = Admin::new(log.store.clone());
    admin.delete_topic("orders").await.unwrap();
    admin.create_topic("orders", 1, Retention::default()).await.unwrap();
    let error = told(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("partition 1 of topic orders does not exist"), "{error}");
    let read_now: Vec<_> = consumer.partitions().map(ToString::to_string).collect();
    assert_eq!(read_now, ["audit/0", "orders/0"]);
    log.writer.lease("127.0.0.1:1").await;
    log.write("orders", 0, &[3], Compression::None).await;
    let values: Vec<_> = read(&mut consumer, 3).await.into_iter().map(|record| record.offset).collect();
    assert_eq!(values, [0, 1, 2]);
}
