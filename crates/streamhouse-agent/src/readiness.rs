//! Whether the agent takes records: what `/ready` says.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// What is known of it. Clones share it: the lease keeper and the flusher say how they stand, whoever asks hears both.
#[derive(Clone, Debug)]
pub(crate) struct Readiness(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    leases: Leases,
    outage: Option<Outage>,
    /// It takes nothing new, though it may hold leases for a while.
    is_ending: bool,
}

/// The last flush, or the last trial after it, failed.
#[derive(Debug)]
struct Outage {
    error: String,
    since: Instant,
}

/// What the lease keeper last knew.
#[derive(Clone, Debug)]
pub(crate) enum Leases {
    /// It holds leases until then at least, unless they are renewed.
    Held { partitions: usize, until: Instant },
    /// It holds none, or none that is of use.
    None(Reason),
}

/// Why an agent takes no records, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Starting,
    NothingToLease,
    Metadata(String),
    Expired,
    Flush(String),
    IdTaken(String),
    ShuttingDown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Starting => f.write_str("the agent starts"),
            Reason::NothingToLease => f.write_str(
                "no partition is leased: there is none yet, or other agents lease them all; create a topic with `streamhouse topic create`",
            ),
            Reason::Metadata(error) => write!(f, "leases cannot be kept: {error}"),
            Reason::Expired => {
                f.write_str("the leases have expired: the metadata store did not renew them in time; look at its disk and load")
            }
            Reason::Flush(error) => write!(f, "the last flush failed: {error}"),
            Reason::IdTaken(what) => f.write_str(what),
            Reason::ShuttingDown => f.write_str("the agent shuts down"),
        }
    }
}

impl Readiness {
    /// That of an agent that starts.
    pub(crate) fn new() -> Readiness {
        let state = State { leases: Leases::None(Reason::Starting), outage: None, is_ending: false };
        Readiness(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn leases(&self, leases: Leases) {
        self.state().leases = leases;
    }

    /// The agent takes nothing new from now on.
    pub(crate) fn ends(&self) {
        self.state().is_ending = true;
    }

    /// Records cannot be stored or committed.
    pub(crate) fn failed(&self, error: &impl ToString) {
        self.state().outage = Some(Outage { error: error.to_string(), since: Instant::now() });
    }

    /// It was tried whether they can be again, and they cannot; unless some were meanwhile.
    pub(crate) fn still_failing(&self, error: &impl ToString) {
        if let Some(outage) = &mut self.state().outage {
            *outage = Outage { error: error.to_string(), since: Instant::now() };
        }
    }

    /// Records are stored and committed.
    pub(crate) fn succeeded(&self) {
        self.state().outage = None;
    }

    /// When it was last found that records cannot be stored or committed, if that is how it stands.
    pub(crate) fn outage(&self) -> Option<Instant> {
        self.state().outage.as_ref().map(|outage| outage.since)
    }

    /// They can be again, as far as is known: unless it was found since `outage` that they cannot.
    pub(crate) fn recovered(&self, outage: Instant) {
        self.state().outage.take_if(|newest| newest.since <= outage);
    }

    /// How many partitions can be written now.
    ///
    /// # Errors
    ///
    /// Why none can.
    pub(crate) fn check(&self, now: Instant) -> Result<usize, Reason> {
        let state = self.state();
        if state.is_ending {
            return Err(Reason::ShuttingDown);
        }
        match (&state.leases, &state.outage) {
            (Leases::None(reason), _) => Err(reason.clone()),
            (Leases::Held { until, .. }, _) if *until <= now => Err(Reason::Expired),
            (Leases::Held { .. }, Some(outage)) => Err(Reason::Flush(outage.error.clone())),
            (Leases::Held { partitions, .. }, None) => Ok(*partitions),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lease_counts_until_it_expires() {
        let (readiness, now) = (Readiness::new(), Instant::now());
        assert_eq!(readiness.check(now), Err(Reason::Starting));
        readiness.leases(Leases::Held { partitions: 3, until: now + Duration::from_secs(1) });
        assert_eq!(readiness.check(now), Ok(3));
        assert_eq!(readiness.check(now + Duration::from_secs(1)), Err(Reason::Expired));
    }

    #[test]
    fn a_failure_counts_until_a_success_that_came_after_it() {
        let (readiness, now) = (Readiness::new(), Instant::now());
        readiness.leases(Leases::Held { partitions: 3, until: now + Duration::from_secs(60) });
        let failed = |error: &str| Err(Reason::Flush(error.to_owned()));
        readiness.failed(&"full");
        let first = readiness.outage().unwrap();
        readiness.failed(&"full again");
        readiness.recovered(first - Duration::from_nanos(1));
        assert_eq!(readiness.check(now), failed("full again"));
        readiness.recovered(readiness.outage().unwrap());
        assert_eq!(readiness.check(now), Ok(3));
        readiness.failed(&"full");
        readiness.still_failing(&"full still");
        assert_eq!(readiness.check(now), failed("full still"));
        readiness.succeeded();
        readiness.still_failing(&"a trial that took long");
        assert_eq!((readiness.outage(), readiness.check(now)), (None, Ok(3)));
    }

    #[test]
    fn an_agent_that_ends_is_not_ready_whatever_it_holds() {
        let (readiness, now) = (Readiness::new(), Instant::now());
        readiness.ends();
        readiness.leases(Leases::Held { partitions: 3, until: now + Duration::from_secs(1) });
        assert_eq!(readiness.check(now), Err(Reason::ShuttingDown));
    }
}
