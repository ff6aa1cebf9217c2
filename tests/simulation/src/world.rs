//! The world of one seed: its clock, its dice, its stores, and who watches them.

use crate::bug::Bug;
use crate::database::Tables;
use crate::objects::Objects;
use crate::plan::{LEASE_TERM, Plan, Rates};
use crate::trace::Trace;
use crate::witness::Witness;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use streamhouse_core::Clock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// Database time at the beginning, in milliseconds since 1970: any but 0, so that nothing is right by chance.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// What a call takes that meets no fault, at most.
const LATENCY_MS_MAX: u64 = 8;
/// Lease terms that late calls and answers take at most.
const LATE_TERMS_MAX: u32 = 2;

/// Who calls a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// An agent, by number, and how often it was started.
    Agent(usize, u32),
    Producer(usize),
    Reader,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Agent(number, life) => write!(f, "agent-{number}.{life}"),
            Node::Producer(number) => write!(f, "producer-{number}"),
            Node::Reader => f.write_str("reader"),
        }
    }
}

/// What a call goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Database,
    Objects,
    Network,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing happens; the caller is told after this time.
    Refused { after: Duration },
    /// It happens after the first time, and the caller hears after the second: how it went, or that nobody knows.
    Happens { before: Duration, after: Duration, known: bool },
}

/// Everything that many parties share; one at a time.
pub(crate) struct State {
    pub(crate) random: StdRng,
    pub(crate) trace: Trace,
    pub(crate) tables: Tables,
    pub(crate) objects: Objects,
    pub(crate) witness: Witness,
    /// No more faults.
    calm: bool,
    /// Until when nobody, or one node, reaches what is over this way.
    outages: Vec<(Way, Option<Node>, Instant)>,
}

/// The world.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) bug: Option<Bug>,
    began: Instant,
    state: Mutex<State>,
    /// Told of the first violation.
    pub(crate) violated: Notify,
    /// Told when a commit is over.
    pub(crate) commit_over: Notify,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, keep_trace: bool) -> Arc<World> {
        let mut random = StdRng::seed_from_u64(seed);
        let plan = Plan::draw(&mut random);
        let mut trace = Trace::new(keep_trace);
        trace.step(format_args!("{plan:?}"));
        let state = State {
            random,
            trace,
            tables: Tables::new(bug),
            objects: Objects::default(),
            witness: Witness::default(),
            calm: false,
            outages: Vec::new(),
        };
        Arc::new(World {
            plan,
            bug,
            began: Instant::now(),
            state: Mutex::new(state),
            violated: Notify::new(),
            commit_over: Notify::new(),
        })
    }

    /// Milliseconds since 1970 by the database's clock, which is that of the object store too.
    pub(crate) fn now_ms(&self) -> u64 {
        EPOCH_MS + self.began.elapsed().as_millis() as u64
    }

    /// A look at everything, without a step.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step: something happens, all at once. Then the watermarks are looked at, whatever it was.
    pub(crate) fn step<T>(&self, act: impl FnOnce(&mut State, u64) -> T) -> T {
        let now_ms = self.now_ms();
        let mut guard = self.state();
        let state = &mut *guard;
        state.trace.at_ms = now_ms - EPOCH_MS;
        let given = act(state, now_ms);
        state.witness.look(&state.tables);
        if state.witness.violation.is_some() {
            self.violated.notify_one();
        }
        given
    }

    /// A line of the trace.
    pub(crate) fn tell(&self, line: fmt::Arguments<'_>) {
        let at_ms = self.now_ms() - EPOCH_MS;
        let mut state = self.state();
        state.trace.at_ms = at_ms;
        state.trace.step(line);
    }

    /// From now on everything works.
    pub(crate) fn calm_down(&self) {
        let mut state = self.state();
        state.calm = true;
        state.outages.clear();
    }

    /// For so long nobody, or this node, reaches what is over this way.
    pub(crate) fn interrupt(&self, way: Way, node: Option<Node>, time: Duration) {
        self.state().outages.push((way, node, Instant::now() + time));
    }

    /// Decides what becomes of a call.
    pub(crate) fn fate(&self, node: Node, way: Way) -> Fate {
        let mut state = self.state();
        let now = Instant::now();
        state.outages.retain(|(.., until)| *until > now);
        let is_out = state.outages.iter().any(|(out, of, _)| *out == way && of.is_none_or(|of| of == node));
        let calm = state.calm;
        let random = &mut state.random;
        let mut latency = || Duration::from_millis(random.random_range(0..=LATENCY_MS_MAX));
        let (before, after) = (latency(), latency());
        if is_out && node != Node::Reader {
            return Fate::Refused { after: before };
        }
        let rates = match way {
            _ if calm || node == Node::Reader => Rates::NONE,
            Way::Database => self.plan.database,
            Way::Objects => self.plan.objects,
            Way::Network => self.plan.network,
        };
        let late_ms = (LEASE_TERM * LATE_TERMS_MAX).as_millis() as u64;
        let mut late = || Duration::from_millis(random.random_range(0..=late_ms));
        let long = late();
        let mut dice = random.random_range(0..1000);
        let mut meets = |rate: u32| {
            let met = dice < rate;
            dice = dice.saturating_sub(rate);
            met
        };
        if meets(rates.refused) {
            Fate::Refused { after: before }
        } else if meets(rates.unknown) {
            Fate::Happens { before, after, known: false }
        } else if meets(rates.late) {
            Fate::Happens { before: long, after, known: true }
        } else if meets(rates.unanswered) {
            Fate::Happens { before, after: long, known: long > LEASE_TERM }
        } else {
            Fate::Happens { before, after, known: true }
        }
    }

    /// A number below `end`, from the seed.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.state().random.random_range(0..end)
    }

    /// A time up to this many milliseconds, from the seed.
    pub(crate) fn up_to_ms(&self, max: u64) -> Duration {
        Duration::from_millis(self.below(max + 1))
    }
}

/// Waits; no time at all is not waited for.
pub(crate) async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// The clock of the producers: the same as everybody's.
pub(crate) struct WorldClock(pub(crate) Arc<World>);

impl Clock for WorldClock {
    fn monotonic_ns(&self) -> u64 {
        self.0.began.elapsed().as_nanos() as u64
    }

    fn unix_ms(&self) -> i64 {
        self.0.now_ms() as i64
    }
}
