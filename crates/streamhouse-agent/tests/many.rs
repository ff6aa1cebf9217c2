//! Many agents on one log: shares, hand-overs, deaths.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use streamhouse_agent::Agent;
use streamhouse_core::{ErrorKind, batch::ProducerStamp};
use streamhouse_metadata::{Agents, Topics};
use support::faults::{Faults, PutFault};
use support::{Client, Log, batch, kind, orders, stamp, until};
use tokio::time::Instant;

/// For tests that wait for a lease term: long enough that a busy machine renews in time.
const SHORT_TERM: &str = "3s";
/// For tests in which no lease may be lost.
const LONG_TERM: &str = "15s";

/// Flags of an agent that shares the log with others.
fn flags<'a>(id: &'a str, term: &'a str) -> [&'a str; 6] {
    ["--agent-id", id, "--lease-term", term, "--heartbeat-interval", "300ms"]
}

/// An agent that shares the log with others.
async fn join(log: &Log, id: &str, term: &str) -> (Agent, Arc<Faults>) {
    log.faulty_agent(&flags(id, term)).await
}

/// Who holds each partition of `orders`, and the epoch.
async fn holders(log: &Log) -> Vec<Option<(String, u64)>> {
    let partitions = log.metadata.partitions(&orders(0).topic).await.unwrap();
    let holder = |holder: streamhouse_metadata::LeaseHolder| (holder.agent.to_string(), holder.epoch);
    partitions.into_iter().map(|info| info.holder.map(holder)).collect()
}

/// How many partitions each agent holds, by its id.
async fn counts(log: &Log) -> Vec<(String, usize)> {
    let mut counts = HashMap::<String, usize>::new();
    holders(log).await.into_iter().flatten().for_each(|(agent, _)| *counts.entry(agent).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort();
    counts
}

async fn until_shared(log: &Log, expected: &[(&str, usize)]) {
    let expected: Vec<_> = expected.iter().map(|(agent, count)| ((*agent).to_owned(), *count)).collect();
    until(&format!("{expected:?}"), async || counts(log).await == expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_share_fairly_and_no_more_moves_than_must() {
    let log = Log::new(12).await;
    let (a, _) = join(&log, "a", LONG_TERM).await;
    until_shared(&log, &[("a", 12)]).await;
    let (b, _) = join(&log, "b", LONG_TERM).await;
    until_shared(&log, &[("a", 6), ("b", 6)]).await;
    let of_two = holders(&log).await;
    let (c, _) = join(&log, "c", LONG_TERM).await;
    until_shared(&log, &[("a", 4), ("b", 4), ("c", 4)]).await;
    let of_three = holders(&log).await;
    let kept = of_two.iter().zip(&of_three).filter(|(before, now)| before == now).count();
    assert_eq!(kept, 8, "what did not go to the new agent stays under its lease");

    c.shutdown().await;
    until_shared(&log, &[("a", 6), ("b", 6)]).await;
    let after = holders(&log).await;
    let mut both =
        of_three.iter().zip(&after).filter(|(before, _)| before.as_ref().is_some_and(|one| one.0 != "c"));
    assert!(both.all(|(before, now)| before == now), "nothing else moves when an agent leaves");
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_agents_partitions_are_taken_over_within_a_term() {
    let log = Log::new(6).await;
    let (a, _) = join(&log, "a", "8s").await;
    let (b, _) = join(&log, "b", "8s").await;
    until_shared(&log, &[("a", 3), ("b", 3)]).await;
    let before = holders(&log).await;
    drop(b);
    until_shared(&log, &[("a", 6)]).await;
    for (before, now) in before.iter().zip(holders(&log).await) {
        let ((agent, epoch), (_, epoch_now)) = (before.clone().unwrap(), now.unwrap());
        assert_eq!(
            epoch_now - epoch,
            u64::from(agent == "b"),
            "only what was the dead agent's moves, with a raised epoch"
        );
    }
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_waits_for_what_is_in_flight_and_takes_nothing_new() {
    let log = Log::new(2).await;
    let (a, faults) = join(&log, "giver", LONG_TERM).await;
    let client = Client::connect(a.grpc_address()).await;
    faults.puts([PutFault::SlowUntilTold]);
    let batches = [0, 1].map(|partition| batch(partition, &["in flight"], stamp(0)));
    let in_flight = batches.clone().map(|batch| {
        let client = client.clone();
        tokio::spawn(async move { client.one(batch).await })
    });
    faults.met.notified().await;
    client.until_received("giver", &batches).await;
    let (b, _) = join(&log, "taker", LONG_TERM).await;
    // One of the two leaves: its next batch is refused, while the one in flight holds the lease.
    let refused = async |partition| {
        let result = client.one(batch(partition, &["later"], stamp(7))).await;
        kind(&result) == Some(ErrorKind::Fenced) && result.message.contains("hands ")
    };
    let mut leaving = None;
    until("the hand-over to begin", async || {
        for partition in 0..2 {
            if refused(partition).await {
                leaving = Some(partition);
            }
        }
        leaving.is_some()
    })
    .await;
    let leaving = leaving.unwrap();
    assert_eq!(holders(&log).await[leaving as usize].as_ref().unwrap().0, "giver");
    faults.told.notify_one();
    for sent in in_flight {
        assert_eq!(kind(&sent.await.unwrap()), None);
    }
    until_shared(&log, &[("giver", 1), ("taker", 1)]).await;
    let next = Client::connect(b.grpc_address()).await;
    assert_eq!(next.stored(batch(leaving, &["in flight"], stamp(0))).await, 0, "its new holder knows it");
    assert_eq!(next.stored(batch(leaving, &["next"], stamp(1))).await, 1);
    assert_eq!(log.values(leaving).await, ["in flight", "next"]);
    a.shutdown().await;
    b.shutdown().await;
}

/// One producer on one partition: a batch at a time, to whoever holds the partition, again until it is stored.
async fn produce(log: &Log, partition: u32, done: &AtomicBool, acknowledged: &AtomicU64) -> Vec<String> {
    let mut clients = HashMap::<SocketAddr, Client>::new();
    let mut values = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let value = format!("{partition}:{}", values.len());
        let stamp = ProducerStamp {
            producer_id: u64::from(partition) + 1,
            epoch: 0,
            base_sequence: values.len() as i32,
        };
        let begun = Instant::now();
        loop {
            let infos = log.metadata.partitions(&orders(0).topic).await.unwrap();
            if let Some(holder) = &infos[partition as usize].holder {
                let address = holder.address.parse().unwrap();
                if !clients.contains_key(&address)
                    && let Some(client) = Client::try_connect(address).await
                {
                    clients.insert(address, client);
                }
                let result = match clients.get(&address) {
                    Some(client) => client.try_one(batch(partition, &[&value], Some(stamp))).await,
                    None => None,
                };
                match result.as_ref().map(kind) {
                    Some(None) => break,
                    Some(Some(kind)) => assert!(kind.is_retryable(), "{:?}", result.unwrap().message),
                    None => drop(clients.remove(&address)),
                }
            }
            assert!(begun.elapsed().as_secs() < 60, "partition {partition} has no agent");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        values.push(value);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_under_load_lose_nothing_and_double_nothing() {
    const PARTITIONS: u32 = 6;
    let log = Arc::new(Log::new(PARTITIONS).await);
    let (a, _) = join(&log, "a", SHORT_TERM).await;
    let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let producers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let (log, done, acknowledged) = (Arc::clone(&log), Arc::clone(&done), Arc::clone(&acknowledged));
            tokio::spawn(async move { produce(&log, partition, &done, &acknowledged).await })
        })
        .collect();
    let more = async || {
        let before = acknowledged.load(Ordering::Relaxed);
        until("more batches", async || acknowledged.load(Ordering::Relaxed) > before + 50).await;
    };
    more().await;
    let (b, _) = join(&log, "b", SHORT_TERM).await;
    until_shared(&log, &[("a", 3), ("b", 3)]).await;
    let (c, _) = join(&log, "c", SHORT_TERM).await;
    until_shared(&log, &[("a", 2), ("b", 2), ("c", 2)]).await;
    more().await;
    b.shutdown().await;
    until_shared(&log, &[("a", 3), ("c", 3)]).await;
    more().await;
    drop(c);
    until_shared(&log, &[("a", 6)]).await;
    more().await;
    done.store(true, Ordering::Relaxed);
    for (partition, producer) in (0..).zip(producers) {
        assert_eq!(producer.await.unwrap(), log.values(partition).await);
    }
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_for_one_agent() {
    let log = Log::new(2).await;
    let (mut a, _) = join(&log, "a", SHORT_TERM).await;
    let second = async |term| {
        Agent::start_with(
            log.config(&flags("a", term)),
            log.metadata.clone(),
            streamhouse_storage::create_local(&log.objects_path()).unwrap(),
        )
        .await
    };
    // It waits for a sign of life for half its own term.
    let refused = second("60s").await.err().unwrap().to_string();
    assert!(refused.contains("runs under the id a") && refused.contains("--agent-id"), "{refused}");
    assert!(refused.contains(&a.grpc_address().to_string()), "{refused}");
    // One that was thought dead finds that another has its id, and ends.
    log.metadata.register_agent(&"a".parse().unwrap(), "elsewhere:1").await.unwrap();
    let failure = a.failed().await;
    assert!(failure.contains("elsewhere:1") && failure.contains("uses the id a"), "{failure}");
    drop(a);
    // Nobody answers under the id any more: after a while it can be had.
    let a = second(SHORT_TERM).await.unwrap();
    until_shared(&log, &[("a", 2)]).await;
    a.shutdown().await;
}
