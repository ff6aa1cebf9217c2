//! The agents: started, killed, paused, shut down.

use crate::database::Database;
use crate::gate::Gate;
use crate::objects::Store;
use crate::plan::{HEARTBEAT_INTERVAL, LEASE_TERM, ORPHAN_GRACE, SWEEP_INTERVAL, UPKEEP_INTERVAL};
use crate::world::{Node, World, pause};
use clap::Parser;
use futures::future::{FutureExt, join5};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use streamhouse_agent::{Config, Engine, Flags};
use streamhouse_core::batch::BatchHeader;
use streamhouse_core::{TopicName, TopicPartition};
use streamhouse_proto::v1::{ProduceRequest, ProduceResponse};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::Status;

/// Most agents that a plan has.
const AGENTS_MAX: usize = 3;
/// Pause before an agent that could not start is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// Lease terms that a request may take from its arrival to its answer, as the agent's server has it.
const REQUEST_TERMS: u32 = 3;

/// Parsed once: thousands of agents are started.
static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| (0..AGENTS_MAX).map(config).collect());

fn config(number: usize) -> Config {
    let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
    let flags = Flags::try_parse_from([
        "streamhouse-agent".to_owned(),
        format!("--agent-id=agent-{number}"),
        format!("--lease-term={}", milliseconds(LEASE_TERM)),
        format!("--heartbeat-interval={}", milliseconds(HEARTBEAT_INTERVAL)),
        format!("--sweep-interval={}", milliseconds(SWEEP_INTERVAL)),
        format!("--upkeep-interval={}", milliseconds(UPKEEP_INTERVAL)),
        format!("--orphan-grace={}", milliseconds(ORPHAN_GRACE)),
    ]);
    Config::try_from(flags.expect("the flags exist")).expect("the flags work together")
}

/// All agents.
pub(crate) struct Cluster {
    world: Arc<World>,
    slots: Vec<Mutex<Slot>>,
}

/// An agent's place: where it is started again and again.
#[derive(Default)]
struct Slot {
    life: u32,
    running: Option<Arc<Running>>,
}

/// An agent that runs. Its tasks end with it.
struct Running {
    node: Node,
    engine: Engine,
    gate: Arc<Gate>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        self.tasks().drain(..).for_each(|task| task.abort());
    }
}

impl Cluster {
    pub(crate) fn new(world: Arc<World>) -> Arc<Cluster> {
        let slots = (0..world.plan.agents).map(|_| Mutex::default()).collect();
        Arc::new(Cluster { world, slots })
    }

    fn slot(&self, number: usize) -> MutexGuard<'_, Slot> {
        self.slots[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an agent, again until it runs.
    pub(crate) async fn start(self: Arc<Self>, number: usize) {
        loop {
            let life = {
                let mut slot = self.slot(number);
                slot.life += 1;
                slot.life
            };
            let (world, node) = (&self.world, Node::Agent(number, life));
            let metadata = Arc::new(Database::new(Arc::clone(world), node));
            let objects = Store::new(Arc::clone(world), node);
            let address = format!("agent-{number}:1");
            match Engine::start(&CONFIGS[number], address, metadata, objects).await {
                Ok((engine, work)) => {
                    world.tell(format_args!("{node} runs"));
                    let gate = Arc::new(Gate::default());
                    let (world, at_work) = (
                        Arc::clone(world),
                        gate.behind(join5(work.flushes, work.leases, work.trials, work.upkeep, work.lags)),
                    );
                    let work = tokio::spawn(async move {
                        if AssertUnwindSafe(at_work).catch_unwind().await.is_err() {
                            world.step(|state, _| state.witness.violated(0, format!("{node} panicked")));
                        }
                    });
                    let tasks = Mutex::new(vec![work.abort_handle()]);
                    self.slot(number).running = Some(Arc::new(Running { node, engine, gate, tasks }));
                    return;
                }
                Err(error) => world.tell(format_args!("{node} does not start: {}", first_words(&error))),
            }
            pause(RESTART_PAUSE).await;
        }
    }

    /// Ends an agent as `kill -9` does, then starts it anew. One that starts already is left to that.
    pub(crate) fn kill(self: &Arc<Self>, number: usize, down: Duration) {
        let Some(running) = self.slot(number).running.take() else { return };
        self.world.tell(format_args!("{} is killed", running.node));
        running.kill();
        self.start_after(number, down);
    }

    /// Lets an agent stand still.
    pub(crate) fn stop(&self, number: usize, time: Duration) {
        let Some(running) = self.slot(number).running.clone() else { return };
        self.world.tell(format_args!("{} stands still for {} ms", running.node, time.as_millis()));
        running.gate.close();
        tokio::spawn(async move {
            pause(time).await;
            running.gate.open();
        });
    }

    /// Ends an agent in order, as its own shutdown does, then starts it anew.
    pub(crate) fn shut_down(self: &Arc<Self>, number: usize, down: Duration) {
        let Some(running) = self.slot(number).running.take() else { return };
        self.world.tell(format_args!("{} shuts down", running.node));
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            running.engine.drain().await;
            pause(LEASE_TERM).await;
            running.engine.release();
            pause(LEASE_TERM).await;
            running.kill();
            cluster.start_after(number, down);
        });
    }

    fn start_after(self: &Arc<Self>, number: usize, down: Duration) {
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            pause(down).await;
            cluster.start(number).await;
        });
    }

    /// A request arrives.
    pub(crate) async fn serve(
        &self,
        address: &str,
        request: ProduceRequest,
    ) -> Result<ProduceResponse, Status> {
        let running = address
            .strip_prefix("agent-")
            .and_then(|rest| rest.strip_suffix(":1")?.parse().ok())
            .and_then(|number: usize| self.slot(number).running.clone());
        let Some(running) = running else { return Err(Status::unavailable("nobody listens")) };
        let (world, served) = (Arc::clone(&self.world), Arc::clone(&running));
        let handler = running.gate.behind(async move {
            let asked: Vec<_> = request
                .batches
                .iter()
                .map(|batch| (batch.topic.clone(), batch.partition, BatchHeader::check(&batch.batch).ok()))
                .collect();
            let limit = LEASE_TERM * REQUEST_TERMS;
            let Ok(answer) = timeout(limit, served.engine.produce(request)).await else {
                return Err(Status::cancelled("it took too long"));
            };
            let response = answer?;
            world.step(|state, _| {
                for ((topic, partition, header), result) in asked.iter().zip(&response.results) {
                    let (Ok(topic), Some(header), 0) = (TopicName::new(topic), header, result.status) else {
                        continue;
                    };
                    let at = TopicPartition { topic, partition: *partition };
                    state
                        .trace
                        .step(format_args!("{} acknowledges {at} {}", served.node, result.base_offset));
                    state.witness.answered(&at, header, result.base_offset);
                }
            });
            Ok(response)
        });
        let handler = tokio::spawn(handler);
        {
            let mut tasks = running.tasks();
            tasks.retain(|task| !task.is_finished());
            tasks.push(handler.abort_handle());
        }
        drop(running);
        handler.await.unwrap_or_else(|_| Err(Status::unavailable("the connection broke")))
    }
}

/// Of an error's message only what does not differ from run to run.
fn first_words(error: &impl ToString) -> String {
    error.to_string().split(':').next().unwrap_or_default().chars().take(40).collect()
}
