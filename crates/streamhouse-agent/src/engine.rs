//! What an agent does, without its servers: it keeps leases and writes what producers send.
//!
//! [`Agent`](crate::Agent) puts servers in front of it. A simulation puts itself there, and drives many engines on a clock
//! of its own.

use crate::config::Config;
use crate::error::StartError;
use crate::flush::{Command, Flusher, Tools};
use crate::grpc::Service;
use crate::lags::Lags;
use crate::lease::{LeaseKeeper, Parts};
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::trial::{self, Trials};
use crate::unflushed::Unflushed;
use crate::upkeep::Upkeeper;
use futures::future::{BoxFuture, FutureExt};
use object_store::ObjectStore;
use std::{sync::Arc, time::Duration};
use streamhouse_hooks::{Instance, Role};
use streamhouse_metadata::MetadataStore;
use streamhouse_proto::v1::{ProduceRequest, ProduceResponse, agent_server::Agent as _};
use streamhouse_storage::SegmentStore;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

/// The longest that a flush may take, whatever the lease term: a tenth of the default grace time, so that an agent with a
/// longer term commits nothing that another has removed.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(60);

/// Commands that wait for the flusher. Batches in them are bounded by the unflushed bytes.
const COMMANDS_MAX: usize = 1024;

/// An agent without its servers.
pub struct Engine {
    pub(crate) instance: Instance,
    pub(crate) service: Arc<Service>,
    readiness: Readiness,
    flusher: mpsc::Sender<Command>,
    stop_leases: CancellationToken,
}

/// What is seen of an engine from outside, also while it starts.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Metrics,
}

impl Seen {
    /// What there is to see of an engine that has not started.
    pub(crate) fn new() -> Seen {
        Seen { readiness: Readiness::new(), metrics: Metrics::new() }
    }
}

/// What an engine does by and by: nothing of it happens unless these futures are polled, each on its own or all together.
/// Dropped they end as if the agent were killed.
pub struct Work {
    /// Writes segments and commits them, until [`Engine::drain`].
    pub flushes: BoxFuture<'static, ()>,
    /// Keeps leases, until [`Engine::release`].
    ///
    /// # Errors
    ///
    /// When another agent has taken this one's id; the engine writes nothing any more.
    pub leases: BoxFuture<'static, Result<(), String>>,
    /// Finds out, for ever, whether stores that failed can be written again.
    pub trials: BoxFuture<'static, ()>,
    /// Removes, for ever, what the log does not need any more, as long as this agent has that duty.
    pub upkeep: BoxFuture<'static, ()>,
    /// Publishes, for ever, how far behind groups are on the partitions that the agent leases.
    pub lags: BoxFuture<'static, ()>,
}

impl Engine {
    /// Starts an agent that producers reach at `address`, a `host:port`. When it returns, it has taken what leases it
    /// could; commits need its [`Work`] to be polled.
    ///
    /// # Errors
    ///
    /// When a store cannot be written. The message says what to do.
    pub async fn start(
        config: &Config,
        address: String,
        metadata: Arc<dyn MetadataStore>,
        objects: Arc<dyn ObjectStore>,
    ) -> Result<(Engine, Work), StartError> {
        Engine::start_seen(config, address, metadata, objects, Seen::new()).await
    }

    /// [`start`](Self::start) for who wants to see it start.
    pub(crate) async fn start_seen(
        config: &Config,
        address: String,
        metadata: Arc<dyn MetadataStore>,
        objects: Arc<dyn ObjectStore>,
        Seen { readiness, metrics }: Seen,
    ) -> Result<(Engine, Work), StartError> {
        let instance = metrics.of(Instance::new(Role::Agent, config.agent_id.as_str(), ""));
        let segments = SegmentStore::new(objects, &instance);
        check_writable(&segments, config.lease_term).await?;
        let (flusher, commands) = mpsc::channel(COMMANDS_MAX);
        let (lease_events, events) = mpsc::unbounded_channel();
        let wanted = Arc::new(Notify::new());
        let (leased, leases) = watch::channel(Arc::default());
        let tools = Tools {
            agent: config.agent_id.clone(),
            flush_time: config.lease_term.min(FLUSH_TIME_MAX),
            metadata: Arc::clone(&metadata),
            segments: segments.clone(),
            instance: instance.clone(),
            readiness: readiness.clone(),
        };
        let parts = Parts {
            agent: config.agent_id.clone(),
            address,
            lease_term: config.lease_term,
            heartbeat_interval: config.heartbeat_interval,
            sweep_interval: config.sweep_interval,
            metadata: Arc::clone(&metadata),
            flusher: flusher.clone(),
            events,
            wanted: Arc::clone(&wanted),
            readiness: readiness.clone(),
            leased,
        };
        let mut keeper = LeaseKeeper::new(parts, &instance);
        keeper.start().await?;
        let trials = Trials {
            agent: config.agent_id.clone(),
            metadata: Arc::clone(&metadata),
            segments: segments.clone(),
            readiness: readiness.clone(),
            interval: config.heartbeat_interval,
        };
        let upkeep = Upkeeper {
            agent: config.agent_id.clone(),
            metadata: Arc::clone(&metadata),
            segments: segments.clone(),
            interval: config.upkeep_interval,
            grace: config.orphan_grace,
        };
        let lags = Lags {
            metadata: Arc::clone(&metadata),
            instance: instance.clone(),
            leases,
            interval: config.heartbeat_interval,
        };
        let stop_leases = CancellationToken::new();
        let work = Work {
            flushes: Flusher::new(tools, commands, lease_events).run().boxed(),
            leases: keeper.run(stop_leases.clone()).map(|end| end.map_err(|taken| taken.to_string())).boxed(),
            trials: trials.run().map(drop).boxed(),
            upkeep: upkeep.run().boxed(),
            lags: lags.run().boxed(),
        };
        let (agent, scope) = (config.agent_id.clone(), instance.scope("", None));
        let (flushes, unflushed) = (flusher.clone(), Unflushed::new(&instance));
        let service = Arc::new(Service { agent, metadata, flusher: flushes, wanted, scope, unflushed });
        Ok((Engine { instance, service, readiness, flusher, stop_leases }, work))
    }

    /// Answers a producer, once every batch is in the log or refused.
    ///
    /// # Errors
    ///
    /// When the request as a whole cannot be taken.
    pub async fn produce(&self, request: ProduceRequest) -> Result<ProduceResponse, Status> {
        self.service.produce(Request::new(request)).await.map(tonic::Response::into_inner)
    }

    /// Is not ready from now on; what comes all the same is taken until [`drain`](Self::drain).
    pub(crate) fn ends(&self) {
        self.readiness.ends();
    }

    /// Takes nothing new; the flushes end when everything is answered.
    pub async fn drain(&self) {
        // Fails when the flusher has ended, which is what is asked for.
        let _ = self.flusher.send(Command::Drain).await;
    }

    /// Gives the leases back and forgets the agent, so that another takes over at once.
    pub fn release(&self) {
        self.stop_leases.cancel();
    }
}

/// What no flush could be stored in is found now, not with the first records.
async fn check_writable(segments: &SegmentStore, limit: Duration) -> Result<(), StartError> {
    match timeout(limit, trial::store_and_remove(segments)).await {
        Ok(stored) => stored.map_err(StartError::NotWritable),
        Err(_) => Err(StartError::StoreTimeout(limit)),
    }
}
