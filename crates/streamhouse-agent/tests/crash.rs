//! `kill -9` under load: what was acknowledged is there, what is sent again is there once.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use streamhouse_core::batch::ProducerStamp;
use support::{Client, Log, batch, kind, until};

const PARTITIONS: u32 = 4;
const RECORDS_PER_BATCH: usize = 20;
const BATCHES_PER_ROUND: u64 = 60;
const ROUNDS: u64 = 3;

/// A child that is killed when a test fails.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the binary; where it answers gRPC, from the line that says it is ready.
fn start(log: &Log) -> (Killed, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamhouse-agent"));
    command.args(log.flags(&[])).env("RUST_LOG", "info").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let child = Killed(child);
    let address = lines.find_map(|line| {
        let line = line.unwrap();
        let (_, rest) = line.split_once("gRPC on ")?;
        rest.split(',').next()?.parse().ok()
    });
    // The pipe stays read, so that the agent never waits for its log.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address.unwrap())
}

/// One producer on one partition: a batch at a time, the unanswered one again after a crash.
struct Producer {
    partition: u32,
    next_batch: u64,
    acknowledged: Vec<(u64, String)>,
}

impl Producer {
    fn values(&self) -> Vec<String> {
        (0..RECORDS_PER_BATCH)
            .map(|record| format!("{}:{}:{record}", self.partition, self.next_batch))
            .collect()
    }

    /// Produces until the agent is gone.
    async fn run(&mut self, address: SocketAddr, acknowledged: &AtomicU64) {
        let client = Client::connect(address).await;
        loop {
            let values = self.values();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let base_sequence = (self.next_batch as usize * RECORDS_PER_BATCH) as i32;
            let producer_id = u64::from(self.partition) + 1;
            let stamp = ProducerStamp { producer_id, epoch: 0, base_sequence };
            let Some(result) = client.try_one(batch(self.partition, &values, Some(stamp))).await else {
                return;
            };
            match kind(&result) {
                None => {
                    let offsets = result.base_offset..;
                    self.acknowledged.extend(offsets.zip(values.into_iter().map(str::to_owned)));
                    self.next_batch += 1;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Some(kind) => assert!(kind.is_retryable(), "{}", result.message),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let log = Log::new(PARTITIONS).await;
    let mut producers: Vec<_> = (0..PARTITIONS)
        .map(|partition| Producer { partition, next_batch: 0, acknowledged: Vec::new() })
        .collect();
    for round in 1..=ROUNDS {
        let (mut agent, address) = start(&log);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let running: Vec<_> = producers
            .drain(..)
            .map(|mut producer| {
                let acknowledged = Arc::clone(&acknowledged);
                tokio::spawn(async move {
                    producer.run(address, &acknowledged).await;
                    producer
                })
            })
            .collect();
        until("batches to be acknowledged", async || {
            acknowledged.load(Ordering::Relaxed) >= BATCHES_PER_ROUND
        })
        .await;
        agent.kill();
        for producer in running {
            producers.push(producer.await.unwrap());
        }
        for producer in &producers {
            let stored = log.read(producer.partition).await;
            // Of what was not acknowledged at most one batch is there, and it is the one that comes again.
            assert!(stored.len() - producer.acknowledged.len() <= RECORDS_PER_BATCH, "round {round}");
            assert_eq!(stored[..producer.acknowledged.len()], producer.acknowledged, "round {round}");
        }
    }
    assert!(producers.iter().all(|producer| !producer.acknowledged.is_empty()));
}
