//! Why a batch was not written, and why an agent did not start.

use crate::flush::SequenceError;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use streamhouse_core::{
    AsTyped, ErrorKind, InvalidName, TopicPartition,
    batch::BatchError,
    limits::{BATCH_BYTES_MAX, REQUEST_BYTES_MAX},
};
use streamhouse_metadata::MetadataError;
use streamhouse_storage::StorageError;

/// Why a batch was not written. Nothing of the batch is in the log, unless the message says that it may be.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(
        "a batch of {bytes} bytes is too large; a batch has at most {BATCH_BYTES_MAX}, send smaller ones"
    )]
    BatchTooLarge { bytes: usize },
    #[error(
        "a request with {bytes} bytes of batches is too large; it may have {REQUEST_BYTES_MAX}, send its batches in several"
    )]
    RequestTooLarge { bytes: usize },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// What the flusher knows; the service asks the metadata store for one of the next three before it answers.
    #[error("this agent does not lease {0}")]
    NotLeased(TopicPartition),
    #[error("{0}")]
    Lookup(Arc<MetadataError>),
    #[error("this agent does not lease {partition}: agent {holder} does, at {address}; send it there")]
    HeldElsewhere { partition: TopicPartition, holder: String, address: String },
    #[error("no agent leases {0} yet; this one will try to, send the batch again")]
    Unassigned(TopicPartition),
    #[error(
        "this agent has lost its lease of {0}; look up who holds the partition now and send the batch there"
    )]
    LeaseLost(TopicPartition),
    #[error(
        "this agent hands {0} over to another; look up who holds the partition now and send the batch there"
    )]
    HandedOver(TopicPartition),
    #[error("the segment could not be stored: {0}")]
    Store(Arc<StorageError>),
    #[error(
        "the segment was not stored within {} (at most a lease term): the object store does not answer; look at its disk or service, the agent goes on trying with what is sent again",
        AsTyped(*.0)
    )]
    StoreTimeout(Duration),
    #[error("the segment could not be committed: {0}")]
    Commit(Arc<MetadataError>),
    #[error(
        "a flush was not committed within {} (at most a lease term) and was given up; it may have been committed, send the batch again: it is stored once if it carries a producer id",
        AsTyped(*.0)
    )]
    Abandoned(Duration),
    #[error(
        "a flush could not be committed within {} (at most a lease term) because the one before it was not; nothing of it was written, send the batch again",
        AsTyped(*.0)
    )]
    TooLate(Duration),
    #[error("the agent shuts down; send the batch to the partition's next holder")]
    ShuttingDown,
}

impl WriteError {
    /// How the producer should react.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            WriteError::Name(_) | WriteError::BatchTooLarge { .. } | WriteError::RequestTooLarge { .. } => {
                ErrorKind::Invalid
            }
            WriteError::Batch(error) => error.kind(),
            WriteError::Sequence(error) => error.kind(),
            WriteError::Lookup(error) => error.kind(),
            WriteError::NotLeased(_)
            | WriteError::HeldElsewhere { .. }
            | WriteError::LeaseLost(_)
            | WriteError::HandedOver(_) => ErrorKind::Fenced,
            WriteError::Unassigned(_)
            | WriteError::Abandoned(_)
            | WriteError::TooLate(_)
            | WriteError::ShuttingDown => ErrorKind::Retry,
            // Whatever is wrong behind the agent, nothing is wrong with the batch: it may be sent again.
            WriteError::Store(_) | WriteError::StoreTimeout(_) => ErrorKind::Unavailable,
            WriteError::Commit(error) => match error.kind() {
                ErrorKind::Retry => ErrorKind::Retry,
                ErrorKind::Fenced
                | ErrorKind::Invalid
                | ErrorKind::NotFound
                | ErrorKind::Corrupt
                | ErrorKind::Unavailable => ErrorKind::Unavailable,
            },
        }
    }
}

/// What else can be done about an address that cannot be listened on.
fn instead_of_another(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, most often another agent, or ",
        io::ErrorKind::PermissionDenied => "give the agent the right to (ports below 1024 need it), or ",
        // It is none of this host's.
        _ => "",
    }
}

/// Why an agent did not start, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {}choose another with {flag}", instead_of_another(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The metadata store cannot be used, or another agent uses it.
    #[error("{0}")]
    Metadata(#[from] MetadataError),
    /// Another agent lives under the id.
    #[error(
        "another agent, at {address}, runs under the id {agent}; stop it, or give this one an --agent-id of its own"
    )]
    IdInUse {
        /// The id.
        agent: String,
        /// Where the other answers.
        address: String,
    },
    /// The object store cannot be used.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// The object store cannot be written.
    #[error("no record could be stored; an object to try it with could not be stored and removed: {0}")]
    NotWritable(#[source] StorageError),
    /// The object store does not answer.
    #[error(
        "no record could be stored; an object to try it with was not stored and removed within {} (at most a lease term): look at the object store's disk or service",
        AsTyped(*.0)
    )]
    StoreTimeout(Duration),
}
