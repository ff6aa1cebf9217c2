//! The one task of a producer: sends what is due, settles what is answered, finds holders and producer ids.

use crate::backoff::Backoff;
use crate::error::ClientError;
use crate::producer::agents::{self, Agents};
use crate::producer::batch::FailedBatch;
use crate::producer::lane::{Answer, Lane, Step};
use crate::producer::shared::Shared;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use streamhouse_core::{
    AsTyped, TopicName,
    limits::{REQUEST_BATCHES_MAX, REQUEST_BYTES_MAX},
};
use streamhouse_metadata::{MetadataError, PartitionInfo};
use streamhouse_proto::v1::{ProduceBatch, ProduceRequest};
use tokio::task::JoinSet;

/// First pause after a failure. It doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(5);
/// Longest pause: short against a lease term, so that a takeover is noticed soon.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How long one produce request may take before it is sent again. A retry stores nothing twice (invariant 4).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the metadata store may take to answer.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    /// Lanes that have batches, or had when last looked at.
    lanes: Vec<Arc<Lane>>,
    agents: Agents,
    /// Who holds each partition of a topic, as far as is known.
    holders: HashMap<TopicName, Vec<Option<Arc<str>>>>,
    /// Topics whose holders are being looked up, and the lanes that wait for it.
    lookups: HashMap<TopicName, Vec<Arc<Lane>>>,
    work: JoinSet<Event>,
    backoff: Backoff,
    /// When the last request went out.
    sent_ns: Option<u64>,
}

/// What a task that the dispatcher started has found out.
enum Event {
    Answered { address: Arc<str>, batches: Vec<(Arc<Lane>, usize)>, answers: Vec<Answer> },
    Holders { topic: TopicName, found: Result<Vec<PartitionInfo>, Arc<str>> },
    ProducerId { lane: Arc<Lane>, id: Result<u64, Arc<str>> },
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>, agents: Agents) -> Self {
        let seed = shared.producer_id ^ shared.clock.monotonic_ns();
        Self {
            shared,
            lanes: Vec::new(),
            agents,
            holders: HashMap::new(),
            lookups: HashMap::new(),
            work: JoinSet::new(),
            backoff: Backoff::new(PAUSE, PAUSE_MAX, seed),
            sent_ns: None,
        }
    }

    /// Runs until the producer is closed and every record has ended.
    pub(crate) async fn run(mut self) {
        loop {
            let next_ns = self.dispatch();
            if self.lanes.is_empty() && self.work.is_empty() && self.shared.topics().closed {
                // Closed, so nothing comes any more; but it may have come since the list was taken.
                self.lanes = self.shared.take_enlisted();
                if self.lanes.is_empty() {
                    return;
                }
                continue;
            }
            let shared = Arc::clone(&self.shared);
            let timer = async {
                match next_ns {
                    Some(next_ns) => tokio::time::sleep(shared.until(next_ns)).await,
                    None => std::future::pending().await,
                }
            };
            // Which of them goes first makes no difference: all are looked at below. So runs can be replayed.
            tokio::select! {
                biased;
                Some(event) = self.work.join_next() => self.handle(event.ok()),
                () = shared.wake.notified() => {}
                () = timer => {}
            }
            while let Some(event) = self.work.try_join_next() {
                self.handle(event.ok());
            }
        }
    }

    /// Looks at every lane once and sends what can be sent. Gives the time of the next look.
    fn dispatch(&mut self) -> Option<u64> {
        self.lanes.append(&mut self.shared.take_enlisted());
        let shared = Arc::clone(&self.shared);
        let now_ns = shared.clock.monotonic_ns();
        // Linger makes batches out of a stream. A record that comes after a pause waits for nobody.
        let linger_ns = shared.config.linger.as_nanos() as u64;
        let paused = self.sent_ns.is_none_or(|sent_ns| now_ns.saturating_sub(sent_ns) >= linger_ns);
        let hurry = shared.is_full() || paused;
        let mut next_ns = None;
        let mut ready: BTreeMap<Arc<str>, Vec<Arc<Lane>>> = BTreeMap::new();
        let lanes = std::mem::take(&mut self.lanes);
        for lane in lanes {
            let (step, failed) = lane.step(now_ns, hurry, &shared.config);
            self.fail(&lane, failed);
            let wake_ns = match step {
                Step::Idle => continue,
                Step::InFlight => None,
                Step::Wait { until_ns } => Some(until_ns),
                Step::AskId { deadline_ns } => {
                    self.ask_id(&lane);
                    Some(deadline_ns)
                }
                Step::Send { deadline_ns } => {
                    match self.holder(&lane) {
                        Some(address) => ready.entry(address).or_default().push(Arc::clone(&lane)),
                        None => self.ask_holder(&lane),
                    }
                    Some(deadline_ns)
                }
            };
            next_ns = next_ns.into_iter().chain(wake_ns).min();
            self.lanes.push(lane);
        }
        for (address, lanes) in ready {
            self.sent_ns = Some(now_ns);
            self.send(&address, lanes);
        }
        // Whoever was served first this time is not next time.
        if let 2.. = self.lanes.len() {
            self.lanes.rotate_left(1);
        }
        next_ns
    }

    /// Sends the lanes' batches to their agent, in as few requests as hold them.
    fn send(&mut self, address: &Arc<str>, lanes: Vec<Arc<Lane>>) {
        let agent = match self.agents.holder(address) {
            Ok(agent) => agent,
            Err(cause) => {
                for lane in lanes {
                    self.retry_later(&lane, lane.answered(Some(Arc::clone(&cause))));
                }
                return;
            }
        };
        let mut lanes = lanes.into_iter().peekable();
        while agent.in_flight < self.shared.config.requests_in_flight && lanes.peek().is_some() {
            let mut request = ProduceRequest::default();
            let mut batches = Vec::new();
            let mut room = REQUEST_BYTES_MAX;
            let mut deadline_ns = u64::MAX;
            while let Some(lane) = lanes.peek() {
                let taken = lane.take(room, REQUEST_BATCHES_MAX - request.batches.len());
                if taken.is_empty() && !batches.is_empty() {
                    break;
                }
                let Some(lane) = lanes.next() else { break };
                if taken.is_empty() {
                    continue;
                }
                deadline_ns = deadline_ns.min(lane.deadline_ns(&self.shared.config));
                batches.push((Arc::clone(&lane), taken.len()));
                for outgoing in taken {
                    room = room.saturating_sub(outgoing.bytes.len());
                    request.batches.push(ProduceBatch {
                        topic: lane.partition.topic.to_string(),
                        partition: lane.partition.partition,
                        batch: outgoing.bytes,
                        record_bytes: outgoing.record_bytes,
                    });
                }
            }
            if batches.is_empty() {
                return;
            }
            agent.in_flight += 1;
            let timeout = REQUEST_TIMEOUT.min(self.shared.until(deadline_ns));
            let (client, address) = (agent.client.clone(), Arc::clone(address));
            self.work.spawn(async move {
                let answers = agents::produce(client, &address, request, timeout).await;
                Event::Answered { address, batches, answers }
            });
        }
    }

    fn handle(&mut self, event: Option<Event>) {
        match event {
            // A task of ours does not panic, and is aborted only together with this one.
            None => {}
            Some(Event::Answered { address, batches, answers }) => self.answered(&address, batches, answers),
            Some(Event::Holders { topic, found }) => self.found_holders(topic, found),
            Some(Event::ProducerId { lane, id }) => match id {
                Ok(id) => {
                    lane.set_producer_id(id);
                    lane.answered(None);
                }
                Err(cause) => self.retry_later(&lane, lane.answered(Some(cause))),
            },
        }
    }

    fn answered(&mut self, address: &Arc<str>, batches: Vec<(Arc<Lane>, usize)>, answers: Vec<Answer>) {
        self.agents.answered(address);
        let mut answers = answers.into_iter();
        for (lane, count) in batches {
            let settled = lane.settle(answers.by_ref().take(count).collect());
            for (batch, offset) in settled.stored {
                self.shared.end(&lane, batch, Ok(offset));
            }
            self.fail(&lane, settled.failed);
            if let Some(attempt) = settled.again {
                self.forget_holder(&lane);
                self.retry_later(&lane, attempt);
            }
        }
    }

    fn fail(&self, lane: &Lane, failed: Vec<FailedBatch>) {
        for (batch, error) in failed {
            tracing::warn!(partition = %lane.partition, records = batch.records(), %error, "a batch failed");
            self.shared.end(lane, batch, Err(error));
        }
    }

    fn retry_later(&mut self, lane: &Lane, attempt: u32) {
        let pause_ns = self.backoff.pause(attempt).as_nanos() as u64;
        lane.pause(self.shared.clock.monotonic_ns().saturating_add(pause_ns));
    }

    fn holder(&self, lane: &Lane) -> Option<Arc<str>> {
        let holders = self.holders.get(&lane.partition.topic)?;
        holders.get(lane.partition.partition as usize)?.clone()
    }

    fn forget_holder(&mut self, lane: &Lane) {
        let holders = self.holders.get_mut(&lane.partition.topic);
        if let Some(holder) = holders.and_then(|all| all.get_mut(lane.partition.partition as usize)) {
            *holder = None;
        }
    }

    /// Looks up who holds the lane's partition; one lookup serves every lane of the topic.
    fn ask_holder(&mut self, lane: &Arc<Lane>) {
        lane.ask();
        let topic = lane.partition.topic.clone();
        let waiting = self.lookups.entry(topic.clone()).or_default();
        waiting.push(Arc::clone(lane));
        if waiting.len() > 1 {
            return;
        }
        let store = Arc::clone(&self.shared.store);
        self.work.spawn(async move {
            let found = in_time(store.partitions(&topic)).await;
            Event::Holders { topic, found }
        });
    }

    fn found_holders(&mut self, topic: TopicName, found: Result<Vec<PartitionInfo>, Arc<str>>) {
        let failure: Arc<str> = match found {
            Ok(partitions) => {
                let addresses = partitions.into_iter().map(|info| Some(info.holder?.address.into()));
                self.holders.insert(topic.clone(), addresses.collect());
                self.agents
                    .keep(&self.holders.values().flatten().flatten().map(|address| &**address).collect());
                "no agent holds the partition's lease; start one, or look at the log of the one that should"
                    .into()
            }
            Err(cause) => cause,
        };
        for lane in self.lookups.remove(&topic).unwrap_or_default() {
            if self.holder(&lane).is_some() {
                lane.answered(None);
            } else {
                let attempt = lane.answered(Some(Arc::clone(&failure)));
                self.retry_later(&lane, attempt);
            }
        }
    }

    fn ask_id(&mut self, lane: &Arc<Lane>) {
        lane.ask();
        let (lane, store) = (Arc::clone(lane), Arc::clone(&self.shared.store));
        self.work.spawn(async move {
            let id = in_time(store.new_producer_id()).await;
            Event::ProducerId { lane, id }
        });
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, MetadataError>>) -> Result<T, Arc<str>> {
    match tokio::time::timeout(METADATA_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string().into()),
        Err(_) => {
            Err(format!("the metadata store did not answer within {}", AsTyped(METADATA_TIMEOUT)).into())
        }
    }
}

/// Also when the runtime shuts down under it: no record is left without an end.
impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.shared.close();
        let lanes: Vec<_> = self.shared.topics().lanes().cloned().collect();
        for lane in lanes {
            for batch in lane.abandon() {
                let records = batch.records();
                tracing::error!(partition = %lane.partition, records, "records were lost: the runtime shut down");
                self.shared.end(&lane, batch, Err(ClientError::Closed));
            }
        }
    }
}
