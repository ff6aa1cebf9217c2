//! What can go wrong in a metadata store.

use streamhouse_core::{Counted, ErrorKind};

/// Result of a metadata call.
pub type Result<T, E = MetadataError> = std::result::Result<T, E>;

/// What a database driver said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The topic does not exist.
    #[error("topic {0} does not exist; create it with `streamhouse topic create {0}`")]
    TopicNotFound(String),
    /// The topic exists, the partition does not.
    #[error(
        "partition {partition} of topic {topic} does not exist; the topic has {}, counted from 0",
        Counted((*partitions).into(), "partition")
    )]
    PartitionNotFound {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: u32,
        /// What the topic has.
        partitions: u32,
    },
    /// The topic exists already.
    #[error("topic {0} exists already; choose another name, or use it as it is")]
    TopicExists(String),
    /// The group does not exist.
    #[error("group {0} does not exist; a group comes to be with its first member or commit")]
    GroupNotFound(String),
    /// The member is not in the group, or has lost a claim.
    #[error(
        "member {member} of group {group} is fenced: {reason}; what it read since its last commit is read again by others. \
         Join again"
    )]
    MemberFenced {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// What it has lost.
        reason: String,
    },
    /// Somebody outside of a group changes what a living member has claimed.
    #[error(
        "{partition} is read by member {member} of group {group}; stop the group's consumers, then try again"
    )]
    Claimed {
        /// The group.
        group: String,
        /// The partition.
        partition: String,
        /// The member that holds the claim.
        member: String,
    },
    /// A group is to be removed, and somebody reads for it.
    #[error(
        "group {group} has {}; stop its consumers, then try again",
        Counted(*members, "member")
    )]
    GroupInUse {
        /// The group.
        group: String,
        /// Its living members.
        members: u64,
    },
    /// What another metadata store, that was asked over the network, answered.
    #[error("{message}")]
    Remote {
        /// How to react.
        kind: ErrorKind,
        /// Its message.
        message: String,
    },
    /// The argument is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Another agent uses this database file.
    #[error(
        "another agent (pid {pid}) runs on {path}; stop it, or give this agent a metadata store of its own"
    )]
    AgentRuns {
        /// The database.
        path: String,
        /// Its process, or 0 when it did not say.
        pid: u32,
    },
    /// The database is busy or was interrupted; nothing was changed.
    #[error("the metadata store is busy ({0}); try again")]
    Busy(#[source] Cause),
    /// The file or database at `path` cannot be used as it is; nothing was changed.
    #[error("the metadata store {path} {problem}{}", in_brackets(said))]
    Unusable {
        /// The file, or the database's URL without its password.
        path: String,
        /// What is wrong and what to do, as the rest of a sentence that begins with the path.
        problem: &'static str,
        /// What the system said; empty when it was not asked.
        said: String,
    },
    /// The database failed in a way that has no better name here; nothing was changed.
    #[error("the metadata store failed: {0}; check its path, permissions and free space")]
    Unavailable(#[source] Cause),
    /// The outcome of a commit is unknown: it may have happened.
    #[error(
        "the outcome of a metadata commit is unknown: {0}; after a flush ask `flush_outcome` before any offset is used \
         again, else look what is there and try again"
    )]
    Unknown(#[source] Cause),
    /// The database holds something this version did not write.
    #[error("the metadata store holds something unexpected: {0}")]
    Corrupt(String),
}

fn in_brackets(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

impl MetadataError {
    /// How the caller should react.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            MetadataError::TopicNotFound(_)
            | MetadataError::PartitionNotFound { .. }
            | MetadataError::GroupNotFound(_) => ErrorKind::NotFound,
            MetadataError::TopicExists(_)
            | MetadataError::Invalid(_)
            | MetadataError::Claimed { .. }
            | MetadataError::GroupInUse { .. } => ErrorKind::Invalid,
            MetadataError::MemberFenced { .. } => ErrorKind::Fenced,
            MetadataError::Remote { kind, .. } => *kind,
            MetadataError::AgentRuns { .. }
            | MetadataError::Unusable { .. }
            | MetadataError::Unavailable(_) => ErrorKind::Unavailable,
            MetadataError::Busy(_) | MetadataError::Unknown(_) => ErrorKind::Retry,
            MetadataError::Corrupt(_) => ErrorKind::Corrupt,
        }
    }
}
