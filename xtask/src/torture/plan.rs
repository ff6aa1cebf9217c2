//! Which faults come when: decided by the seed alone.

use std::fmt;
use std::time::Duration;
use streamhouse_tests::postgres::Shutdown;
use streamhouse_tests::s3::Faults;
use streamhouse_tests::{Cut, LEASE_TERM, Random};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// SIGKILL; started again after a while.
    KillAgent { agent: usize, down: Duration },
    /// SIGTERM; started again after a while.
    StopAgent { agent: usize, down: Duration },
    /// SIGSTOP past its lease, then SIGCONT.
    PauseAgent { agent: usize, pause: Duration },
    /// The database ends and starts again.
    RestartPostgres { shutdown: Shutdown },
    /// The next so many commits of an agent lose their connection.
    CutCommits { agent: usize, cut: Cut, times: u32 },
    /// All connections of an agent to its stores end.
    CutConnections { agent: usize },
    /// An agent's connections to the database move nothing.
    StallPostgres { agent: usize, stall: Duration },
    /// An agent cannot reach the object store.
    RefuseObjects { agent: usize, refuse: Duration },
    /// The object store misbehaves.
    Objects { faults: Faults, lasts: Duration },
    /// SIGKILL; another member joins in its place.
    KillConsumer { consumer: usize },
}

/// The kinds of faults, each with how many of it a round has.
const KINDS: [(Kind, usize); 14] = [
    (Kind::KillAgent, 2),
    (Kind::StopAgent, 1),
    (Kind::PauseAgent, 2),
    (Kind::RestartPostgres, 1),
    (Kind::CutBeforeCommit, 1),
    (Kind::CutBeforeCommitted, 2),
    (Kind::CutConnections, 1),
    (Kind::StallPostgres, 1),
    (Kind::RefuseObjects, 1),
    (Kind::ObjectsSlowDown, 1),
    (Kind::ObjectsFail, 1),
    (Kind::ObjectsStall, 1),
    (Kind::ObjectsTruncate, 1),
    (Kind::KillConsumer, 1),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    KillAgent,
    StopAgent,
    PauseAgent,
    RestartPostgres,
    CutBeforeCommit,
    CutBeforeCommitted,
    CutConnections,
    StallPostgres,
    RefuseObjects,
    ObjectsSlowDown,
    ObjectsFail,
    ObjectsStall,
    ObjectsTruncate,
    KillConsumer,
}

/// Faults one after the other, for ever: rounds with every kind in them, each round in an order of its own.
pub(super) struct Plan {
    random: Random,
    agents: usize,
    consumers: usize,
    round: Vec<Kind>,
}

impl Plan {
    pub(super) fn new(seed: u64, agents: usize, consumers: usize) -> Plan {
        Plan { random: Random::new(seed), agents, consumers, round: Vec::new() }
    }

    /// The next fault, and how long to leave things alone before it.
    pub(super) fn next(&mut self) -> (Duration, Fault) {
        let quiet = self.milliseconds(200, 1500);
        let kind = self.next_kind();
        (quiet, self.fault(kind))
    }

    fn next_kind(&mut self) -> Kind {
        if self.round.is_empty() {
            self.round = KINDS.iter().flat_map(|(kind, times)| vec![*kind; *times]).collect();
        }
        self.round.swap_remove(self.random.index(self.round.len()))
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let agent = self.random.index(self.agents);
        let term = LEASE_TERM.as_millis() as u64;
        match kind {
            Kind::KillAgent => Fault::KillAgent { agent, down: self.milliseconds(0, 2 * term) },
            Kind::StopAgent => Fault::StopAgent { agent, down: self.milliseconds(0, term) },
            Kind::PauseAgent => Fault::PauseAgent { agent, pause: self.milliseconds(term + 500, 2 * term) },
            Kind::RestartPostgres => {
                let immediate = self.random.percent(50);
                let shutdown = if immediate { Shutdown::Immediate } else { Shutdown::Fast };
                Fault::RestartPostgres { shutdown }
            }
            Kind::CutBeforeCommit => {
                Fault::CutCommits { agent, cut: Cut::BeforeRequest, times: self.times() }
            }
            Kind::CutBeforeCommitted => {
                Fault::CutCommits { agent, cut: Cut::BeforeAnswer, times: self.times() }
            }
            Kind::CutConnections => Fault::CutConnections { agent },
            Kind::StallPostgres => Fault::StallPostgres { agent, stall: self.milliseconds(500, 2 * term) },
            Kind::RefuseObjects => Fault::RefuseObjects { agent, refuse: self.milliseconds(500, 2 * term) },
            Kind::KillConsumer => Fault::KillConsumer { consumer: self.random.index(self.consumers) },
            Kind::ObjectsSlowDown | Kind::ObjectsFail | Kind::ObjectsStall | Kind::ObjectsTruncate => {
                let lasts = self.milliseconds(1000, 5000);
                Fault::Objects { faults: self.object_faults(kind), lasts }
            }
        }
    }

    fn object_faults(&mut self, kind: Kind) -> Faults {
        let percent = self.random.between(20, 100) as u8;
        let none = Faults::default();
        match kind {
            Kind::ObjectsSlowDown => Faults { slow_down_percent: percent, ..none },
            Kind::ObjectsFail => {
                Faults { error_percent: percent / 2, unanswered_percent: percent / 2, ..none }
            }
            Kind::ObjectsStall => {
                Faults { stall_percent: percent, stall: self.milliseconds(200, 5000), ..none }
            }
            _ => Faults { truncate_percent: percent, ..none },
        }
    }

    fn times(&mut self) -> u32 {
        self.random.between(1, 3) as u32
    }

    fn milliseconds(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.random.between(low, high))
    }
}

impl Fault {
    /// What it counts as.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Fault::KillAgent { .. } => "agent killed (-9)",
            Fault::StopAgent { .. } => "agent stopped (SIGTERM)",
            Fault::PauseAgent { .. } => "agent paused past its lease",
            Fault::RestartPostgres { shutdown: Shutdown::Fast } => "PostgreSQL restarted",
            Fault::RestartPostgres { shutdown: Shutdown::Immediate } => "PostgreSQL crashed",
            Fault::CutCommits { cut: Cut::BeforeRequest, .. } => "connection cut before COMMIT",
            Fault::CutCommits { cut: Cut::BeforeAnswer, .. } => "connection cut after COMMIT",
            Fault::CutConnections { .. } => "all connections cut",
            Fault::StallPostgres { .. } => "PostgreSQL stalled",
            Fault::RefuseObjects { .. } => "S3 unreachable",
            Fault::Objects { faults, .. } if faults.slow_down_percent > 0 => "S3 throttled (503)",
            Fault::Objects { faults, .. } if faults.stall_percent > 0 => "S3 stalled",
            Fault::Objects { faults, .. } if faults.truncate_percent > 0 => "S3 truncated",
            Fault::Objects { .. } => "S3 failed (500, no answer)",
            Fault::KillConsumer { .. } => "consumer killed (-9)",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        match self {
            Fault::KillAgent { agent, down: lasts }
            | Fault::StopAgent { agent, down: lasts }
            | Fault::PauseAgent { agent, pause: lasts }
            | Fault::StallPostgres { agent, stall: lasts }
            | Fault::RefuseObjects { agent, refuse: lasts } => write!(f, ": agent-{agent}, {lasts:?}"),
            Fault::CutCommits { agent, times, .. } => write!(f, ": agent-{agent}, {times} times"),
            Fault::CutConnections { agent } => write!(f, ": agent-{agent}"),
            Fault::Objects { lasts, .. } => write!(f, ": {lasts:?}"),
            Fault::KillConsumer { consumer } => write!(f, ": number {consumer}"),
            Fault::RestartPostgres { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn plan(seed: u64) -> Vec<(Duration, Fault)> {
        let mut plan = Plan::new(seed, 3, 3);
        (0..100).map(|_| plan.next()).collect()
    }

    #[test]
    fn a_seed_is_a_plan_and_a_round_has_every_kind() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        let round: usize = KINDS.iter().map(|(_, times)| times).sum();
        let names: BTreeSet<_> = plan(7).iter().take(round).map(|(_, fault)| fault.name()).collect();
        // Restarts of PostgreSQL have two names.
        assert_eq!(names.len(), KINDS.len());
    }
}
