//! The producers, and what they learn.

use crate::cluster::Cluster;
use crate::database::Database;
use crate::network::Network;
use crate::world::{Node, World, WorldClock, pause};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_client::{ClientError, Delivery, Producer};
use streamhouse_core::{TopicName, TopicPartition};

/// Every run has one topic.
pub(crate) const TOPIC: &str = "orders";
/// Pause before a producer that could not be made is tried again.
const BUILD_PAUSE: Duration = Duration::from_millis(100);

/// A partition of the topic.
pub(crate) fn partition(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicName::new(TOPIC).expect("a name that keeps the rules"), partition }
}

/// A record's value: who wrote it, and its number among that producer's.
fn value(producer: u32, number: u32) -> [u8; 8] {
    (u64::from(producer) << 32 | u64::from(number)).to_be_bytes()
}

/// Who wrote a value.
pub(crate) fn written_by(value: &[u8]) -> Option<(u32, u32)> {
    let both = u64::from_be_bytes(value.try_into().ok()?);
    Some(((both >> 32) as u32, both as u32))
}

/// An application with a producer.
pub(crate) struct Application {
    world: Arc<World>,
    number: u32,
    sent: u32,
    producer: Producer,
}

impl Application {
    /// Starts, and tries again until it has.
    pub(crate) async fn start(world: Arc<World>, cluster: Arc<Cluster>, number: usize) -> Application {
        let (plan, node) = (&world.plan, Node::Producer(number));
        loop {
            let network = Network { world: Arc::clone(&world), cluster: Arc::clone(&cluster), node };
            let built = Producer::builder()
                .metadata_store(Arc::new(Database::new(Arc::clone(&world), node)))
                .clock(Arc::new(WorldClock(Arc::clone(&world))))
                .transport(Arc::new(network))
                .client_id(node.to_string())
                .batch_records(plan.batch_records)
                .delivery_timeout(plan.delivery_timeout)
                .send_timeout(plan.delivery_timeout)
                .build()
                .await;
            match built {
                Ok(producer) => return Application { world, number: number as u32, sent: 0, producer },
                Err(_) => pause(BUILD_PAUSE).await,
            }
        }
    }

    /// Sends what the plan says; ends when every record has its end.
    pub(crate) async fn work(&mut self) {
        let mut ends = Vec::new();
        for _ in 0..self.world.plan.records {
            pause(self.world.up_to_ms(self.world.plan.pause_ms)).await;
            let to = self.world.below(self.world.plan.partitions.into()) as u32;
            if let Some((number, delivery)) = self.send(to).await {
                ends.push(tokio::spawn(end(Arc::clone(&self.world), self.number, number, to, delivery)));
            }
        }
        join_all(ends).await;
    }

    /// One more record to each partition. Everything works again, so each must be stored.
    pub(crate) async fn last_words(&mut self) {
        for to in 0..self.world.plan.partitions {
            let Some((number, delivery)) = self.send(to).await else {
                return self
                    .fails(format!("producer-{} can send nothing, and everything works", self.number));
            };
            if let Err(error) = end(Arc::clone(&self.world), self.number, number, to, delivery).await {
                self.fails(format!(
                    "a record for {} was not stored, and everything works: {error}",
                    partition(to)
                ));
            }
        }
    }

    async fn send(&mut self, to: u32) -> Option<(u32, Delivery)> {
        let number = self.sent;
        self.sent += 1;
        let sent = self.producer.send(TOPIC, None, &value(self.number, number), Some(to)).await;
        self.world.tell(format_args!("producer-{} sends {number} to {to}: {}", self.number, sent.is_ok()));
        Some((number, sent.ok()?))
    }

    fn fails(&self, what: String) {
        self.world.step(|state, _| state.witness.violated(0, what));
    }
}

/// Waits for a record's end, and tells the witness what the producer is told.
async fn end(
    world: Arc<World>,
    producer: u32,
    number: u32,
    to: u32,
    delivery: Delivery,
) -> Result<(), ClientError> {
    let ended = delivery.await;
    let at = partition(to);
    world.step(|state, _| match &ended {
        Ok(report) => {
            state.trace.step(format_args!("producer-{producer} has {number} at {at} {}", report.offset));
            state.witness.delivered(&at, report.offset, &value(producer, number));
        }
        Err(error) => {
            state.trace.step(format_args!("producer-{producer} gives {number} up: {:?}", error.kind()));
            // A producer of ours keeps the rules, so no agent has a reason.
            if let ClientError::Refused { message, .. } = error {
                state
                    .witness
                    .violated(4, format!("record {number} of producer-{producer} is refused: {message}"));
            }
        }
    });
    ended.map(drop)
}
