//! Batches into segments, segments into the log.
//!
//! One task, the [`Flusher`], owns every partition's state, so nothing here takes a lock. It works in flushes: an idle agent
//! flushes what arrives at once; what arrives while a flush is under way waits for the next, so that a busy agent stores
//! few, large segments (one PUT and one transaction, however many partitions).
//!
//! A flush has two steps, and each step has at most one flush in it: while one is committed the next is stored. Commits
//! are in order or not at all: a flush is committed only when the outcome of the one before is known, and a partition
//! whose range failed takes its range out of the later flush, for those offsets follow what is not there. Those batches
//! and the waiting ones are answered with the error and come again from the producer, in its order.
//!
//! What fails, and what becomes of the partition's offsets:
//!
//! - the segment cannot be stored, or the commit is refused: nothing happened, the offsets are used again;
//! - the range is fenced: the lease is lost; the next grant says where the partition stands;
//! - the lease is handed over: what waits is flushed, nothing more is taken, and the lease is given back when the outcome of
//!   the last commit is known;
//! - the outcome stays unknown for a lease term: every lease is given back and granted anew with a raised epoch, so that
//!   a late commit is fenced, or seen before an offset is used again.

mod commit;
mod early;
mod flight;
mod hand_over;
mod placed;
mod steps;
mod window;
mod writer;

pub(crate) use steps::new_segment_id;
pub(crate) use window::SequenceError;

use crate::append::Append;
use crate::error::WriteError;
use crate::readiness::Readiness;
use commit::Commit;
use early::EarlyBatches;
use flight::{Flight, FlightRange};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::{sync::Arc, time::Duration};
use steps::{Step, done};
use streamhouse_core::{AgentId, TopicPartition};
use streamhouse_hooks::{Instance, Scope};
use streamhouse_metadata::{Lease, MetadataStore};
use streamhouse_storage::SegmentStore;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use writer::{Admitted, PartitionWriter};

/// Commands taken at once, before the flushes are looked after again.
const COMMANDS_AT_ONCE: usize = 256;

/// What the flusher is told.
pub(crate) enum Command {
    /// The batches of a request.
    Append(Vec<Append>),
    /// Leases that were granted.
    Granted(Vec<Lease>),
    /// Leases that are gone.
    Lost(Vec<TopicPartition>),
    /// Leases that go to other agents: take nothing new for them, write what waits, then say that they are drained.
    HandOver(Vec<TopicPartition>),
    /// Write what waits, take nothing new, then end.
    Drain,
}

/// What the lease keeper is told.
#[derive(Debug)]
pub(crate) enum LeaseEvent {
    /// The lease of this epoch was refused at a commit.
    Fenced(TopicPartition, u64),
    /// Of what was written under the lease of this epoch everything is in the log, or surely is not and was answered;
    /// nothing more will be written.
    Drained(TopicPartition, u64),
    /// Nothing that was written under any lease is certain: give all back and take them anew.
    Reset,
}

/// What the flusher works with.
pub(crate) struct Tools {
    pub(crate) agent: AgentId,
    /// How long a flush may take, from the first byte stored to its commit: at most a lease term.
    pub(crate) flush_time: Duration,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) segments: SegmentStore,
    pub(crate) instance: Instance,
    pub(crate) readiness: Readiness,
}

/// The task.
pub(crate) struct Flusher {
    tools: Tools,
    scope: Scope,
    commands: mpsc::Receiver<Command>,
    leases: mpsc::UnboundedSender<LeaseEvent>,
    writers: HashMap<TopicPartition, PartitionWriter>,
    next_writer: u64,
    /// Partitions with waiting batches, in the order in which they are served; some may have none any more.
    ready: VecDeque<TopicPartition>,
    early: EarlyBatches,
    /// Partitions that are handed over and not drained yet.
    leaving: BTreeSet<TopicPartition>,
    storing: Option<Step<Result<(), WriteError>>>,
    /// Waits for the commit before it.
    stored: Option<Flight>,
    committing: Option<Step<Commit>>,
    /// The last flush failed, and that was told.
    failing: bool,
    draining: bool,
}

impl Flusher {
    pub(crate) fn new(
        tools: Tools,
        commands: mpsc::Receiver<Command>,
        leases: mpsc::UnboundedSender<LeaseEvent>,
    ) -> Flusher {
        Flusher {
            scope: tools.instance.scope("", None),
            tools,
            commands,
            leases,
            writers: HashMap::new(),
            next_writer: 0,
            ready: VecDeque::new(),
            early: EarlyBatches::default(),
            leaving: BTreeSet::new(),
            storing: None,
            stored: None,
            committing: None,
            failing: false,
            draining: false,
        }
    }

    /// Works until it is told to drain, or nobody can tell it anything any more, and everything is answered.
    pub(crate) async fn run(mut self) {
        let mut taken = Vec::with_capacity(COMMANDS_AT_ONCE);
        loop {
            self.start_commit();
            self.start_store();
            self.tell_drained();
            if self.draining && self.is_idle() {
                return;
            }
            let expiry = self.early.expiry();
            tokio::select! {
                biased;
                outcome = done(&mut self.committing) => self.committed(outcome),
                stored = done(&mut self.storing) => self.was_stored(stored),
                count = self.commands.recv_many(&mut taken, COMMANDS_AT_ONCE), if !self.draining => {
                    if count == 0 {
                        self.drain();
                    }
                    taken.drain(..).for_each(|command| self.obey(command));
                }
                () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                    self.early.expire(Instant::now(), &mut self.writers);
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.storing.is_none() && self.stored.is_none() && self.committing.is_none()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Append(appends) => appends.into_iter().for_each(|append| self.append(append)),
            Command::Granted(leases) => leases.iter().for_each(|lease| self.grant(lease)),
            Command::Lost(partitions) => {
                self.close(partitions, |partition| WriteError::LeaseLost(partition.clone()))
            }
            Command::HandOver(partitions) => self.hand_over(partitions),
            Command::Drain => self.drain(),
        }
    }

    fn append(&mut self, Append { partition, batch }: Append) {
        if self.draining {
            return batch.waiter.refuse(WriteError::ShuttingDown);
        }
        let Some(writer) = self.writers.get_mut(&partition) else {
            return batch.waiter.refuse(WriteError::NotLeased(partition));
        };
        let now = Instant::now();
        match writer.admit(batch, now) {
            Admitted::Waits if writer.queue() => self.ready.push_back(partition),
            Admitted::Waits | Admitted::Settled => {}
            Admitted::Early(key) => self.early.push(partition, key, now),
        }
    }

    fn grant(&mut self, lease: &Lease) {
        let TopicPartition { topic, partition } = &lease.partition;
        self.close([lease.partition.clone()], |partition| WriteError::LeaseLost(partition.clone()));
        let scope = self.tools.instance.scope(topic.as_str(), Some(*partition));
        self.next_writer += 1;
        let writer = PartitionWriter::new(self.next_writer, lease, scope);
        self.writers.insert(lease.partition.clone(), writer);
    }

    fn drain(&mut self) {
        self.draining = true;
        for partition in self.partitions() {
            if let Some(writer) = self.writers.get_mut(&partition) {
                writer.fail_early(&WriteError::ShuttingDown);
            }
        }
    }

    /// Every partition with a writer, in order, so that equal runs answer in equal order.
    fn partitions(&self) -> Vec<TopicPartition> {
        let mut partitions: Vec<_> = self.writers.keys().cloned().collect();
        partitions.sort();
        partitions
    }

    /// Ends the writers of partitions, and answers everything of theirs that is not being committed.
    fn close(
        &mut self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        reason: impl Fn(&TopicPartition) -> WriteError,
    ) {
        let closed: Vec<_> = partitions
            .into_iter()
            .filter_map(|partition| self.writers.remove(&partition).map(|writer| (partition, writer)))
            .collect();
        self.withdraw(&closed.iter().map(|(_, writer)| writer.id).collect(), &reason);
        for (partition, mut writer) in closed {
            writer.fail_from(0, &reason(&partition));
        }
    }

    /// Answers what writers have in the flush after the one that is being committed: it will not be committed.
    fn withdraw(&mut self, writers: &HashSet<u64>, reason: impl Fn(&TopicPartition) -> WriteError) {
        let storing = self.storing.as_mut().map(|step| &mut step.flight);
        for flight in storing.into_iter().chain(&mut self.stored) {
            let withdrawn = flight.ranges.extract_if(.., |range| writers.contains(&range.batches.writer));
            withdrawn.for_each(|range| range.batches.fail(&reason(&range.layout.partition)));
        }
    }

    /// Ranges were surely not committed: their offsets are next again, and what comes after them fails with them.
    fn roll_back(&mut self, ranges: Vec<FlightRange>, error: &WriteError) {
        let writers = ranges.iter().map(|range| range.batches.writer).collect();
        let rolled_back: Vec<_> = ranges
            .into_iter()
            .map(|FlightRange { batches, layout }| {
                let place = (layout.partition, batches.writer, batches.base_offset);
                batches.fail(error);
                place
            })
            .collect();
        self.withdraw(&writers, |_| error.clone());
        for (partition, id, base_offset) in rolled_back {
            if let Some(writer) = self.writers.get_mut(&partition).filter(|writer| writer.id == id) {
                writer.fail_from(base_offset, error);
            }
        }
    }
}
