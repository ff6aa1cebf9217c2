//! Whether the agent takes records: what `/ready` says.

use std::fmt;
use tokio::time::Instant;

/// What the lease keeper last knew.
#[derive(Clone, Debug)]
pub(crate) enum Readiness {
    /// It holds leases until then at least, unless they are renewed.
    Leasing { partitions: usize, until: Instant },
    /// It holds none.
    Idle(Reason),
}

/// Why an agent holds no lease, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Starting,
    NothingToLease,
    Metadata(String),
    Expired,
    ShuttingDown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Starting => f.write_str("the agent starts"),
            Reason::NothingToLease => f.write_str(
                "no partition is leased: there is none yet, or other agents lease them all; create a topic with `streamhouse topic create`",
            ),
            Reason::Metadata(error) => write!(f, "no partition is leased: {error}"),
            Reason::Expired => {
                f.write_str("the leases have expired: the metadata store did not renew them in time; look at its disk and load")
            }
            Reason::ShuttingDown => f.write_str("the agent shuts down"),
        }
    }
}

impl Readiness {
    /// How many partitions can be written now.
    ///
    /// # Errors
    ///
    /// Why none can.
    pub(crate) fn check(&self, now: Instant) -> Result<usize, Reason> {
        match self {
            Readiness::Leasing { partitions, until } if now < *until => Ok(*partitions),
            Readiness::Leasing { .. } => Err(Reason::Expired),
            Readiness::Idle(reason) => Err(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lease_counts_until_it_expires() {
        let now = Instant::now();
        let readiness = Readiness::Leasing { partitions: 3, until: now + Duration::from_secs(1) };
        assert_eq!(readiness.check(now), Ok(3));
        assert_eq!(readiness.check(now + Duration::from_secs(1)), Err(Reason::Expired));
        assert_eq!(Readiness::Idle(Reason::Starting).check(now), Err(Reason::Starting));
    }
}
