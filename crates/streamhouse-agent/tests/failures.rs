//! Stores that fail: what producers are told, and that the log stays whole.

mod support;

use std::sync::{Arc, Mutex};
use streamhouse_agent::Agent;
use streamhouse_core::ErrorKind;
use streamhouse_hooks::GaugeId;
use streamhouse_proto::v1::ProduceBatch;
use support::faults::{CommitFault, PutFault};
use support::{Client, Log, batch, get, kind, page, stamped, until};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// For tests that wait for a lease term: long enough that a busy machine renews in time.
const SHORT_LEASES: [&str; 4] = ["--lease-term", "4s", "--heartbeat-interval", "1s"];
/// So seldom does an agent try whether it can write again that it never does.
const NO_TRIALS: [&str; 4] = ["--lease-term", "300s", "--heartbeat-interval", "100s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_writing_goes_on_when_there_is_space() {
    let log = Log::new(2).await;
    let (agent, faults) = log.faulty_agent(&[]).await;
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(stamped(0, 9, 0, "before")).await, 0);

    faults.puts([PutFault::Full, PutFault::Full]);
    for _ in 0..2 {
        let results = client.produce(vec![stamped(0, 9, 1, "full"), batch(1, &["x"], None)]).await;
        for result in results {
            assert_eq!(kind(&result), Some(ErrorKind::Unavailable));
            assert!(result.message.contains("no space is left"), "{}", result.message);
        }
    }
    assert_eq!(client.stored(stamped(0, 9, 1, "after")).await, 1);
    assert_eq!(client.stored(stamped(0, 9, 1, "after")).await, 1);
    assert_eq!(log.values(0).await, ["before", "after"]);
    assert!(log.values(1).await.is_empty());
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_hangs_is_given_up_after_a_lease_term() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&SHORT_LEASES).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.puts([PutFault::Hangs]);
    let result = client.one(stamped(0, 9, 0, "hangs")).await;
    assert_eq!(kind(&result), Some(ErrorKind::Unavailable));
    assert!(result.message.contains("within 4s (at most a lease term)"), "{}", result.message);
    assert_eq!(client.stored(stamped(0, 9, 0, "stored")).await, 0);
    assert_eq!(log.values(0).await, ["stored"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_unknown_outcome_is_resolved_before_it_is_answered() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&[]).await;
    let client = Client::connect(agent.grpc_address()).await;
    *faults.outcomes.lock().unwrap() = 3;
    faults.commits([CommitFault::DoneButUnknown]);
    assert_eq!(client.stored(stamped(0, 9, 0, "done")).await, 0);
    faults.commits([CommitFault::NotDoneAndUnknown, CommitFault::Busy]);
    assert_eq!(client.stored(stamped(0, 9, 1, "not done at first")).await, 1);
    assert_eq!(log.values(0).await, ["done", "not done at first"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_a_doubtful_commit_stays_whatever_is_answered_later() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&[]).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.commits([CommitFault::NotDoneAndUnknown, CommitFault::Refused]);
    let result = client.one(stamped(0, 9, 0, "doubtful")).await;
    assert_eq!(kind(&result), Some(ErrorKind::Retry));
    assert!(result.message.contains("it may have been committed"), "{}", result.message);
    // The leases are taken anew, and nobody has removed the object when the next is there.
    assert_eq!(client.stored(stamped(0, 9, 0, "again")).await, 0);
    let objects = std::fs::read_dir(log.objects_path().join("segments")).unwrap().count();
    assert_eq!((log.values(0).await, objects), (vec!["again".to_owned()], 2));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_commit_uses_no_offset_and_leaves_no_object() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&[]).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.commits([CommitFault::Refused]);
    let result = client.one(batch(0, &["refused"], None)).await;
    assert_eq!(kind(&result), Some(ErrorKind::Unavailable));
    assert!(result.message.contains("could not be committed"), "{}", result.message);
    let objects = || std::fs::read_dir(log.objects_path().join("segments")).unwrap().count();
    until("the object to be removed", async || objects() == 0).await;
    assert_eq!(client.stored(batch(0, &["a"], None)).await, 0);
    assert_eq!((log.values(0).await, objects()), (vec!["a".to_owned()], 1));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_refused_commit_fails_with_it_and_comes_again_in_order() {
    let log = Log::new(2).await;
    let (agent, faults) = log.faulty_agent(&["--agent-id", "refused"]).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.commits([CommitFault::RefusedWhenTold]);
    let send = |batches: &[ProduceBatch]| {
        let (client, batches) = (client.clone(), batches.to_vec());
        tokio::spawn(async move { client.produce(batches).await })
    };
    let batches = [
        stamped(0, 9, 0, "first"),
        stamped(0, 9, 0, "first"),
        stamped(0, 9, 1, "second"),
        stamped(1, 9, 0, "elsewhere"),
        stamped(0, 9, 2, "third"),
    ];
    // The first flush is being committed while the second is stored and more waits behind it.
    let first = send(&batches[..1]);
    faults.met.notified().await;
    let retry_and_second = send(&batches[1..3]);
    let segments = log.objects_path().join("segments");
    until("a second object", async || std::fs::read_dir(&segments).unwrap().count() == 2).await;
    let elsewhere = send(&batches[3..4]);
    let third = send(&batches[4..]);
    client.until_received("refused", &batches).await;
    faults.told.notify_one();

    for results in [first, retry_and_second, third] {
        for result in results.await.unwrap() {
            assert_eq!(kind(&result), Some(ErrorKind::Unavailable), "{}", result.message);
        }
    }
    assert_eq!(kind(&elsewhere.await.unwrap()[0]), None);

    for (sequence, value) in [(0, "first"), (1, "second"), (2, "third")] {
        assert_eq!(client.stored(stamped(0, 9, sequence, value)).await, sequence as u64);
    }
    assert_eq!(log.values(0).await, ["first", "second", "third"]);
    assert_eq!(log.values(1).await, ["elsewhere"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_is_given_up_is_found_again_by_its_retry() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&SHORT_LEASES).await;
    let client = Client::connect(agent.grpc_address()).await;
    *faults.outcomes.lock().unwrap() = u32::MAX;
    faults.commits([CommitFault::DoneButUnknown]);
    let result = client.one(stamped(0, 9, 0, "done")).await;
    assert_eq!(kind(&result), Some(ErrorKind::Retry));
    assert!(result.message.contains("it may have been committed"), "{}", result.message);
    *faults.outcomes.lock().unwrap() = 0;
    assert_eq!(client.stored(stamped(0, 9, 0, "done")).await, 0);
    assert_eq!(client.stored(stamped(0, 9, 1, "next")).await, 1);

    faults.commits([CommitFault::Hangs]);
    let result = client.one(stamped(0, 9, 2, "hangs")).await;
    assert_eq!(kind(&result), Some(ErrorKind::Retry));
    assert_eq!(client.stored(stamped(0, 9, 2, "hung")).await, 2);
    assert_eq!(log.values(0).await, ["done", "next", "hung"]);
    agent.shutdown().await;
}

/// The levels of what the flusher logs.
#[derive(Clone, Default)]
struct Levels(Arc<Mutex<Vec<tracing::Level>>>);

impl<S: tracing::Subscriber> Layer<S> for Levels {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "streamhouse_agent::flush::steps" {
            self.0.lock().expect("no listener panics").push(*event.metadata().level());
        }
    }
}

/// On one thread, so that this test's listener hears its own agent and no other.
#[tokio::test]
async fn an_outage_is_logged_when_it_begins_and_when_it_ends() {
    let levels = Levels::default();
    // With two listeners, what another test's agent logs first does not decide that nobody listens.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(levels.clone()));
    let log = Log::new(1).await;
    // No trial comes before the test is over.
    let (agent, faults) = log.faulty_agent(&NO_TRIALS).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.puts([PutFault::Full; 3]);
    faults.commits([CommitFault::Refused; 2]);
    *faults.deletes.lock().unwrap() = 5;
    for _ in 0..5 {
        assert_eq!(kind(&client.one(batch(0, &["x"], None)).await), Some(ErrorKind::Unavailable));
    }
    for offset in 0..2 {
        assert_eq!(client.stored(batch(0, &["x"], None)).await, offset);
    }
    agent.shutdown().await;
    assert_eq!(*faults.deletes.lock().unwrap(), 0, "objects that were not committed are removed");
    let heard = levels.0.lock().unwrap().clone();
    let count = |level| heard.iter().filter(|heard| **heard == level).count();
    assert_eq!((count(tracing::Level::WARN), count(tracing::Level::INFO)), (1, 1), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_cannot_write_is_not_ready_until_it_can() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&["--heartbeat-interval", "100ms"]).await;
    let client = Client::connect(agent.grpc_address()).await;
    let ready = async || get(agent.http_address(), "/ready").await;
    assert_eq!(ready().await, (200, "ready: 1 partition leased\n".into()));

    // Nobody sends anything more: the agent finds out by itself that it still cannot write, then that it can.
    faults.puts([PutFault::Full; 1000]);
    assert_eq!(kind(&client.one(batch(0, &["x"], None)).await), Some(ErrorKind::Unavailable));
    let (status, body) = ready().await;
    assert_eq!(status, 503);
    assert!(body.contains("the last flush failed: ") && body.contains("no space is left"), "{body}");
    faults.puts.lock().unwrap().truncate(3);
    until("readiness", async || ready().await.0 == 200).await;
    assert!(faults.puts.lock().unwrap().is_empty(), "not before a trial succeeds");
    let segments = log.objects_path().join("segments");
    assert_eq!(std::fs::read_dir(segments).unwrap().count(), 0, "a trial leaves nothing behind");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_stored_is_told_with_its_age() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&["--agent-id", "waits"]).await;
    let client = Client::connect(agent.grpc_address()).await;
    let told = |gauge| page::values(gauge, "waits")[0].value;
    let unflushed = || (told(GaugeId::AgentUnflushedBytes), told(GaugeId::AgentUnflushedSince));
    assert_eq!(unflushed(), (0, 0));
    faults.puts([PutFault::SlowUntilTold]);
    let waits = batch(0, &["waits"], None);
    let bytes = waits.batch.len() as u64;
    let answer = tokio::spawn(async move { client.one(waits).await });
    faults.met.notified().await;
    assert_eq!(told(GaugeId::AgentUnflushedBytes), bytes);
    assert_ne!(told(GaugeId::AgentUnflushedSince), 0, "since when");
    faults.told.notify_one();
    assert_eq!(answer.await.unwrap().status, 0);
    until("nothing to wait any more", async || unflushed() == (0, 0)).await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_succeeds_makes_an_agent_ready_again() {
    let log = Log::new(1).await;
    // No trial comes before the test is over.
    let (agent, faults) = log.faulty_agent(&NO_TRIALS).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.commits([CommitFault::Refused]);
    assert_eq!(kind(&client.one(batch(0, &["x"], None)).await), Some(ErrorKind::Unavailable));
    assert_eq!(get(agent.http_address(), "/ready").await.0, 503);
    assert_eq!(client.stored(batch(0, &["y"], None)).await, 0);
    assert_eq!(get(agent.http_address(), "/ready").await.0, 200);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_on_an_object_store_that_cannot_be_written_does_not_start() {
    let log = Log::new(1).await;
    let start = async |fault| {
        let faults = Arc::new(support::faults::Faults::default());
        faults.puts([fault]);
        let objects = streamhouse_storage::create_local(&log.objects_path()).unwrap();
        let objects = support::faults::FaultyObjects::new(objects, faults);
        let config = log.config(&SHORT_LEASES);
        let started = Agent::start_with(config, log.metadata.clone(), Arc::new(objects));
        started.await.err().expect("it cannot be written").to_string()
    };
    let message = start(PutFault::Full).await;
    assert!(message.contains("no record could be stored") && message.contains("free some"), "{message}");
    let message = start(PutFault::Hangs).await;
    assert!(message.contains("within 4s (at most a lease term)"), "{message}");
    assert!(streamhouse_metadata::Agents::agents(&*log.metadata).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_when_the_metadata_file_is_gone() {
    let log = Log::new(1).await;
    let agent = Agent::start(log.config(&["--heartbeat-interval", "100ms"])).await.unwrap();
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(stamped(0, 9, 0, "before")).await, 0);
    let moved = log.dir.path().join("moved.db");
    std::fs::rename(log.metadata_path(), &moved).unwrap();
    let result = client.one(stamped(0, 9, 1, "not lost")).await;
    assert_eq!(kind(&result), Some(ErrorKind::Unavailable));
    assert!(result.message.contains("restore the file"), "{}", result.message);
    until("the agent to say so", async || {
        let (status, body) = get(agent.http_address(), "/ready").await;
        status == 503 && body.contains("restore the file")
    })
    .await;
    drop(agent);
    std::fs::rename(&moved, log.metadata_path()).unwrap();
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(stamped(0, 9, 1, "not lost")).await, 1);
    assert_eq!(log.values(0).await, ["before", "not lost"]);
    agent.shutdown().await;
}
