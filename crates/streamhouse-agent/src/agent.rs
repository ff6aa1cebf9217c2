//! The agent: its tasks, from start to shutdown.

use crate::config::Config;
use crate::engine::{Engine, Seen};
use crate::error::StartError;
use crate::{grpc, http};
use futures::future::{FutureExt, select_all};
use object_store::ObjectStore;
use std::{convert::Infallible as Never, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use streamhouse_core::AsTyped;
use streamhouse_metadata::{AgentLock, AgentStore, MetadataStore};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Lease terms that a shutdown waits for requests under way: each is answered within the flush under way and its own.
const DRAIN_TERMS: u32 = 2;

type Task = AbortOnDropHandle<Result<(), String>>;

/// A running agent. Dropped without [`shutdown`](Self::shutdown) it ends as if it were killed: nothing that was
/// acknowledged is lost, and its leases expire or are taken over by the next holder of the lock.
pub struct Agent {
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    lease_term: Duration,
    engine: Engine,
    stop_grpc: CancellationToken,
    stop_http: CancellationToken,
    grpc_task: Task,
    flush_task: Task,
    lease_task: Task,
    http_task: Task,
    _background_tasks: [Task; 3],
    _lock: Option<AgentLock>,
}

impl Agent {
    /// Starts an agent on its stores. `/health` is answered from the beginning. When it returns, the agent listens and has
    /// taken its share of what nobody leases: on a metadata store that agents do not share that is everything, its dead
    /// predecessor's leases among them.
    ///
    /// # Errors
    ///
    /// When another agent runs on the metadata store and they cannot share it, or lives under the same id, when a store
    /// cannot be opened or written, or an address cannot be listened on. The message says what to do.
    pub async fn start(config: Config) -> Result<Agent, StartError> {
        let front = Front::open(&config).await?;
        let AgentStore { store: metadata, lock } = config.metadata_url.open_for_agent().await?;
        let objects = config.object_store_url.create()?;
        if lock.is_some() {
            // Its last holder is dead, so nobody writes under these leases any more.
            forget_all(&*metadata).await?;
        }
        Agent::launch(config, metadata, objects, front, lock).await
    }

    /// Starts an agent on stores that are open already, which it may share with other agents.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: Config,
        metadata: Arc<dyn MetadataStore>,
        objects: Arc<dyn ObjectStore>,
    ) -> Result<Agent, StartError> {
        let front = Front::open(&config).await?;
        Agent::launch(config, metadata, objects, front, None).await
    }

    async fn launch(
        config: Config,
        metadata: Arc<dyn MetadataStore>,
        objects: Arc<dyn ObjectStore>,
        front: Front,
        lock: Option<AgentLock>,
    ) -> Result<Agent, StartError> {
        let Front { grpc, grpc_address, http_address, seen, stop_http, http_task } = front;
        let address = config.advertise_address.clone().unwrap_or_else(|| grpc_address.to_string());
        let (engine, work) = Engine::start_seen(&config, address, metadata, objects, seen).await?;
        let stop_grpc = CancellationToken::new();
        let flush_task = spawn(work.flushes.map(Ok::<_, Never>));
        let lease_task = spawn(work.leases);
        let background_tasks =
            [work.trials, work.upkeep, work.lags].map(|work| spawn(work.map(Ok::<_, Never>)));
        let (instance, service) = (engine.instance.clone(), Arc::clone(&engine.service));
        let stop = stop_grpc.clone().cancelled_owned();
        let grpc_task = spawn(grpc::serve(grpc, instance, service, (&config).into(), stop));
        Ok(Agent {
            grpc_address,
            http_address,
            lease_term: config.lease_term,
            engine,
            stop_grpc,
            stop_http,
            grpc_task,
            flush_task,
            lease_task,
            http_task,
            _background_tasks: background_tasks,
            _lock: lock,
        })
    }

    /// Where producers connect.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where `/health`, `/ready` and `/metrics` are.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Waits until a part of the agent ends by itself, which it should not, and says which. The agent is of no use then.
    pub async fn failed(&mut self) -> String {
        let tasks = [
            ("gRPC server", &mut self.grpc_task),
            ("flusher", &mut self.flush_task),
            ("lease keeper", &mut self.lease_task),
            ("HTTP server", &mut self.http_task),
        ];
        let ends = tasks.map(|(name, task)| task.map(move |end| (name, end)).boxed());
        let ((name, end), ..) = select_all(ends).await;
        match end {
            Ok(Ok(())) => format!("the {name} ended"),
            Ok(Err(error)) => format!("the {name} failed: {error}"),
            Err(error) => format!("the {name} failed: {error}"),
        }
    }

    /// Takes nothing new, answers what is under way, gives the leases back and ends. Takes at most two lease terms and a
    /// third.
    pub async fn shutdown(self) {
        self.engine.ends();
        self.stop_grpc.cancel();
        let limit = self.lease_term * DRAIN_TERMS;
        if timeout(limit, self.grpc_task).await.is_err() {
            tracing::warn!(limit = %AsTyped(limit), "requests were still under way and are dropped");
        }
        self.engine.drain().await;
        if timeout(limit, self.flush_task).await.is_err() {
            tracing::warn!(limit = %AsTyped(limit), "a flush was still under way and is dropped");
        }
        self.engine.release();
        // It bounds its calls by itself.
        let _ = self.lease_task.await;
        self.stop_http.cancel();
        let _ = timeout(limit, self.http_task).await;
    }
}

/// Forgets all agents and their leases: for who knows that they are dead.
async fn forget_all(metadata: &dyn MetadataStore) -> Result<(), StartError> {
    metadata.expire_all_leases().await?;
    for agent in metadata.agents().await? {
        metadata.deregister_agent(&agent.id).await?;
    }
    Ok(())
}

/// What the world sees first: both sockets, bound before anything is created or changed, and the answers of HTTP, which do
/// not wait for stores. Who connects to gRPC waits, and hears nothing until the agent serves.
struct Front {
    grpc: TcpListener,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    seen: Seen,
    stop_http: CancellationToken,
    http_task: Task,
}

impl Front {
    async fn open(config: &Config) -> Result<Front, StartError> {
        let (grpc, grpc_address) = bind(config.grpc_listen_address, "--grpc-listen-address").await?;
        let (http, http_address) = bind(config.http_listen_address, "--http-listen-address").await?;
        let (seen, stop_http) = (Seen::new(), CancellationToken::new());
        let stop = stop_http.clone().cancelled_owned();
        let http_task = spawn(http::serve(http, seen.clone(), stop));
        Ok(Front { grpc, grpc_address, http_address, seen, stop_http, http_task })
    }
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| StartError::Bind { address, flag, source })
}

fn spawn<E: ToString + 'static>(task: impl Future<Output = Result<(), E>> + Send + 'static) -> Task {
    AbortOnDropHandle::new(tokio::spawn(task.map(|end| end.map_err(|error| error.to_string()))))
}
