//! Lag, in the cases that are easily got wrong: what the consumer says, and what the agent says of its group.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::time::Duration;
use streamhouse_client::{Admin, Consumer, Producer};
use streamhouse_core::ErrorKind;
use streamhouse_planes::World;
use streamhouse_tests::Exposition;

const AGENT: [(&str, &str); 2] = [("instance_id", "agent-1"), ("group", "billing")];

/// What the agent says of the group on partition 0: records, and seconds.
fn group(page: &Exposition) -> Option<(f64, f64)> {
    let of = |name: &'static str| {
        page.select(name, &AGENT).find(|sample| sample.label("partition") == "0").map(|sample| sample.value)
    };
    of("streamhouse_group_lag_records").zip(of("streamhouse_group_lag_seconds"))
}

/// What the consumer says of its lag on partition 0.
fn own(page: &Exposition) -> Option<f64> {
    let labels = [("instance_id", "reader-1"), ("partition", "0")];
    page.select("streamhouse_consumer_lag_records", &labels).next().map(|sample| sample.value)
}

async fn send(producer: &Producer, records: usize) {
    for _ in 0..records {
        drop(producer.send("orders", None, b"record", Some(0)).await.unwrap());
    }
    producer.flush().await.unwrap();
}

async fn read(consumer: &mut Consumer, records: usize) {
    let mut seen = 0;
    while seen < records {
        seen += consumer.poll(Duration::from_secs(5)).await.unwrap().len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_right_from_the_first_record_to_a_dead_group() {
    let world = World::start().await;
    let producer = world.producer().await;
    let mut consumer = world.consumer().await;

    // Idle, and nothing was ever committed or written: no lag, in records and in time.
    let page = world.until("the group to be seen", |page| group(page).is_some()).await;
    assert_eq!((group(&page), own(&page)), (Some((0.0, 0.0)), Some(0.0)));
    assert_eq!(
        page.select("streamhouse_group_committed_offset", &AGENT).count(),
        0,
        "it has committed nothing"
    );

    // Behind by all there is, though it has committed nothing yet.
    send(&producer, 30).await;
    world
        .until("lag without a commit", |page| {
            group(page).is_some_and(|(records, seconds)| records == 30.0 && seconds > 0.0)
        })
        .await;
    assert_eq!(consumer.lag("orders", 0).await.unwrap(), 30);

    // Read is not committed.
    read(&mut consumer, 30).await;
    assert_eq!(consumer.lag("orders", 0).await.unwrap(), 30);
    consumer.commit().await.unwrap();
    assert_eq!(own(&world.clients.page()), Some(0.0), "at the commit, not half a minute later");
    let committed = |page: &Exposition| page.sum("streamhouse_group_committed_offset", &AGENT);
    world
        .until("the group to be caught up", |page| group(page) == Some((0.0, 0.0)) && committed(page) == 30.0)
        .await;

    // Caught up on a topic that nobody writes: time makes no lag.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(group(&world.page().await.unwrap()), Some((0.0, 0.0)));

    // It hangs: what it says stands still, what is said of it does not.
    send(&producer, 20).await;
    let page = world
        .until("lag of a group that hangs", |page| group(page).is_some_and(|(records, _)| records == 20.0))
        .await;
    assert_eq!(own(&page), Some(0.0));
    let (_, seconds) = group(&page).unwrap();
    world.until("the lag to grow older", |page| group(page).is_some_and(|(_, now)| now > seconds)).await;

    // It is gone: it says nothing any more, at once, and the group's lag goes on.
    consumer.close().await.unwrap();
    let page = world.page().await.unwrap();
    assert_eq!(own(&page), None);
    send(&producer, 5).await;
    world.until("lag of a dead group", |page| group(page).is_some_and(|(records, _)| records == 25.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_another_member_reads_is_told_of_by_that_one_only() {
    let world = World::start().await;
    let producer = world.producer().await;
    let mut first = world.consumer().await;
    send(&producer, 10).await;
    read(&mut first, 10).await;
    first.commit().await.unwrap();
    let told =
        |page: &Exposition| page.select("streamhouse_consumer_lag_records", &[("group", "billing")]).count();
    assert_eq!(told(&world.clients.page()), 2, "both partitions");

    let mut second = world.consumer_called("reader-2").await;
    let of = |page: &Exposition, id: &str| {
        page.select("streamhouse_consumer_lag_records", &[("instance_id", id)]).count()
    };
    for _ in 0..200 {
        first.poll(Duration::from_millis(20)).await.unwrap();
        second.poll(Duration::from_millis(20)).await.unwrap();
        let page = world.clients.page();
        assert!(told(&page) <= 2, "never both of one partition: {:#?}", page.samples);
        if (of(&page, "reader-1"), of(&page, "reader-2")) == (1, 1) {
            return;
        }
    }
    panic!("no partition moved: {:#?}", world.clients.page().samples);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_hangs_before_its_first_commit_says_nothing_any_more_and_its_group_stays_behind() {
    let world = World::start().await;
    let producer = world.producer().await;
    send(&producer, 10).await;
    let builder = world.consumer_builder("reader-1").heartbeat_interval(Duration::from_millis(50));
    let builder = builder.session_timeout(Duration::from_secs(3)).max_poll_interval(Duration::from_secs(3));
    let mut consumer = builder.build().await.unwrap();
    read(&mut consumer, 10).await;
    assert_eq!(own(&world.clients.page()), Some(10.0));
    // Nobody polls: its partitions are given up, and what it knew of them is not said any more.
    world.until("its own lag to go", |page| own(page).is_none()).await;
    send(&producer, 5).await;
    world.until("its group's lag", |page| group(page).is_some_and(|(records, _)| records == 15.0)).await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_has_no_lag_any_more() {
    let world = World::start().await;
    let producer = world.producer().await;
    let mut consumer = world.consumer().await;
    send(&producer, 10).await;
    read(&mut consumer, 5).await;
    consumer.commit_offset("orders", 0, 5).await.unwrap();
    world.until("lag", |page| group(page).is_some_and(|(records, _)| records == 5.0)).await;

    Admin::new(world.store.clone()).delete_topic("orders").await.unwrap();
    let committed = |page: &Exposition| page.select("streamhouse_group_committed_offset", &AGENT).count();
    world.until("all of the group to go", |page| group(page).is_none() && committed(page) == 0).await;
    world.until("the leases to go", |page| page.sum("streamhouse_agent_active_partitions", &[]) == 0.0).await;
    // Who reads it is told, and speaks of it no more.
    let mut told = None;
    for _ in 0..100 {
        match consumer.poll(Duration::from_millis(50)).await {
            Ok(_) => {}
            Err(error) => told = Some(error.kind()),
        }
        if told.is_some() && own(&world.clients.page()).is_none() {
            break;
        }
    }
    assert_eq!((told, own(&world.clients.page())), (Some(ErrorKind::NotFound), None));
    // And so is who writes it.
    let late = producer.send("orders", None, b"late", Some(0)).await.unwrap();
    assert_eq!(late.await.unwrap_err().kind(), ErrorKind::NotFound);
}
