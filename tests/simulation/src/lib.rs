//! A seeded simulation of the log: the agents' leases, flushes and commits and the producers' retries, with their real
//! code, over stores in memory and on a clock that only moves when everybody waits.
//!
//! A seed decides everything: how many agents, producers and partitions there are, what is sent when, which calls are
//! refused, late, or answered by nobody, when agents are killed, stand still, or shut down. After every step the
//! `witness` compares what happened with invariants 1 to 5 of `docs/architecture.md`. Two runs of a seed are
//! the same, step by step, so what one finds can be looked at:
//!
//! ```text
//! cargo run -p streamhouse-simulation -- --seeds 0..1000
//! cargo run -p streamhouse-simulation -- --seed 17 --trace
//! ```
//!
//! - `world` is the clock, the dice and the steps; `plan` is what the dice decide at the beginning;
//! - `database` and `objects` are the stores, `network` is what lies between producers and agents;
//! - `cluster`, `producers` and `reader` run the real code; `gate` makes an agent stand still;
//! - `upsets` is what happens to the cluster as a whole;
//! - `witness` checks; `bug` is what can be planted to see that it does.

mod bug;
mod cluster;
mod database;
mod gate;
mod network;
mod objects;
mod plan;
mod producers;
mod reader;
mod trace;
mod upsets;
mod witness;
mod world;

pub use bug::Bug;
pub use witness::Violation;

use cluster::Cluster;
use database::Database;
use futures::future::join_all;
use plan::LEASE_TERM;
use producers::{Application, TOPIC};
use reader::Reader;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_core::TopicName;
use streamhouse_metadata::{Retention, Topics};
use tokio::time::timeout;
use world::{World, pause};

/// Simulated time in which a run has to end.
const RUN_TIME_MAX: Duration = Duration::from_secs(600);
/// Lease terms after which everything works again, once there are no more faults: calls under way take two, requests
/// three, and leases one more.
const RECOVERY_TERMS: u32 = 8;

/// What a run is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A defect to plant.
    pub bug: Option<Bug>,
    /// Keep what happened as lines, too.
    pub trace: bool,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Run {
    /// What went wrong first.
    pub violation: Option<Violation>,
    /// Steps.
    pub steps: u64,
    /// Hash of everything that happened: equal for equal seeds and options.
    pub hash: u64,
    /// Batches acknowledged, retries of acknowledged ones included.
    pub acknowledged: u64,
    /// What happened, if it was to be kept.
    pub trace: Vec<String>,
}

/// Runs a seed.
///
/// # Panics
///
/// When the operating system gives no more than this process has, and no runtime can be made.
pub fn run(seed: u64, options: Options) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without threads and sockets");
    let world = runtime.block_on(async {
        let world = World::new(seed, options.bug, options.trace);
        let ended = async {
            tokio::select! {
                biased;
                () = world.violated.notified() => true,
                ended = timeout(RUN_TIME_MAX, scenario(&world)) => ended.is_ok(),
            }
        };
        if !ended.await {
            world.step(|state, _| state.witness.violated(0, "something never ends".into()));
        }
        world
    });
    drop(runtime);
    let mut state = world.state();
    Run {
        violation: state.witness.violation.clone(),
        steps: state.trace.steps,
        hash: state.trace.hash,
        acknowledged: state.witness.acknowledged,
        trace: std::mem::take(&mut state.trace.lines),
    }
}

/// Bad weather, then good: what was lost in the one must not be missed in the other.
async fn scenario(world: &Arc<World>) {
    let topic = TopicName::new(TOPIC).expect("a name that keeps the rules");
    let retention = Retention { age: world.plan.retention, bytes: None };
    let operator = Database::new(Arc::clone(world), world::Node::Reader);
    let created = operator.create_topic(&topic, world.plan.partitions, retention).await;
    created.expect("whoever reads meets no fault");
    let cluster = Cluster::new(Arc::clone(world));
    for number in 0..world.plan.agents {
        tokio::spawn(Arc::clone(&cluster).start(number));
    }
    let mut reader = Reader::new(Arc::clone(world));
    let work = async {
        let weather = upsets::happen(world, &cluster);
        let start = |number| Application::start(Arc::clone(world), Arc::clone(&cluster), number);
        let work = async {
            let mut applications = join_all((0..world.plan.producers).map(start)).await;
            join_all(applications.iter_mut().map(Application::work)).await;
            applications
        };
        let (mut applications, ()) = tokio::join!(work, weather);
        pause(LEASE_TERM * RECOVERY_TERMS).await;
        join_all(applications.iter_mut().map(Application::last_words)).await;
    };
    tokio::select! {
        biased;
        () = work => {}
        () = reader.follow() => {}
    }
    reader.ends().await;
}
