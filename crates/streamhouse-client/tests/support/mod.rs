//! A log small enough for a test: SQLite, a local directory, and an agent that misbehaves when told.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of what is here")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamhouse_client::{
    Admin, ConsumedRecord, Consumer, ConsumerBuilder, Producer, ProducerBuilder, Retention,
};
use streamhouse_core::batch::{BatchBuilder, BatchHeader, Compression, RecordIter};
use streamhouse_core::{AgentId, ErrorKind, Record, SegmentId, TopicName, TopicPartition};
use streamhouse_hooks::{Instance, Role};
use streamhouse_metadata::{
    Agents, Flush, FlushRange, Lease, Leases, RangeOutcome, Segments, SequencedBatch, SqliteMetadataStore,
    Topics,
};
use streamhouse_proto::v1::agent_server::{Agent, AgentServer};
use streamhouse_proto::v1::{BatchResult, ProduceRequest, ProduceResponse};
use streamhouse_storage::{SegmentBuilder, SegmentStore, create_local, open_local};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::{Server, server::TcpIncoming};
use tonic::{Request, Response, Status};

const LEASE_TERM: Duration = Duration::from_secs(3600);

/// A log on a temporary directory, and the stub that writes it.
pub struct Log {
    pub directory: TempDir,
    pub store: Arc<SqliteMetadataStore>,
    pub writer: Arc<Writer>,
    server: Option<JoinHandle<()>>,
}

impl Log {
    /// With topics and their partitions, leased by an agent that serves.
    pub async fn start(topics: &[(&str, u32)]) -> Log {
        let mut log = Log::without_agent(topics).await;
        log.serve().await;
        log
    }

    /// With topics that nobody leases; `write` and consumers work.
    pub async fn without_agent(topics: &[(&str, u32)]) -> Log {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteMetadataStore::new(directory.path().join("metadata.db")).await.unwrap();
        let store = Arc::new(store);
        let admin = Admin::new(store.clone());
        for (topic, partitions) in topics {
            admin.create_topic(topic, *partitions, Retention::default()).await.unwrap();
        }
        let instance = Instance::new(Role::Agent, "stub", "");
        let segments = SegmentStore::new(create_local(&directory.path().join("objects")).unwrap(), &instance);
        let writer = Writer {
            store: store.clone(),
            segments,
            agent: AgentId::new("stub").unwrap(),
            state: tokio::sync::Mutex::default(),
            faults: Mutex::default(),
            stalled: watch::Sender::new(false),
        };
        Log { directory, store, writer: Arc::new(writer), server: None }
    }

    /// Lets the stub take every lease and serve at a new address.
    pub async fn serve(&mut self) -> SocketAddr {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        self.writer.lease(&address.to_string()).await;
        let service = AgentServer::new(Stub(self.writer.clone()))
            .max_decoding_message_size(streamhouse_core::limits::MESSAGE_BYTES_MAX);
        let server = Server::builder().add_service(service).serve_with_incoming(incoming);
        self.server = Some(tokio::spawn(async move { server.await.unwrap() }));
        address
    }

    /// Ends the stub: connections break, its address refuses.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    pub fn producer(&self) -> ProducerBuilder {
        Producer::builder().metadata_store(self.store.clone()).client_id("test-producer")
    }

    pub fn consumer(&self, group: &str, topics: &[&str]) -> ConsumerBuilder {
        Consumer::builder()
            .metadata_store(self.store.clone())
            .object_store(open_local(&self.directory.path().join("objects")).unwrap())
            .group_id(group)
            .client_id("test-consumer")
            .topics(topics.iter().copied())
    }

    /// Writes batches of these sizes to a partition as one segment, past the producer. Values are the offsets.
    pub async fn write(&self, topic: &str, partition: u32, batches: &[usize], compression: Compression) {
        let partition = TopicPartition { topic: TopicName::new(topic).unwrap(), partition };
        let mut state = self.writer.state.lock().await;
        let mut offset =
            self.store.watermarks(std::slice::from_ref(&partition)).await.unwrap()[0].high_watermark;
        let mut encoded = Vec::new();
        for records in batches {
            let mut builder = BatchBuilder::new(compression);
            for _ in 0..*records {
                let key = offset.is_multiple_of(3).then(|| format!("key-{offset}"));
                builder
                    .push(
                        offset as i64,
                        key.as_deref().map(str::as_bytes),
                        offset.to_string().as_bytes(),
                        &[],
                    )
                    .unwrap();
                offset += 1;
            }
            encoded.push(builder.finish(None));
        }
        let outcome = self.writer.commit(&mut state, HashMap::from([(partition, encoded)])).await;
        assert_eq!(outcome, [RangeOutcome::Committed]);
    }

    /// Where the segments' objects are.
    pub fn objects(&self) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.directory.path().join("objects")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { directories.push(path) } else { found.push(path) }
            }
        }
        found
    }
}

/// What a batch meets instead of being written.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Written, but the answer is lost.
    DropResponse,
    /// The whole request fails before anything is written.
    FailRequest,
    /// This batch of the first request that has it is refused, and by the sequence check all behind it.
    RefuseBatch(usize, ErrorKind),
}

/// Writes what the stub receives, and the tests' own segments.
pub struct Writer {
    store: Arc<SqliteMetadataStore>,
    segments: SegmentStore,
    agent: AgentId,
    state: tokio::sync::Mutex<State>,
    /// Met from the last to the first.
    pub faults: Mutex<Vec<Fault>>,
    pub stalled: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    epochs: HashMap<TopicPartition, u64>,
    /// What was received, per producer, epoch and partition.
    sequences: HashMap<(u64, i16, TopicPartition), Vec<SequencedBatch>>,
    segments: u128,
    requests: u64,
    request_batches: Vec<usize>,
}

impl Writer {
    /// Lets every lease be the stub's, at this address.
    pub async fn lease(&self, address: &str) {
        let mut state = self.state.lock().await;
        self.store.expire_all_leases().await.unwrap();
        self.store.register_agent(&self.agent, address).await.unwrap();
        for lease in self.acquire().await {
            state.epochs.insert(lease.partition, lease.epoch);
        }
    }

    async fn acquire(&self) -> Vec<Lease> {
        let rows = self.store.lease_table().await.unwrap();
        let all: Vec<_> = rows.into_iter().map(|row| row.partition).collect();
        self.store.acquire_leases(&self.agent, LEASE_TERM, &all).await.unwrap()
    }

    /// Batches of each request so far.
    pub async fn request_batches(&self) -> Vec<usize> {
        self.state.lock().await.request_batches.clone()
    }

    async fn commit(
        &self,
        state: &mut State,
        batches: HashMap<TopicPartition, Vec<Bytes>>,
    ) -> Vec<RangeOutcome> {
        if state.epochs.is_empty() {
            self.store.register_agent(&self.agent, "127.0.0.1:1").await.unwrap();
            for lease in self.acquire().await {
                state.epochs.insert(lease.partition, lease.epoch);
            }
        }
        let mut builder = SegmentBuilder::new();
        for (partition, batches) in batches {
            let watermarks = self.store.watermarks(std::slice::from_ref(&partition)).await.unwrap();
            builder.add(partition, watermarks[0].high_watermark, batches).unwrap();
        }
        state.segments += 1;
        let segment = builder.finish(SegmentId(state.segments));
        self.segments.put(&segment).await.unwrap();
        let ranges = segment.ranges.iter().map(|range| FlushRange {
            partition: range.partition.clone(),
            epoch: state.epochs[&range.partition],
            base_offset: range.base_offset,
            records: range.records,
            position: range.position,
            bytes: range.bytes,
            index_position: range.index_position,
            index_bytes: range.index_bytes,
            producers: Vec::new(),
        });
        let flush = Flush {
            segment: segment.id,
            object: segment.object.clone(),
            object_bytes: segment.bytes,
            agent: self.agent.clone(),
            ranges: ranges.collect(),
        };
        self.store.commit_flush(&flush).await.unwrap()
    }

    /// Writes a request's batches as an agent does: in sequence, each once.
    async fn write(&self, request: ProduceRequest) -> Result<Vec<BatchResult>, Status> {
        let mut stalled = self.stalled.subscribe();
        stalled.wait_for(|stalled| !stalled).await.unwrap();
        let mut state = self.state.lock().await;
        let fault = self.faults.lock().unwrap().pop_if(|fault| match fault {
            Fault::RefuseBatch(index, _) => *index < request.batches.len(),
            Fault::DropResponse | Fault::FailRequest => true,
        });
        if matches!(fault, Some(Fault::FailRequest)) {
            return Err(Status::unavailable("told to fail"));
        }
        state.requests += 1;
        state.request_batches.push(request.batches.len());
        let mut results = Vec::new();
        let mut accepted: HashMap<TopicPartition, Vec<Bytes>> = HashMap::new();
        let mut ends: HashMap<TopicPartition, u64> = HashMap::new();
        for (index, batch) in request.batches.into_iter().enumerate() {
            let header = BatchHeader::check(&batch.batch).expect("a producer sends whole batches");
            let records: u64 = RecordIter::new(batch.batch.clone())
                .unwrap()
                .map(|record| record.unwrap().1.bytes() as u64)
                .sum();
            assert_eq!(batch.record_bytes, records, "the producer states what is in a batch");
            let partition =
                TopicPartition { topic: TopicName::new(&batch.topic).unwrap(), partition: batch.partition };
            if let Some(Fault::RefuseBatch(refused, kind)) = fault
                && index == refused
            {
                results.push(refusal(kind, "told to refuse"));
                continue;
            }
            let stamp = header.producer.expect("a producer stamps its batches");
            let known =
                state.sequences.entry((stamp.producer_id, stamp.epoch, partition.clone())).or_default();
            if let Some(before) = known.iter().find(|batch| batch.base_sequence == stamp.base_sequence) {
                assert_eq!(before.records, header.records, "a retry is the very batch");
                results.push(BatchResult { base_offset: before.base_offset, ..BatchResult::default() });
                continue;
            }
            let next = known.last().map_or(0, |last| last.base_sequence + last.records as i32);
            if stamp.base_sequence != next {
                results.push(refusal(ErrorKind::Retry, "a gap in the sequence"));
                continue;
            }
            let end = match ends.get(&partition) {
                Some(end) => *end,
                None => {
                    self.store.watermarks(std::slice::from_ref(&partition)).await.unwrap()[0].high_watermark
                }
            };
            let (base_sequence, records) = (stamp.base_sequence, header.records);
            known.push(SequencedBatch { base_sequence, records, base_offset: end });
            ends.insert(partition.clone(), end + u64::from(header.records));
            accepted.entry(partition).or_default().push(batch.batch);
            results.push(BatchResult { base_offset: end, ..BatchResult::default() });
        }
        if !accepted.is_empty() {
            let outcomes = self.commit(&mut state, accepted).await;
            assert!(outcomes.iter().all(|outcome| *outcome == RangeOutcome::Committed));
        }
        match fault {
            Some(Fault::DropResponse) => Err(Status::unavailable("the answer is lost")),
            _ => Ok(results),
        }
    }
}

fn refusal(kind: ErrorKind, message: &str) -> BatchResult {
    BatchResult { status: u32::from(kind.number()), message: message.to_owned(), base_offset: 0 }
}

struct Stub(Arc<Writer>);

#[tonic::async_trait]
impl Agent for Stub {
    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        // What has arrived is written also when the client goes away.
        let writer = self.0.clone();
        let request = request.into_inner();
        let results = tokio::spawn(async move { writer.write(request).await }).await;
        let results = results.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(ProduceResponse { results }))
    }
}

/// Polls until `records` have come; fails when nothing comes for 30 s.
pub async fn read(consumer: &mut Consumer, records: usize) -> Vec<ConsumedRecord> {
    let mut all = Vec::new();
    while all.len() < records {
        let polled = consumer.poll(Duration::from_secs(30)).await.unwrap();
        assert!(!polled.is_empty(), "stalled after {} of {records} records", all.len());
        all.extend(polled);
    }
    all
}

/// A record's value as a number, as `Log::write` and most tests write it.
pub fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// A record with a value.
pub fn record(value: impl Into<Bytes>) -> Record {
    Record { value: value.into(), ..Record::default() }
}
