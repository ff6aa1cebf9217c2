//! Leases: takes them, renews them, gives them back, and says that the agent lives.

use crate::flush::{Command, LeaseEvent};
use crate::readiness::{Leases, Readiness, Reason};
use std::collections::{HashMap, HashSet};
use std::{future::Future, sync::Arc, time::Duration};
use streamhouse_core::{AgentId, AsTyped, ErrorKind, TopicPartition};
use streamhouse_hooks::{Gauge, GaugeId, Instance};
use streamhouse_metadata::{MetadataError, MetadataStore};
use tokio::sync::{Notify, mpsc};
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
}

/// The task that owns the agent's leases.
pub(crate) struct LeaseKeeper {
    parts: Parts,
    held: HashMap<TopicPartition, Held>,
    /// The leases must be given back before any is taken.
    must_release: bool,
    next_heartbeat: Instant,
    next_renewal: Instant,
    renewals: u64,
    /// The metadata store's last error was told.
    failing: bool,
    gauges: Gauges,
}

/// Why something that is due could not be done.
struct Problem {
    message: String,
    /// It does not pass by itself, so that commits would meet it too.
    lasts: bool,
}

impl From<MetadataError> for Problem {
    fn from(error: MetadataError) -> Problem {
        let lasts = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt);
        Problem { message: error.to_string(), lasts }
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    /// Until when the lease holds at least: counted from before it was asked for.
    until: Instant,
}

struct Gauges {
    partitions: Gauge,
    renewals: Gauge,
    ready: Gauge,
}

impl LeaseKeeper {
    pub(crate) fn new(parts: Parts, instance: &Instance) -> LeaseKeeper {
        let now = Instant::now();
        let gauge = |id| instance.gauge(id, "", None);
        LeaseKeeper {
            held: HashMap::new(),
            must_release: false,
            next_heartbeat: now + parts.heartbeat_interval,
            next_renewal: now + parts.lease_term / RENEWALS_PER_TERM,
            renewals: 0,
            failing: false,
            gauges: Gauges {
                partitions: gauge(GaugeId::AgentActivePartitions),
                renewals: gauge(GaugeId::AgentLeaseRenewals),
                ready: gauge(GaugeId::AgentReady),
            },
            parts,
        }
    }

    /// Makes the agent known and takes what leases there are.
    pub(crate) async fn start(&mut self) -> Result<(), MetadataError> {
        self.parts.metadata.register_agent(&self.parts.agent, &self.parts.address).await?;
        self.sweep().await;
        Ok(())
    }

    /// Keeps the leases until `stop`, then gives them back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(self.parts.sweep_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = Arc::clone(&self.parts.wanted);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                () = wanted.notified() => {}
                Some(event) = self.parts.events.recv() => self.take(event),
            }
            self.sweep().await;
        }
        self.release().await;
    }

    fn take(&mut self, event: LeaseEvent) {
        match event {
            LeaseEvent::Fenced(partition, epoch) => {
                if self.held.get(&partition).is_some_and(|held| held.epoch == epoch) {
                    self.held.remove(&partition);
                }
            }
            LeaseEvent::Reset => {
                self.held.clear();
                self.must_release = true;
            }
        }
    }

    /// Does whatever is due, each as far as it can be done, and publishes how the agent stands.
    async fn sweep(&mut self) {
        while let Ok(event) = self.parts.events.try_recv() {
            self.take(event);
        }
        let steps = [self.heartbeat().await, self.renew().await, self.acquire().await];
        let problem = steps.into_iter().find_map(Result::err);
        self.expire().await;
        match &problem {
            Some(problem) if !self.failing => {
                tracing::warn!(problem = problem.message, "leases cannot be kept")
            }
            None if self.failing => tracing::info!("leases are kept again"),
            Some(_) | None => {}
        }
        self.failing = problem.is_some();
        self.publish(self.leases(problem));
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

    async fn renew(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        if now < self.next_renewal || self.held.is_empty() {
            return Ok(());
        }
        let Parts { agent, lease_term, metadata, .. } = &self.parts;
        let leases: Vec<_> =
            self.held.iter().map(|(partition, held)| (partition.clone(), held.epoch)).collect();
        let renewed = self.bounded(metadata.renew_leases(agent, &leases, *lease_term)).await?;
        let until = now + *lease_term;
        self.next_renewal = now + *lease_term / RENEWALS_PER_TERM;
        self.renewals += renewed.len() as u64;
        let renewed: HashSet<_> = renewed.into_iter().collect();
        self.held.retain(|partition, _| renewed.contains(partition));
        self.held.values_mut().for_each(|held| held.until = until);
        let lost = leases.into_iter().map(|(partition, _)| partition);
        self.tell_lost(lost.filter(|partition| !renewed.contains(partition)).collect()).await;
        Ok(())
    }

    async fn acquire(&mut self) -> Result<(), Problem> {
        let Parts { agent, metadata, .. } = &self.parts;
        if self.must_release {
            self.bounded(metadata.release_all_leases(agent)).await?;
        }
        self.must_release = false;
        if !self.bounded(metadata.any_lease_free()).await? {
            return Ok(());
        }
        let table = self.bounded(metadata.lease_table()).await?;
        let free: Vec<_> =
            table.into_iter().filter(|row| row.holder.is_none()).map(|row| row.partition).collect();
        for wanted in free.chunks(ACQUIRE_MAX) {
            let Parts { agent, lease_term, metadata, .. } = &self.parts;
            let until = Instant::now() + *lease_term;
            let leases = self.bounded(metadata.acquire_leases(agent, *lease_term, wanted)).await?;
            tracing::info!(partitions = leases.len(), "leases granted");
            for lease in &leases {
                tracing::debug!(partition = %lease.partition, epoch = lease.epoch, "lease granted");
                self.held.insert(lease.partition.clone(), Held { epoch: lease.epoch, until });
            }
            // Without a flusher the agent is ending.
            let _ = self.parts.flusher.send(Command::Granted(leases)).await;
        }
        Ok(())
    }

    /// Lets go of what could not be renewed in time; the database has too.
    async fn expire(&mut self) {
        let now = Instant::now();
        let expired = self.held.extract_if(|_, held| held.until <= now);
        let expired: Vec<_> = expired.map(|(partition, _)| partition).collect();
        self.tell_lost(expired).await;
    }

    async fn tell_lost(&self, lost: Vec<TopicPartition>) {
        if !lost.is_empty() {
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
                Err(Problem { message, lasts: false })
            }
        }
    }

    /// How the agent stands when this is the last sweep's problem. Leases of use are those that records can be committed
    /// under.
    fn leases(&self, problem: Option<Problem>) -> Leases {
        let until = self.held.values().map(|held| held.until).max();
        match (until, problem) {
            (None, None) => Leases::None(Reason::NothingToLease),
            (None, Some(problem)) => Leases::None(Reason::Metadata(problem.message)),
            (Some(_), Some(problem)) if problem.lasts => Leases::None(Reason::Metadata(problem.message)),
            (Some(until), _) => Leases::Held { partitions: self.held.len(), until },
        }
    }

    fn publish(&self, leases: Leases) {
        self.parts.readiness.leases(leases);
        self.gauges.partitions.set_now(self.held.len() as u64);
        self.gauges.renewals.set_now(self.renewals);
        self.gauges.ready.set_now(self.parts.readiness.check(Instant::now()).is_ok().into());
    }

    /// Gives the leases back and forgets the agent, so that another takes over at once.
    async fn release(mut self) {
        self.held.clear();
        self.publish(Leases::None(Reason::ShuttingDown));
        let Parts { agent, metadata, .. } = &self.parts;
        let release = async {
            metadata.release_all_leases(agent).await?;
            metadata.deregister_agent(agent).await
        };
        if let Err(Problem { message, .. }) = self.bounded(release).await {
            tracing::warn!(
                problem = message,
                "the leases could not be given back; they expire within a lease term"
            );
        }
    }
}
