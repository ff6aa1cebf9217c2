//! What producers get back, and what is in the log then.

mod support;

use std::sync::Arc;
use streamhouse_agent::Agent;
use streamhouse_core::ErrorKind;
use streamhouse_core::batch::ProducerStamp;
use streamhouse_core::limits::{BATCH_BYTES_MAX, REQUEST_BATCHES_MAX, REQUEST_BYTES_MAX};
use streamhouse_metadata::{Retention, Topics};
use streamhouse_proto::v1::ProduceBatch;
use support::{Client, Log, batch, damaged, kind, large, stamped, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_batches_are_in_the_log_in_the_order_of_the_request() {
    let log = Log::new(2).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let requests = [
        vec![batch(0, &["a", "b"], None), batch(1, &["x"], None), batch(0, &["c"], None)],
        vec![batch(1, &["y", "z"], None), batch(0, &["d"], None)],
    ];
    let mut offsets = Vec::new();
    for request in requests {
        let results = client.produce(request).await;
        assert!(results.iter().all(|result| kind(result).is_none()), "{results:?}");
        offsets.extend(results.iter().map(|result| result.base_offset));
    }
    assert_eq!(offsets, [0, 0, 2, 1, 3]);
    assert_eq!(log.values(0).await, ["a", "b", "c", "d"]);
    assert_eq!(log.values(1).await, ["x", "y", "z"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_producers_at_once_share_segments_and_lose_nothing() {
    let log = Arc::new(Log::new(3).await);
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let producers = (0..30).map(|producer| {
        let client = client.clone();
        tokio::spawn(async move {
            for number in 0..10 {
                let value = format!("{producer}:{number}");
                let result = client.one(batch(producer % 3, &[&value], None)).await;
                assert_eq!(kind(&result), None, "{}", result.message);
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.unwrap();
    }
    for partition in 0..3 {
        let mut values = log.values(partition).await;
        assert_eq!(values.len(), 100);
        values.sort();
        values.dedup();
        assert_eq!(values.len(), 100);
    }
    let objects = std::fs::read_dir(log.objects_path().join("segments")).unwrap().count();
    assert!(objects < 300, "a busy agent collects, but {objects} objects were written for 300 batches");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_refused_with_a_sentence_and_the_rest_is_written() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let good = batch(0, &["good"], None);
    let named = |topic: &str| streamhouse_proto::v1::ProduceBatch { topic: topic.into(), ..good.clone() };
    let mut cut = good.clone();
    cut.batch.truncate(70);
    let mut too_large = good.clone();
    too_large.batch = vec![0; BATCH_BYTES_MAX + 1].into();
    let cases = [
        (damaged(0), ErrorKind::Corrupt, "fails its checksum"),
        (cut, ErrorKind::Corrupt, "was cut or damaged"),
        (named("no/topic"), ErrorKind::Invalid, "invalid topic name"),
        (named("unknown"), ErrorKind::NotFound, "streamhouse topic create unknown"),
        (batch(7, &["x"], None), ErrorKind::NotFound, "the topic has 1 partition,"),
        (too_large, ErrorKind::Invalid, "send smaller ones"),
    ];
    let mut request: Vec<_> = cases.iter().map(|(batch, ..)| batch.clone()).collect();
    request.insert(3, good.clone());
    let mut results = client.produce(request).await;
    let written = results.remove(3);
    assert_eq!((kind(&written), written.base_offset), (None, 0), "{}", written.message);
    for (result, (_, expected, message)) in results.iter().zip(&cases) {
        assert_eq!(kind(result), Some(*expected), "{}", result.message);
        assert!(result.message.contains(message), "{}", result.message);
    }
    assert_eq!(log.values(0).await, ["good"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_over_the_limit_is_refused_and_one_at_the_limit_is_written() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let most = large(0, BATCH_BYTES_MAX - 4096);
    let count = REQUEST_BYTES_MAX / most.batch.len();
    let results = client.produce(vec![most.clone(); count]).await;
    assert!(results.iter().all(|result| kind(result).is_none()), "{results:?}");
    let results = client.produce(vec![most; count + 1]).await;
    for result in results {
        assert_eq!(kind(&result), Some(ErrorKind::Invalid));
        assert!(result.message.contains("send its batches in several"), "{}", result.message);
    }
    assert_eq!(log.read(0).await.len(), count);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_another_agent_leases_is_refused_and_its_holder_named() {
    let log = Log::new(1).await;
    let metadata = || log.metadata.clone();
    let objects = || streamhouse_storage::create_local(&log.objects_path()).unwrap();
    let first = log.config(&["--agent-id", "first"]);
    let first = Agent::start_with(first, metadata(), objects()).await.unwrap();
    let second = log.config(&["--agent-id", "second"]);
    let second = Agent::start_with(second, metadata(), objects()).await.unwrap();

    let client = Client::connect(second.grpc_address()).await;
    let result = client.one(batch(0, &["x"], None)).await;
    assert_eq!(kind(&result), Some(ErrorKind::Fenced));
    let holder = format!("agent first does, at {}", first.grpc_address());
    assert!(result.message.contains(&holder), "{}", result.message);

    first.shutdown().await;
    assert_eq!(client.stored(batch(0, &["y"], None)).await, 0);
    assert_eq!(log.values(0).await, ["y"]);
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_topic_is_written_without_a_restart() {
    let log = Log::new(0).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let result = client.one(batch(0, &["x"], None)).await;
    assert_eq!(kind(&result), Some(ErrorKind::NotFound));
    let orders = support::orders(0).topic;
    log.metadata.create_topic(&orders, 2, Retention::default()).await.unwrap();
    assert_eq!(client.stored(batch(1, &["x"], None)).await, 0);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_first_offsets_and_is_stored_once() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let batches: Vec<_> = (0..3).map(|number| stamped(0, 9, number, &number.to_string())).collect();
    assert_eq!(client.one(batch(0, &["before"], None)).await.base_offset, 0);
    // In one request, so that some of them wait or are in flight when their retries arrive.
    let both: Vec<_> = batches.iter().chain(&batches).cloned().collect();
    for (results, _) in [(client.produce(both.clone()).await, ()), (client.produce(both).await, ())] {
        let offsets: Vec<_> = results.iter().map(|result| result.base_offset).collect();
        assert!(results.iter().all(|result| kind(result).is_none()), "{results:?}");
        assert_eq!(offsets, [1, 2, 3, 1, 2, 3]);
    }
    agent.shutdown().await;

    // The check is stored with the commit: the next agent knows as much.
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(batches[2].clone()).await, 3);
    assert_eq!(client.stored(stamped(0, 9, 3, "3")).await, 4);
    assert_eq!(log.values(0).await, ["before", "0", "1", "2", "3"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_overtakes_another_waits_for_it() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let results = client.produce(vec![
        stamped(0, 9, 2, "third"),
        stamped(0, 9, 1, "second"),
        stamped(0, 9, 0, "first"),
    ]);
    let offsets: Vec<_> = results.await.iter().map(|result| result.base_offset).collect();
    assert_eq!(offsets, [2, 1, 0]);
    assert_eq!(log.values(0).await, ["first", "second", "third"]);

    let result = client.one(stamped(0, 9, 7, "too far")).await;
    assert_eq!(kind(&result), Some(ErrorKind::Retry));
    assert!(result.message.contains("before the one with 3"), "{}", result.message);
    let result =
        client.one(batch(0, &["a", "b"], Some(ProducerStamp { producer_id: 9, epoch: 0, base_sequence: 1 })));
    assert_eq!(kind(&result.await), Some(ErrorKind::Invalid));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_was_lost_is_taken_anew_and_offsets_go_on() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(stamped(0, 9, 0, "0")).await, 0);
    streamhouse_metadata::Leases::expire_all_leases(&*log.metadata).await.unwrap();
    assert_eq!(client.stored(stamped(0, 9, 1, "1")).await, 1);
    assert_eq!(client.stored(stamped(0, 9, 1, "1")).await, 1);
    let orders = support::orders(0).topic;
    until("a raised epoch", async || {
        let partitions = streamhouse_metadata::Topics::partitions(&*log.metadata, &orders).await.unwrap();
        partitions[0].holder.as_ref().is_some_and(|holder| holder.epoch > 1)
    })
    .await;
    assert_eq!(log.values(0).await, ["0", "1"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_wait_while_the_agent_is_full_and_all_are_served() {
    let log = Log::new(1).await;
    // Room for two requests of full size; a dozen is sent while nothing is stored.
    let (agent, faults) = log.faulty_agent(&["--unflushed-bytes-max", "18MiB"]).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.puts([support::faults::PutFault::SlowUntilTold]);
    let most = large(0, BATCH_BYTES_MAX - 4096);
    let sent: Vec<_> = (0..12)
        .map(|_| {
            let (client, request) = (client.clone(), vec![most.clone(); 7]);
            tokio::spawn(async move { client.produce(request).await })
        })
        .collect();
    faults.met.notified().await;
    faults.told.notify_one();
    for sent in sent {
        assert!(sent.await.unwrap().iter().all(|result| kind(result).is_none()));
    }
    assert_eq!(log.read(0).await.len(), 84);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_more_batches_than_it_may_have_is_refused_unread() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let results = client.produce(vec![batch(0, &["a"], None); REQUEST_BATCHES_MAX]).await;
    assert!(results.iter().all(|result| kind(result).is_none()), "{:?}", results[0]);
    // Two bytes each: a million of them is a small message, and a few hundred megabytes once decoded.
    let status = client.refused(vec![ProduceBatch::default(); 1_000_000]).await;
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("in several requests"), "{status}");
    assert_eq!(log.values(0).await.len(), REQUEST_BATCHES_MAX);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_producer_has_given_up_is_not_stored_behind_what_came_after_it() {
    let of = |epoch, base_sequence, value: &str| {
        batch(0, &[value], Some(ProducerStamp { producer_id: 9, epoch, base_sequence }))
    };
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(of(0, 0, "first")).await, 0);
    assert_eq!(client.stored(of(1, 0, "third")).await, 1);
    let check = async |client: &Client| {
        let late = client.one(of(0, 1, "second")).await;
        assert_eq!(kind(&late), Some(ErrorKind::Invalid), "{}", late.message);
        assert!(late.message.contains("epoch 0, which ended"), "{}", late.message);
        assert_eq!(client.stored(of(1, 0, "third")).await, 1);
    };
    check(&client).await;
    agent.shutdown().await;
    // The next agent knows the epochs from the metadata store.
    let agent = log.agent().await;
    check(&Client::connect(agent.grpc_address()).await).await;
    assert_eq!(log.values(0).await, ["first", "third"]);
    agent.shutdown().await;
}
