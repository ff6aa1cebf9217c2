//! The one task of a producer: sends what is due, settles what is answered, finds holders and producer ids.

use crate::backoff::Backoff;
use crate::error::ClientError;
use crate::producer::agents::{self, Agents, Reply};
use crate::producer::batch::FailedBatch;
use crate::producer::holders::{Holders, NotTold, in_time};
use crate::producer::lane::{Again, Lane, Step};
use crate::producer::shared::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_core::{
    ErrorKind, TopicName, TopicPartition,
    limits::{REQUEST_BATCHES_MAX, REQUEST_BYTES_MAX},
};
use streamhouse_hooks::TraceContext;
use streamhouse_metadata::{ClientStore, PartitionInfo};
use streamhouse_proto::v1::{ProduceBatch, ProduceRequest};
use tokio::task::JoinSet;

/// First pause after a failure. It doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(5);
/// Longest pause: short against a lease term, so that a takeover is noticed soon.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How long one produce request may take before it is sent again, unless the delivery timeout is not even twice as long. A
/// retry stores nothing twice (invariant 4).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent may take to answer before the metadata store is asked, again and again, whether the lease has moved
/// on. An agent that hangs keeps its connections.
const MOVED_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    /// Lanes that have batches, or had when last looked at.
    lanes: Vec<Arc<Lane>>,
    agents: Agents,
    holders: Holders,
    work: JoinSet<Event>,
    backoff: Backoff,
    /// When the last request went out.
    sent_ns: Option<u64>,
}

/// What a task that the dispatcher started has found out.
enum Event {
    Answered { address: Arc<str>, batches: Vec<(Arc<Lane>, usize)>, reply: Reply },
    Holders { topic: TopicName, found: Result<Vec<PartitionInfo>, NotTold> },
    ProducerId { lane: Arc<Lane>, id: Result<u64, NotTold> },
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>, agents: Agents) -> Self {
        let seed = shared.producer_id ^ shared.clock.monotonic_ns();
        Self {
            shared,
            lanes: Vec::new(),
            agents,
            holders: Holders::default(),
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
                Step::Send { deadline_ns } => match self.holders.address(&lane.partition) {
                    Some(address) => match self.agents.not_before_ns(address) {
                        not_before_ns if not_before_ns > now_ns => Some(not_before_ns.min(deadline_ns)),
                        _ => {
                            ready.entry(Arc::clone(address)).or_default().push(Arc::clone(&lane));
                            Some(deadline_ns)
                        }
                    },
                    None => {
                        self.holders.wait(&lane);
                        Some(deadline_ns)
                    }
                },
            };
            next_ns = next_ns.into_iter().chain(wake_ns).min();
            self.lanes.push(lane);
        }
        for (address, lanes) in ready {
            self.sent_ns = Some(now_ns);
            self.send(&address, lanes);
        }
        let lookup_ns = self.look_up(now_ns);
        next_ns = next_ns.into_iter().chain(lookup_ns).min();
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
                    self.fail(&lane, lane.refuse(ErrorKind::Invalid, &cause));
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
            let mut trace: Option<TraceContext> = None;
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
                    // One header serves the request: that of its first batch.
                    let of_request = trace.get_or_insert(outgoing.trace);
                    let is_same = of_request.trace_id() == outgoing.trace.trace_id();
                    room = room.saturating_sub(outgoing.bytes.len());
                    request.batches.push(ProduceBatch {
                        topic: lane.partition.topic.to_string(),
                        partition: lane.partition.partition,
                        batch: outgoing.bytes,
                        record_bytes: outgoing.record_bytes,
                        traceparent: if is_same { String::new() } else { outgoing.trace.to_string() },
                    });
                }
            }
            let Some(trace) = trace else { return };
            agent.in_flight += 1;
            let longest = REQUEST_TIMEOUT.min(self.shared.config.delivery_timeout / 2);
            let timeout = longest.min(self.shared.until(deadline_ns));
            let (client, address) = (agent.client.clone(), Arc::clone(address));
            let store = Arc::clone(&self.shared.store);
            self.work.spawn(async move {
                let moved = moved(&*store, &address, batches.first().map(|(lane, _)| &lane.partition));
                let sent = agents::produce(client, &address, request, timeout, moved);
                let reply = trace.child().of(sent).await;
                Event::Answered { address, batches, reply }
            });
        }
    }

    fn handle(&mut self, event: Option<Event>) {
        match event {
            // A task of ours does not panic, and is aborted only together with this one.
            None => {}
            Some(Event::Answered { address, batches, reply }) => self.answered(&address, batches, reply),
            Some(Event::Holders { topic, found }) => self.found_holders(&topic, found),
            Some(Event::ProducerId { lane, id }) => match id {
                Ok(id) => {
                    lane.set_producer_id(id);
                    lane.answered(None);
                }
                Err(NotTold { kind: ErrorKind::Invalid, cause }) => {
                    self.fail(&lane, lane.refuse(ErrorKind::Invalid, &cause));
                }
                Err(NotTold { cause, .. }) => self.retry_later(&lane, lane.answered(Some(cause))),
            },
        }
    }

    fn answered(&mut self, address: &Arc<str>, batches: Vec<(Arc<Lane>, usize)>, reply: Reply) {
        let Reply { answers, reached } = reply;
        let now_ns = self.shared.clock.monotonic_ns();
        self.agents.answered(address, reached, now_ns, &mut self.backoff);
        let mut answers = answers.into_iter();
        for (lane, count) in batches {
            let settled = lane.settle(answers.by_ref().take(count).collect());
            for (batch, offset) in settled.stored {
                self.shared.end(&lane, batch, Ok(offset));
            }
            self.fail(&lane, settled.failed);
            let Some(Again { attempt, moved }) = settled.again else { continue };
            self.holders.forget(&lane.partition);
            // An agent that does not answer is left alone, not the lane: another may hold the partition now. And who says
            // at once that another does is believed at once, the first time.
            if reached && !(moved && attempt == 1) {
                self.retry_later(&lane, attempt);
            }
        }
    }

    fn fail(&self, lane: &Lane, failed: Vec<FailedBatch>) {
        for (batch, error) in failed {
            let trace = batch.trace.span();
            tracing::warn!(parent: &trace, partition = %lane.partition, records = batch.records(), %error, "a batch failed");
            self.shared.end(lane, batch, Err(error));
        }
    }

    fn retry_later(&mut self, lane: &Lane, attempt: u32) {
        let pause_ns = self.backoff.pause(attempt).as_nanos() as u64;
        lane.pause(self.shared.clock.monotonic_ns().saturating_add(pause_ns));
    }

    /// Starts the lookups that are due; gives the time of the next.
    fn look_up(&mut self, now_ns: u64) -> Option<u64> {
        let (topics, next_ns) = self.holders.due(now_ns);
        for topic in topics {
            let store = Arc::clone(&self.shared.store);
            self.work.spawn(async move {
                let found = in_time(store.partitions(&topic)).await;
                Event::Holders { topic, found }
            });
        }
        next_ns
    }

    fn found_holders(&mut self, topic: &TopicName, found: Result<Vec<PartitionInfo>, NotTold>) {
        let now_ns = self.shared.clock.monotonic_ns();
        for (lane, NotTold { kind, cause }) in self.holders.found(topic, found, now_ns, &mut self.backoff) {
            self.fail(&lane, lane.refuse(kind, &cause));
        }
        self.agents.keep(&self.holders.addresses());
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

/// Ends when the partition of a request that has waited for a while is leased at another address; the sentence says where.
async fn moved(store: &dyn ClientStore, address: &str, partition: Option<&TopicPartition>) -> Arc<str> {
    let Some(partition) = partition else { return std::future::pending().await };
    loop {
        tokio::time::sleep(MOVED_AFTER).await;
        let Ok(infos) = in_time(store.partitions(&partition.topic)).await else { continue };
        let holder = infos.into_iter().nth(partition.partition as usize).and_then(|info| info.holder);
        if let Some(holder) = holder.filter(|holder| holder.address != address) {
            let (agent, to) = (holder.agent, holder.address);
            return format!("the agent at {address} did not answer, and {agent} at {to} has its lease now")
                .into();
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
                let trace = batch.trace.span();
                tracing::error!(parent: &trace, partition = %lane.partition, records, "records were lost: the runtime shut down");
                self.shared.end(&lane, batch, Err(ClientError::Closed));
            }
        }
    }
}
