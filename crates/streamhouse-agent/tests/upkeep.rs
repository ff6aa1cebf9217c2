//! What an agent removes of the log, and what it shows of its groups.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::time::Duration;
use streamhouse_agent::Agent;
use streamhouse_core::GroupId;
use streamhouse_hooks::{GaugeId, Instance, Role};
use streamhouse_metadata::{Groups, OffsetCommit, Retention, Topics};
use streamhouse_storage::{SegmentBuilder, SegmentStore, create_local};
use support::{Client, Log, batch, often, orders, page, stamp, stamped, until};

fn store(log: &Log) -> SegmentStore {
    SegmentStore::new(create_local(&log.objects_path()).unwrap(), &Instance::new(Role::Agent, "other", ""))
}

fn objects(log: &Log) -> usize {
    std::fs::read_dir(log.objects_path().join("segments")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_committed_is_removed_after_the_grace_time_and_nothing_else() {
    let log = Log::new(1).await;
    let orphan = SegmentBuilder::new().finish(streamhouse_core::SegmentId(7));
    store(&log).put(&orphan).await.unwrap();
    let path = log.objects_path().join(&orphan.object);
    let old = path.metadata().unwrap().modified().unwrap() - Duration::from_secs(2);
    let other = log.objects_path().join("segments/not-of-an-agent");
    std::fs::write(&other, "kept").unwrap();
    for path in [&path, &other] {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    let agent = Agent::start(log.config(&often("upkeeper"))).await.unwrap();
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(stamped(0, 9, 0, "kept")).await, 0);
    until("the orphan to be removed", async || !path.exists()).await;
    let age = old.elapsed().unwrap();
    assert!(age >= Duration::from_secs(10), "removed after {age:?}");
    assert!(other.exists(), "whoever wrote it, no agent did");
    until("nothing but these two", async || objects(&log) == 2).await;
    assert_eq!(log.values(0).await, ["kept"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_moves_the_log_start_and_removes_objects_that_nothing_is_left_of() {
    let log = Log::new(1).await;
    let topic = orders(0).topic;
    let (agent, faults) = log.faulty_agent(&often("upkeeper")).await;
    let client = Client::connect(agent.grpc_address()).await;
    for offset in 0..3 {
        assert_eq!(client.stored(stamped(0, 9, offset, "value")).await, offset as u64);
    }
    // A removal that fails is tried again.
    *faults.deletes.lock().unwrap() = 1;
    let retention = Retention { age: None, bytes: Some(1) };
    log.metadata.set_retention(&topic, retention).await.unwrap();
    until("the log start to move", async || {
        let watermarks = log.metadata.watermarks(&[orders(0)]).await.unwrap()[0];
        (watermarks.log_start, watermarks.high_watermark) == (2, 3)
    })
    .await;
    until("the objects to be removed", async || objects(&log) == 1).await;
    assert_eq!(*faults.deletes.lock().unwrap(), 0);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_of_a_group_that_nobody_runs_is_shown_by_who_leases_the_partition() {
    let log = Log::new(2).await;
    let (agent, _) = log.faulty_agent(&often("upkeeper")).await;
    let client = Client::connect(agent.grpc_address()).await;
    for partition in 0..2 {
        client.stored(batch(partition, &["a", "b", "c"], stamp(0))).await;
    }
    let group: GroupId = "billing".parse().unwrap();
    let commit = OffsetCommit { partition: orders(0), offset: 1, generation: 0 };
    log.metadata.commit_offsets(&group, None, &[commit]).await.unwrap();
    let lags = || page::values(GaugeId::GroupLagRecords, "upkeeper");
    let lag = |value| page::Value { group: "billing".into(), topic: "orders".into(), partition: 0, value };
    until("the lag to be shown", async || lags() == [lag(2)]).await;
    let milliseconds = || page::values(GaugeId::GroupLagMilliseconds, "upkeeper");
    until("the lag to grow older", async || milliseconds().iter().any(|lag| lag.value > 0)).await;
    client.stored(stamped(0, 9, 3, "d")).await;
    until("the lag to grow", async || lags() == [lag(3)]).await;

    // The partition moves: its next holder shows the lag, this one does not any more.
    agent.shutdown().await;
    until("the gauges to be taken back", async || lags().is_empty() && milliseconds().is_empty()).await;
    let (next, _) = log.faulty_agent(&often("next")).await;
    until("the next holder to show it", async || page::values(GaugeId::GroupLagRecords, "next") == [lag(3)])
        .await;
    next.shutdown().await;
}
