//! What can go wrong in a client.

use std::{sync::Arc, time::Duration};
use streamhouse_core::{
    AsTyped, Counted, ErrorKind, GroupId, InvalidName, MemberId, TopicPartition, batch::BatchError,
};
use streamhouse_metadata::MetadataError;
use streamhouse_storage::StorageError;

/// Partitions that a message names; it counts the others.
const PARTITIONS_NAMED: usize = 8;

/// Result of a client call.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// What went wrong and what to do. Clones are cheap: the records of a failed batch share one error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// A topic, group or client name breaks the rules.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// An argument or a setting is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The record cannot be encoded; most often it is over the limit.
    #[error(transparent)]
    Record(Arc<BatchError>),
    /// The metadata store refused or failed.
    #[error(transparent)]
    Metadata(Arc<MetadataError>),
    /// The consumer does not read this partition.
    #[error(
        "{0} is not among what this consumer reads; name its topic in `topics` and use a partition it has"
    )]
    NotSubscribed(String),
    /// Another member of the group reads this partition, or nobody yet.
    #[error(
        "{partition} is not claimed by this consumer; {}",
        read_by(group, reader.as_ref())
    )]
    NotClaimed {
        /// The partition.
        partition: TopicPartition,
        /// The group.
        group: GroupId,
        /// Who reads it.
        reader: Option<MemberId>,
    },
    /// The consumer lost its claims before what it had read was committed.
    #[error(
        "what was read of {} was not committed, for the consumer's claim{} on it in group {group} had ended ({reason}). \
         It is read again by whoever claims it next. Poll on: the consumer stays in \
         the group, or joins it again",
        named(partitions), if partitions.len() == 1 { "" } else { "s" }
    )]
    Fenced {
        /// The group.
        group: GroupId,
        /// The partitions.
        partitions: Arc<[TopicPartition]>,
        /// How the claims were lost.
        reason: Arc<str>,
    },
    /// The producer's buffer stayed full.
    #[error(
        "the producer's buffer of {buffer_bytes} bytes stayed full for {}, so this record was not accepted. \
         Send more slowly, raise `buffer_bytes`, or look at the agent: it acknowledges more slowly than records come",
        AsTyped(*waited)
    )]
    BufferFull {
        /// The buffer's size.
        buffer_bytes: usize,
        /// How long `send()` waited.
        waited: Duration,
    },
    /// A batch was not acknowledged within the delivery timeout.
    #[error(
        "a batch for {partition} was not acknowledged within {} ({cause}). It may or may not be stored. Look at \
         the agent that leases the partition, then send the records again",
        AsTyped(*waited)
    )]
    DeliveryTimeout {
        /// Where it was to go.
        partition: TopicPartition,
        /// The delivery timeout.
        waited: Duration,
        /// What the last attempt met.
        cause: Arc<str>,
    },
    /// An agent refused a batch for good.
    #[error("the agent refused a batch for {partition}: {message}")]
    Refused {
        /// Where it was to go.
        partition: TopicPartition,
        /// How to react.
        kind: ErrorKind,
        /// The agent's reason.
        message: Arc<str>,
    },
    /// A batch was given up, since sending it now would end the same way whenever it is done. If it was sent before, it may
    /// be stored.
    #[error("a batch for {partition} was given up: {message}")]
    NotSent {
        /// Where it was to go.
        partition: TopicPartition,
        /// How to react.
        kind: ErrorKind,
        /// Why.
        message: Arc<str>,
    },
    /// An earlier batch of the partition failed, and sending this one after it could reorder or repeat records.
    #[error(
        "a batch for {partition} was given up because the one before it failed ({cause}). It may or may not be stored. \
         Send its records again once the cause is gone"
    )]
    Abandoned {
        /// Where it was to go.
        partition: TopicPartition,
        /// What happened to the earlier batch.
        cause: Arc<str>,
    },
    /// The producer or consumer was closed, or its runtime was shut down.
    #[error("the client is closed; build a new one")]
    Closed,
    /// Object storage failed, or a segment did not pass its checks.
    #[error("cannot read {partition} at offset {offset}: {source}{}", go_on(*next_offset))]
    Storage {
        /// What was read.
        partition: TopicPartition,
        /// The offset wanted; the consumer's position is still there.
        offset: u64,
        /// First offset behind what is damaged or malformed; `None` when the object may be whole.
        next_offset: Option<u64>,
        /// The object.
        object: Arc<str>,
        /// What happened.
        source: Arc<StorageError>,
    },
}

fn go_on(next_offset: Option<u64>) -> String {
    next_offset.map_or_else(String::new, |offset| {
        format!(
            ". The first offset behind it is {offset}: to pass it, seek there, or move the group there with \
             `streamhouse groups reset-offsets`"
        )
    })
}

fn read_by(group: &GroupId, reader: Option<&MemberId>) -> String {
    match reader {
        Some(reader) => format!("member {reader} of group {group} reads it"),
        None => format!("nobody in group {group} reads it now, so poll until somebody does"),
    }
}

/// The first few, and how many more.
fn named(partitions: &[TopicPartition]) -> String {
    let names: Vec<_> = partitions.iter().take(PARTITIONS_NAMED).map(ToString::to_string).collect();
    let more = partitions.len() - names.len();
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {}", Counted(more as u64, "more partition")) }
}

impl ClientError {
    /// How the caller should react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClientError::InvalidName(_) | ClientError::Invalid(_) => ErrorKind::Invalid,
            ClientError::Record(error) => error.kind(),
            ClientError::Metadata(error) => error.kind(),
            ClientError::NotSubscribed(_) | ClientError::NotClaimed { .. } => ErrorKind::NotFound,
            ClientError::Fenced { .. } => ErrorKind::Fenced,
            ClientError::BufferFull { .. }
            | ClientError::DeliveryTimeout { .. }
            | ClientError::Abandoned { .. }
            | ClientError::Closed => ErrorKind::Unavailable,
            ClientError::Refused { kind, .. } | ClientError::NotSent { kind, .. } => *kind,
            ClientError::Storage { source, .. } => source.kind(),
        }
    }
}

impl From<MetadataError> for ClientError {
    fn from(error: MetadataError) -> Self {
        ClientError::Metadata(Arc::new(error))
    }
}

impl From<BatchError> for ClientError {
    fn from(error: BatchError) -> Self {
        ClientError::Record(Arc::new(error))
    }
}
