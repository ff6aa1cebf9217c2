//! Defects that can be planted, to see that the simulation finds them.

use std::{fmt, str::FromStr};

/// A defect of a store or of whoever uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A commit is not asked whether its lease has expired.
    CommitsUnderExpiredLease,
    /// A lease is granted that another agent holds.
    GrantsHeldLease,
    /// A commit leaves an offset out.
    SkipsOffset,
    /// What an agent has asked to commit can be read before it is committed.
    ShowsUncommitted,
    /// A commit is answered as done that was not.
    LosesCommit,
    /// An object is answered as stored that was not.
    LosesObject,
    /// The newest batch of each producer is not given to the next holder of a lease.
    ForgetsNewestBatch,
    /// A commit is done and answered as refused.
    CommitsAndRefuses,
    /// Who is asked which segments were committed knows of none.
    ForgetsCommittedSegments,
    /// Listed objects look older than they are.
    DatesObjectsTooEarly,
    /// A reader takes the newest object there is, whether it was committed or not.
    ReadsUncommitted,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 11] = [
        Bug::CommitsUnderExpiredLease,
        Bug::GrantsHeldLease,
        Bug::SkipsOffset,
        Bug::ShowsUncommitted,
        Bug::LosesCommit,
        Bug::LosesObject,
        Bug::ForgetsNewestBatch,
        Bug::CommitsAndRefuses,
        Bug::ForgetsCommittedSegments,
        Bug::DatesObjectsTooEarly,
        Bug::ReadsUncommitted,
    ];

    /// The invariant of `docs/architecture.md` that it breaks.
    pub const fn breaks(self) -> u8 {
        match self {
            Bug::CommitsUnderExpiredLease | Bug::GrantsHeldLease => 1,
            Bug::SkipsOffset | Bug::ShowsUncommitted => 2,
            Bug::LosesCommit | Bug::LosesObject => 3,
            Bug::ForgetsNewestBatch => 4,
            Bug::CommitsAndRefuses
            | Bug::ForgetsCommittedSegments
            | Bug::DatesObjectsTooEarly
            | Bug::ReadsUncommitted => 5,
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Bug, String> {
        Bug::ALL
            .into_iter()
            .find(|bug| bug.to_string().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("{name:?} is no planted bug; there are {:?}", Bug::ALL))
    }
}
