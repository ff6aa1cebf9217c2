//! `kill -9` under load: what was acknowledged is there, what is sent again is there once.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use streamhouse_core::batch::ProducerStamp;
use support::process::AgentProcess;
use support::{Client, Log, batch, kind, until};

const PARTITIONS: u32 = 4;
const RECORDS_PER_BATCH: usize = 20;
const BATCHES_PER_ROUND: u64 = 60;
const ROUNDS: u64 = 3;

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
        let mut agent = AgentProcess::start(&log);
        let address = agent.grpc_address;
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
