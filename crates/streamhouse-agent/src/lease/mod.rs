//! Leases: takes the agent's fair share of them, renews them, hands over what is another's share, gives them back, and
//! says that the agent lives.
//!
//! - `plan`: what the lease table and the living agents ask for;
//! - `held`: what the agent holds;
//! - `identity`: that no other agent runs under its id.
//!
//! A lease changes hands by the holder's will, so that no producer waits for it to expire and nothing is refused that was
//! let in: the flusher takes no more records for the partition, writes what it has taken, and says when that is in the
//! log; then the lease is given back, and its next holder finds it free within a sweep.

mod held;
mod identity;
mod plan;

use crate::error::StartError;
use crate::flush::{Command, LeaseEvent};
use crate::readiness::{Leases, Readiness, Reason};
use held::HeldLeases;
use plan::Plan;
use std::{future::Future, sync::Arc, time::Duration};
use streamhouse_core::{AgentId, AsTyped, ErrorKind, TopicPartition};
use streamhouse_hooks::{Gauge, GaugeId, Instance};
use streamhouse_metadata::{AgentInfo, MetadataError, MetadataStore};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Leases are renewed this often in a term; no call to the metadata store may take longer than that.
const RENEWALS_PER_TERM: u32 = 3;
/// Leases taken in one transaction: bounds how long others wait for the metadata store.
const ACQUIRE_MAX: usize = 1000;

/// What the keeper works with.
pub(crate) struct Parts {
    pub(crate) agent: AgentId,
    /// `host:port` that producers are told.
    pub(crate) address: String,
    pub(crate) lease_term: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) sweep_interval: Duration,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) flusher: mpsc::Sender<Command>,
    pub(crate) events: mpsc::UnboundedReceiver<LeaseEvent>,
    pub(crate) wanted: Arc<Notify>,
    pub(crate) readiness: Readiness,
    /// Told which partitions the agent leases, by topic and number, whenever that changes.
    pub(crate) leased: watch::Sender<Arc<[TopicPartition]>>,
}

/// The task that owns the agent's leases.
pub(crate) struct LeaseKeeper {
    parts: Parts,
    held: HeldLeases,
    next_heartbeat: Instant,
    next_renewal: Instant,
    /// The lease table is to be looked at then, also when nothing in it is free.
    next_look: Instant,
    /// How many leases are taken in one transaction.
    acquire_max: usize,
    renewals: u64,
    losses: u64,
    fencings: u64,
    /// The metadata store's last error was told.
    failing: bool,
    gauges: Gauges,
}

/// Another agent has registered under this one's id, and this one has stopped.
#[derive(Debug, thiserror::Error)]
#[error(
    "another agent, at {address}, uses the id {agent} too, and has taken it over; give each agent an --agent-id of its own"
)]
pub(crate) struct IdTaken {
    agent: AgentId,
    address: String,
}

/// Why something that is due could not be done.
#[derive(Debug)]
enum Problem {
    /// It may pass.
    Metadata {
        message: String,
        /// It does not pass by itself, so that commits would meet it too.
        lasts: bool,
    },
    /// It does not.
    IdTaken(IdTaken),
}

impl From<MetadataError> for Problem {
    fn from(error: MetadataError) -> Problem {
        let lasts = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt);
        Problem::Metadata { message: error.to_string(), lasts }
    }
}

struct Gauges {
    partitions: Gauge,
    renewals: Gauge,
    losses: Gauge,
    fencings: Gauge,
    ready: Gauge,
}

impl LeaseKeeper {
    pub(crate) fn new(parts: Parts, instance: &Instance) -> LeaseKeeper {
        let now = Instant::now();
        let gauge = |id| instance.gauge(id, "", None);
        LeaseKeeper {
            held: HeldLeases::default(),
            next_heartbeat: now + parts.heartbeat_interval,
            next_renewal: now + parts.lease_term / RENEWALS_PER_TERM,
            next_look: now,
            acquire_max: ACQUIRE_MAX,
            renewals: 0,
            losses: 0,
            fencings: 0,
            failing: false,
            gauges: Gauges {
                partitions: gauge(GaugeId::AgentActivePartitions),
                renewals: gauge(GaugeId::AgentLeaseRenewals),
                losses: gauge(GaugeId::AgentLeaseLosses),
                fencings: gauge(GaugeId::AgentLeaseFencings),
                ready: gauge(GaugeId::AgentReady),
            },
            parts,
        }
    }

    /// Makes the agent known and takes what leases there are for it.
    ///
    /// # Errors
    ///
    /// When another agent lives under its id, or the metadata store fails.
    pub(crate) async fn start(&mut self) -> Result<(), StartError> {
        let Parts { agent, address, lease_term, metadata, .. } = &self.parts;
        identity::take_id(&**metadata, agent, address, *lease_term).await?;
        // A problem is told by the next sweep.
        let _ = self.sweep().await;
        Ok(())
    }

    /// Keeps the leases until `stop`, then gives them back.
    ///
    /// # Errors
    ///
    /// When another agent has taken this one's id; nothing is leased then.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), IdTaken> {
        let mut ticks = interval(self.parts.sweep_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = Arc::clone(&self.parts.wanted);
        loop {
            // Which of them goes first makes no difference: a sweep follows. So runs can be replayed.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                () = wanted.notified() => {}
                Some(event) = self.parts.events.recv() => self.take(event),
            }
            if let Err(taken) = self.sweep().await {
                self.give_way(&taken).await;
                return Err(taken);
            }
        }
        self.release().await;
        Ok(())
    }

    fn take(&mut self, event: LeaseEvent) {
        match event {
            LeaseEvent::Fenced(partition, epoch) => {
                self.fencings += 1;
                self.losses += 1;
                self.held.remove_epoch(&partition, epoch);
            }
            LeaseEvent::Drained(partition, epoch) => {
                self.held.remove_epoch(&partition, epoch);
                self.next_look = Instant::now();
            }
            LeaseEvent::Reset => {
                // What had expired by then is lost; the rest is given back.
                self.losses += self.held.reset(Instant::now()) as u64;
                self.next_look = Instant::now();
            }
        }
    }

    /// Does whatever is due, as far as it can be done, and publishes how the agent stands.
    async fn sweep(&mut self) -> Result<(), IdTaken> {
        while let Ok(event) = self.parts.events.try_recv() {
            self.take(event);
        }
        let result = self.keep().await;
        self.expire().await;
        let problem = match result {
            Ok(()) => None,
            Err(Problem::IdTaken(taken)) => return Err(taken),
            Err(Problem::Metadata { message, lasts }) => Some((message, lasts)),
        };
        match &problem {
            Some((problem, _)) if !self.failing => tracing::warn!(problem, "leases cannot be kept"),
            None if self.failing => tracing::info!("leases are kept again"),
            Some(_) | None => {}
        }
        self.failing = problem.is_some();
        self.publish(self.leases(problem));
        Ok(())
    }

    /// What is most urgent comes first: when the metadata store does not answer, each step takes all the time it may.
    async fn keep(&mut self) -> Result<(), Problem> {
        self.renew().await?;
        self.heartbeat().await?;
        self.balance().await
    }

    async fn renew(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        if now < self.next_renewal || self.held.is_empty() {
            return Ok(());
        }
        let Parts { agent, lease_term, metadata, .. } = &self.parts;
        let leases = self.held.all();
        let renewed = self.bounded(metadata.renew_leases(agent, &leases, *lease_term)).await?;
        let until = now + *lease_term;
        self.next_renewal = now + *lease_term / RENEWALS_PER_TERM;
        self.renewals += renewed.len() as u64;
        let lost = self.held.renewed(leases, renewed, until);
        self.tell_lost(lost).await;
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<(), Problem> {
        if Instant::now() < self.next_heartbeat {
            return Ok(());
        }
        let Parts { agent, address, metadata, .. } = &self.parts;
        let heartbeat = async {
            match metadata.heartbeat(agent).await {
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    metadata.register_agent(agent, address).await
                }
                result => result,
            }
        };
        self.bounded(heartbeat).await?;
        self.next_heartbeat = Instant::now() + self.parts.heartbeat_interval;
        Ok(())
    }

    /// Looks at the lease table when something in it is free, and now and then for agents that came or went; makes of it
    /// what this agent's share asks for.
    async fn balance(&mut self) -> Result<(), Problem> {
        let metadata = Arc::clone(&self.parts.metadata);
        let now = Instant::now();
        if now < self.next_look && !self.bounded(metadata.any_lease_free()).await? {
            return Ok(());
        }
        let agents = self.agents().await?;
        let table = self.bounded(metadata.lease_table()).await?;
        let agent = self.parts.agent.clone();
        let plan = Plan::new(&agent, &self.held, &table, &agents, self.parts.lease_term);
        plan.lost.iter().for_each(|partition| self.held.remove(partition));
        self.tell_lost(plan.lost).await;
        self.bounded(metadata.release_leases(&agent, &plan.strays)).await?;
        self.hand_over(plan.hand_over).await;
        self.acquire(&plan.take).await?;
        self.next_look = now + self.parts.heartbeat_interval;
        Ok(())
    }

    /// The registered agents, of which this is one.
    async fn agents(&self) -> Result<Vec<AgentInfo>, Problem> {
        let Parts { agent, address, metadata, .. } = &self.parts;
        let agents = self.bounded(metadata.agents()).await?;
        match identity::taken_by(&agents, agent, address) {
            Some(other) => Err(Problem::IdTaken(IdTaken { agent: agent.clone(), address: other.to_owned() })),
            None => Ok(agents),
        }
    }

    /// The flusher stops taking records for these partitions, and says when what it has taken is in the log.
    async fn hand_over(&mut self, partitions: Vec<TopicPartition>) {
        let leaving = self.held.leave(partitions, Instant::now());
        if !leaving.is_empty() {
            tracing::info!(partitions = leaving.len(), "handing leases over to other agents");
            let _ = self.parts.flusher.send(Command::HandOver(leaving)).await;
        }
    }

    async fn acquire(&mut self, wanted: &[TopicPartition]) -> Result<(), Problem> {
        for wanted in wanted.chunks(self.acquire_max) {
            let Parts { agent, lease_term, metadata, .. } = &self.parts;
            let until = Instant::now() + *lease_term;
            let granted = self.bounded(metadata.acquire_leases(agent, *lease_term, wanted)).await;
            // What takes too long because the partitions have many producers is had in smaller parts.
            self.acquire_max = match granted {
                Ok(_) => ACQUIRE_MAX.min(self.acquire_max * 2),
                Err(_) => (self.acquire_max / 2).max(1),
            };
            let leases = granted?;
            if leases.is_empty() {
                continue;
            }
            tracing::info!(partitions = leases.len(), "leases granted");
            for lease in &leases {
                tracing::debug!(partition = %lease.partition, epoch = lease.epoch, "lease granted");
                self.held.insert(lease.partition.clone(), lease.epoch, until);
            }
            // Without a flusher the agent is ending.
            let _ = self.parts.flusher.send(Command::Granted(leases)).await;
        }
        Ok(())
    }

    /// Lets go of what could not be renewed in time (the database has too), and of what could not be handed over.
    async fn expire(&mut self) {
        let now = Instant::now();
        let expired = self.held.expire(now, now.checked_sub(self.parts.lease_term));
        if !expired.is_empty() {
            self.next_look = now;
        }
        self.tell_lost(expired).await;
    }

    async fn tell_lost(&mut self, lost: Vec<TopicPartition>) {
        if !lost.is_empty() {
            self.losses += lost.len() as u64;
            tracing::warn!(
                partitions = lost.len(),
                "leases were lost; they are taken again when they are free"
            );
            let _ = self.parts.flusher.send(Command::Lost(lost)).await;
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, MetadataError>>) -> Result<T, Problem> {
        let limit = self.parts.lease_term / RENEWALS_PER_TERM;
        match timeout(limit, call).await {
            Ok(result) => result.map_err(Problem::from),
            Err(_) => {
                let message = format!("the metadata store did not answer within {}", AsTyped(limit));
                Err(Problem::Metadata { message, lasts: false })
            }
        }
    }

    /// How the agent stands when this is the last sweep's problem, and whether it lasts. Leases of use are those that
    /// records can be committed under.
    fn leases(&self, problem: Option<(String, bool)>) -> Leases {
        match (self.held.until(), problem) {
            (None, None) => Leases::None(Reason::NothingToLease),
            (None, Some((message, _))) | (Some(_), Some((message, true))) => {
                Leases::None(Reason::Metadata(message))
            }
            (Some(until), _) => Leases::Held { partitions: self.held.len(), until },
        }
    }

    fn publish(&self, leases: Leases) {
        self.parts.readiness.leases(leases);
        self.gauges.partitions.set_now(self.held.len() as u64);
        self.gauges.renewals.set_now(self.renewals);
        self.gauges.losses.set_now(self.losses);
        self.gauges.fencings.set_now(self.fencings);
        self.gauges.ready.set_now(self.parts.readiness.check(Instant::now()).is_ok().into());
        let mut staying: Vec<_> = self.held.staying().cloned().collect();
        staying.sort_unstable();
        self.parts.leased.send_if_modified(|leased| {
            let changed = **leased != *staying;
            if changed {
                *leased = staying.into();
            }
            changed
        });
    }

    /// Writes nothing more under this id, and leaves alone what is the other's.
    async fn give_way(mut self, taken: &IdTaken) {
        let leases = self.held.all();
        self.held.clear();
        self.publish(Leases::None(Reason::IdTaken(taken.to_string())));
        self.tell_lost(leases.iter().map(|(partition, _)| partition.clone()).collect()).await;
        let Parts { agent, metadata, .. } = &self.parts;
        // What cannot be given back expires.
        let _ = self.bounded(metadata.release_leases(agent, &leases)).await;
    }

    /// Gives the leases back and forgets the agent, so that another takes over at once.
    async fn release(mut self) {
        let leases = self.held.all();
        self.held.clear();
        self.publish(Leases::None(Reason::ShuttingDown));
        let Parts { agent, metadata, .. } = &self.parts;
        let released = async {
            self.bounded(metadata.release_leases(agent, &leases)).await?;
            // Not when the id is another's by now.
            self.agents().await?;
            self.bounded(metadata.deregister_agent(agent)).await
        };
        match released.await {
            Ok(()) => {}
            Err(Problem::IdTaken(taken)) => tracing::warn!("{taken}"),
            Err(Problem::Metadata { message, .. }) => tracing::warn!(
                problem = message,
                "the leases could not be given back; they expire within a lease term"
            ),
        }
    }
}
