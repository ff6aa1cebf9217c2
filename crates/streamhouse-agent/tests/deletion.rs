//! Topics that are deleted under an agent that leases them.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use streamhouse_core::{ErrorKind, GroupId, TopicPartition};
use streamhouse_hooks::GaugeId;
use streamhouse_metadata::{Groups, OffsetCommit, Retention, Topics};
use streamhouse_proto::status::store_kind;
use streamhouse_proto::v1::{DeleteTopicRequest, ProduceBatch};
use support::faults::{CommitFault, PutFault};
use support::security::metadata;
use support::{Client, Log, batch, get, kind, often, orders, page, stamp, stamped, until};

fn audit() -> TopicPartition {
    TopicPartition { topic: "audit".parse().unwrap(), partition: 0 }
}

fn audited(base_sequence: i32, values: &[&str]) -> ProduceBatch {
    ProduceBatch { topic: "audit".into(), ..batch(0, values, stamp(base_sequence)) }
}

/// A log with `orders` of two partitions, and `audit`.
async fn log() -> Log {
    let log = Log::new(2).await;
    log.metadata.create_topic(&audit().topic, 1, Retention::default()).await.unwrap();
    log
}

fn objects(log: &Log) -> usize {
    std::fs::read_dir(log.objects_path().join("segments")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_leases_gauges_and_objects_go_and_those_of_others_stand() {
    let log = log().await;
    let flags = ["--heartbeat-interval", "150ms", "--upkeep-interval", "20ms", "--agent-id", "deleter"];
    let (agent, _) = log.faulty_agent(&flags).await;
    let client = Client::connect(agent.grpc_address()).await;
    let ready = async || get(agent.http_address(), "/ready").await.1;
    until("the leases", async || ready().await == "ready: 3 partitions leased\n").await;
    client.stored(batch(0, &["a", "b", "c"], stamp(0))).await;
    client.stored(audited(0, &["x", "y"])).await;
    let shared = client.produce(vec![batch(1, &["d"], None), audited(2, &["z"])]).await;
    assert!(shared.iter().all(|result| kind(result).is_none()), "{shared:?}");
    let stored = objects(&log);
    assert!(stored >= 3, "{stored}");
    let group: GroupId = "billing".parse().unwrap();
    let commits = [orders(0), audit()].map(|partition| OffsetCommit { partition, offset: 1, generation: 0 });
    log.metadata.commit_offsets(&group, None, &commits).await.unwrap();
    let lags = |gauge| {
        let values = page::values(gauge, "deleter").into_iter();
        values.map(|lag| (lag.topic, lag.value)).collect::<Vec<_>>()
    };
    let (of_audit, of_orders) = (("audit".to_owned(), 2), ("orders".to_owned(), 2));
    let both = [of_audit.clone(), of_orders];
    until("the lags", async || lags(GaugeId::GroupLagRecords) == both).await;
    let epoch = log.metadata.partitions(&audit().topic).await.unwrap()[0].holder.clone().unwrap().epoch;

    let mut admin = metadata(agent.grpc_address());
    let delete = DeleteTopicRequest { name: "orders".into() };
    admin.delete_topic(delete.clone()).await.unwrap();
    until("its lag to go", async || lags(GaugeId::GroupLagRecords) == [of_audit.clone()]).await;
    for gauge in [GaugeId::GroupLagMilliseconds, GaugeId::GroupCommittedOffset] {
        until("the others to go", async || lags(gauge).iter().all(|(topic, _)| topic == "audit")).await;
        assert_eq!(lags(gauge).len(), 1);
    }
    until("its leases to go", async || ready().await == "ready: 1 partition leased\n").await;
    let refused = client.one(batch(0, &["late"], None)).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotFound), "{}", refused.message);
    assert!(refused.message.contains("topic orders does not exist"), "{}", refused.message);
    let again = admin.delete_topic(delete).await.unwrap_err();
    assert_eq!(store_kind(&again), Some(ErrorKind::NotFound), "{again}");
    assert!(again.message().contains("topic orders does not exist"), "{again}");

    // Another group's lag is news: what there is is still looked at.
    assert_eq!(client.stored(audited(3, &["more"])).await, 3);
    until("the other lag to grow", async || lags(GaugeId::GroupLagRecords) == [("audit".to_owned(), 3)])
        .await;
    let holder = log.metadata.partitions(&audit().topic).await.unwrap()[0].holder.clone().unwrap();
    assert_eq!(holder.epoch, epoch, "its lease was never lost");
    agent.shutdown().await;
    // Of the segments, those go that nothing else is in, once their grace time is over.
    let agent = log.agent_with(&often("remover")).await;
    until("the objects to be removed", async || objects(&log) == stored).await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_it_comes_into_the_next_topic_of_its_name() {
    let log = log().await;
    let (agent, faults) = log.faulty_agent(&["--agent-id", "old"]).await;
    let client = Client::connect(agent.grpc_address()).await;
    let recreate = async || {
        log.metadata.delete_topic(&orders(0).topic).await.unwrap();
        log.metadata.create_topic(&orders(0).topic, 1, Retention::default()).await.unwrap();
    };
    // Both in one segment: while it is stored, and while nobody knows whether it is committed.
    for (round, is_stored) in [false, true].into_iter().enumerate() {
        // A producer for each: an agent that has not noticed yet that the topic is another knows what it has stored.
        let [before_id, new_id] = [10, 20].map(|id| id + round as u64);
        client.stored(stamped(0, before_id, 0, "before")).await;
        let sequence = 2 * round as i32;
        let before = client.stored(audited(sequence, &["before"])).await;
        if is_stored {
            *faults.outcomes.lock().unwrap() = u32::MAX;
            faults.commits([CommitFault::DoneButUnknown]);
        } else {
            faults.puts([PutFault::SlowUntilTold]);
        }
        let sent = {
            let client = client.clone();
            let both = vec![batch(0, &["old"], None), audited(sequence + 1, &["kept"])];
            tokio::spawn(async move { client.produce(both).await })
        };
        faults.met.notified().await;
        recreate().await;
        *faults.outcomes.lock().unwrap() = 0;
        faults.told.notify_one();
        let results = sent.await.unwrap();
        assert_eq!(kind(&results[0]), Some(ErrorKind::Fenced), "{round}: {}", results[0].message);
        assert_eq!((kind(&results[1]), results[1].base_offset), (None, before + 1), "{round}");
        assert_eq!(log.values(0).await, Vec::<String>::new(), "{round}");
        assert_eq!(client.stored(stamped(0, new_id, 0, "new")).await, 0, "{round}");
        assert_eq!(log.values(0).await, ["new"], "{round}");
        recreate().await;
    }
    agent.shutdown().await;
}
