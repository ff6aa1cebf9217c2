//! A log in a temporary directory, and what tests do with it.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

pub(crate) mod faults;
pub(crate) mod page;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod security;

use bytes::Bytes;
use clap::Parser;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use streamhouse_agent::{Agent, Config, Flags};
use streamhouse_core::batch::{BatchBuilder, Compression, ProducerStamp};
use streamhouse_core::{ErrorKind, TopicName, TopicPartition};
use streamhouse_hooks::{GaugeId, Instance, Role};
use streamhouse_metadata::{Retention, SegmentRanges, SqliteMetadataStore, Topics};
use streamhouse_proto::v1::agent_client::AgentClient;
use streamhouse_proto::v1::{BatchResult, ProduceBatch, ProduceRequest};
use streamhouse_storage::{PartitionReader, RangeLocation, SegmentStore, create_local, open_local};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;

/// How often something is asked for until it is there. Together with the pauses far more than any of it takes.
const ATTEMPTS: usize = 6000;
const PAUSE: Duration = Duration::from_millis(10);

/// Flags of an agent that renews, looks and cleans up often; a grace time of ten terms.
const OFTEN: [&str; 8] = [
    "--lease-term",
    "1s",
    "--heartbeat-interval",
    "300ms",
    "--upkeep-interval",
    "20ms",
    "--orphan-grace",
    "10s",
];

/// [`OFTEN`], of an agent of this id.
pub(crate) fn often(id: &str) -> Vec<&str> {
    [&OFTEN[..], &["--agent-id", id]].concat()
}

/// Metadata and objects in a directory of their own.
pub(crate) struct Log {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) metadata: Arc<SqliteMetadataStore>,
}

impl Log {
    /// A log with the topic `orders` of this many partitions, or none.
    pub(crate) async fn new(partitions: u32) -> Log {
        let dir = tempfile::tempdir().unwrap();
        let metadata = Arc::new(SqliteMetadataStore::new(&dir.path().join("metadata.db")).await.unwrap());
        if partitions > 0 {
            metadata
                .create_topic(&TopicName::new("orders").unwrap(), partitions, Retention::default())
                .await
                .unwrap();
        }
        Log { dir, metadata }
    }

    pub(crate) fn metadata_path(&self) -> PathBuf {
        self.dir.path().join("metadata.db")
    }

    pub(crate) fn objects_path(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    /// Flags of an agent on this log, on free ports, then `more`.
    pub(crate) fn flags(&self, more: &[&str]) -> Vec<String> {
        let (metadata, objects) = (self.metadata_path(), self.objects_path());
        let own = [
            ["--grpc-listen-address", "127.0.0.1:0"],
            ["--http-listen-address", "127.0.0.1:0"],
            ["--sweep-interval", "20ms"],
            ["--metadata-path", metadata.to_str().unwrap()],
            ["--object-store-path", objects.to_str().unwrap()],
        ];
        own.concat().iter().chain(more).map(|flag| (*flag).to_owned()).collect()
    }

    pub(crate) fn config(&self, more: &[&str]) -> Config {
        let program = std::iter::once("streamhouse-agent".to_owned());
        let flags = Flags::try_parse_from(program.chain(self.flags(more))).unwrap();
        Config::try_from(flags).unwrap()
    }

    /// An agent as the binary runs it.
    pub(crate) async fn agent(&self) -> Agent {
        self.agent_with(&[]).await
    }

    /// The same, with more flags.
    pub(crate) async fn agent_with(&self, flags: &[&str]) -> Agent {
        Agent::start(self.config(flags)).await.unwrap()
    }

    /// An agent on this log whose stores fail when told to.
    pub(crate) async fn faulty_agent(&self, flags: &[&str]) -> (Agent, Arc<faults::Faults>) {
        let faults = Arc::new(faults::Faults::default());
        let metadata = faults::FaultyMetadata::new(self.metadata.clone(), Arc::clone(&faults));
        let objects = create_local(&self.objects_path()).unwrap();
        let objects = faults::FaultyObjects::new(objects, Arc::clone(&faults));
        let agent =
            Agent::start_with(self.config(flags), Arc::new(metadata), Arc::new(objects)).await.unwrap();
        (agent, faults)
    }

    /// Every record of a partition of `orders`: offset and value, in order.
    pub(crate) async fn read(&self, partition: u32) -> Vec<(u64, String)> {
        let partition = orders(partition);
        let objects = open_local(&self.objects_path()).unwrap();
        let store = SegmentStore::new(objects, &Instance::new(Role::Consumer, "test", "test"));
        let mut reader = PartitionReader::new(store, partition.clone());
        let mut records = Vec::new();
        for range in self.metadata.ranges(&partition, 0, u32::MAX).await.unwrap() {
            let base_offset = range.base_offset;
            let location = RangeLocation {
                segment: range.segment,
                object: range.object,
                base_offset,
                end_offset: range.end_offset,
                position: range.position,
                bytes: range.bytes,
                index_position: range.index_position,
                index_bytes: range.index_bytes,
            };
            reader.open(location, base_offset).unwrap();
            while !reader.is_at_end() {
                let sink = |offset, record: streamhouse_core::Record| {
                    records.push((offset, String::from_utf8(record.value.to_vec()).unwrap()));
                };
                reader.read(10_000, usize::MAX, sink).await.unwrap();
            }
        }
        let offsets: Vec<_> = records.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..records.len() as u64).collect::<Vec<_>>(), "offsets are dense (invariant 2)");
        records
    }

    /// The values of [`read`](Self::read).
    pub(crate) async fn values(&self, partition: u32) -> Vec<String> {
        self.read(partition).await.into_iter().map(|(_, value)| value).collect()
    }
}

pub(crate) fn orders(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicName::new("orders").unwrap(), partition }
}

/// A connection to an agent.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) AgentClient<Channel>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client(AgentClient::connect(format!("http://{address}")).await.unwrap())
    }

    /// The same; `None` when nobody listens there.
    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Client> {
        AgentClient::connect(format!("http://{address}")).await.ok().map(Client)
    }

    /// The results of one request.
    pub(crate) async fn produce(&self, batches: Vec<ProduceBatch>) -> Vec<BatchResult> {
        let count = batches.len();
        let response = self.0.clone().produce(ProduceRequest { batches }).await.unwrap();
        let results = response.into_inner().results;
        assert_eq!(results.len(), count);
        results
    }

    /// Why a request failed as a whole.
    pub(crate) async fn refused(&self, batches: Vec<ProduceBatch>) -> tonic::Status {
        self.0.clone().produce(ProduceRequest { batches }).await.unwrap_err()
    }

    /// The result of a request with one batch.
    pub(crate) async fn one(&self, batch: ProduceBatch) -> BatchResult {
        self.produce(vec![batch]).await.remove(0)
    }

    /// The same; `None` when the agent is gone.
    pub(crate) async fn try_one(&self, batch: ProduceBatch) -> Option<BatchResult> {
        let response = self.0.clone().produce(ProduceRequest { batches: vec![batch] }).await;
        response.ok().map(|response| response.into_inner().results.remove(0))
    }

    /// Waits until the agent of this id has received these batches and answered none of them.
    pub(crate) async fn until_received(&self, agent_id: &str, batches: &[ProduceBatch]) {
        let bytes: usize = batches.iter().map(|batch| batch.batch.len()).sum();
        until("the batches to be received", async || {
            page::values(GaugeId::AgentUnflushedBytes, agent_id)[0].value == bytes as u64
        })
        .await;
        // From there to where they wait is another step, of which nothing is told.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    /// Sends a batch until it is stored, as a producer does; its first offset.
    pub(crate) async fn stored(&self, batch: ProduceBatch) -> u64 {
        for _ in 0..ATTEMPTS {
            let result = self.one(batch.clone()).await;
            match kind(&result) {
                None => return result.base_offset,
                Some(kind) => assert!(kind.is_retryable(), "{}", result.message),
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("it is never stored");
    }
}

/// Asks until the answer is yes.
pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    for _ in 0..ATTEMPTS {
        if ask().await {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("waited in vain for {what}");
}

/// What a result says: `None` is success.
pub(crate) fn kind(result: &BatchResult) -> Option<ErrorKind> {
    ErrorKind::from_number(result.status as u8)
}

/// A batch of `orders` with these values.
pub(crate) fn batch(partition: u32, values: &[&str], producer: Option<ProducerStamp>) -> ProduceBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(1, None, value.as_bytes(), &[]).unwrap();
    }
    let record_bytes = builder.record_bytes();
    ProduceBatch {
        topic: "orders".into(),
        partition,
        batch: builder.finish(producer),
        record_bytes,
        traceparent: String::new(),
    }
}

/// What one producer stamps on its batch that begins with this sequence number. It can be sent again: it is stored once.
pub(crate) fn stamp(base_sequence: i32) -> Option<ProducerStamp> {
    Some(ProducerStamp { producer_id: 9, epoch: 0, base_sequence })
}

/// A batch of one record of a producer.
pub(crate) fn stamped(partition: u32, producer_id: u64, base_sequence: i32, value: &str) -> ProduceBatch {
    batch(partition, &[value], Some(ProducerStamp { producer_id, epoch: 0, base_sequence }))
}

/// A batch of one record of this many bytes.
pub(crate) fn large(partition: u32, bytes: usize) -> ProduceBatch {
    batch(partition, &[&"x".repeat(bytes)], None)
}

/// A batch with one bit of its records flipped.
pub(crate) fn damaged(partition: u32) -> ProduceBatch {
    let mut damaged = batch(partition, &["value"], None);
    let mut bytes = damaged.batch.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged.batch = Bytes::from(bytes);
    damaged
}

/// Status code and body of a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
