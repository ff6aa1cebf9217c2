//! What can go wrong with stored objects.

use crate::s3;
use std::{error::Error, io, path::PathBuf};
use streamhouse_core::{ErrorKind, SegmentId, TopicPartition, batch::BatchError};

/// Result of a storage call.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// What went wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The object does not exist.
    #[error(
        "object {object} does not exist; retention may have removed it since its range was listed, list the ranges again"
    )]
    NotFound {
        /// Its key.
        object: String,
    },
    /// The object exists already and was left as it is.
    #[error(
        "object {object} exists already and was not overwritten; an earlier attempt may have stored it, else write under a new segment id"
    )]
    Exists {
        /// Its key.
        object: String,
    },
    /// No space is left.
    #[error("no space is left to {operation} {object}; free some, or give the object store a larger disk")]
    Full {
        /// What was done.
        operation: &'static str,
        /// Its key.
        object: String,
        /// What the object store said.
        #[source]
        source: object_store::Error,
    },
    /// The object store failed.
    #[error(
        "the object store failed to {operation} {object}: {source}; check that it is there and may be used"
    )]
    Unavailable {
        /// What was done.
        operation: &'static str,
        /// Its key.
        object: String,
        /// What the object store said.
        #[source]
        source: object_store::Error,
    },
    /// The object store refused, and will until an operator acts: the bucket, the credentials, their permissions.
    #[error("the object store refused to {operation} {object}: {problem}")]
    Refused {
        /// What was to be done.
        operation: &'static str,
        /// Its key.
        object: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Text that is no object store's URL.
    #[error(
        "the object store's URL cannot be used: {problem}; give s3://BUCKET/PREFIX, file:///DIRECTORY, or the path of a \
         directory"
    )]
    Url {
        /// What is wrong.
        problem: String,
    },
    /// An object store whose settings make no client.
    #[error("cannot use {url} as an object store: {problem}")]
    Settings {
        /// Its URL.
        url: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// There is no local object store.
    #[error(
        "there is no object store in {}; give the directory that the agent uses, or start an agent, which creates it",
        path.display()
    )]
    Missing {
        /// The directory that was given.
        path: PathBuf,
    },
    /// A local object store could not be opened.
    #[error("cannot use {} as an object store: {source}; check the path and its permissions", path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("object {object} is damaged at byte {position}: {problem}; restore it from a copy")]
    Corrupt {
        /// Its key.
        object: String,
        /// Where in the object.
        position: u64,
        /// What is wrong.
        problem: String,
    },
    /// A batch is stored as its producer sent it, checksum and all, and still its records cannot be decoded.
    #[error(
        "the batch at byte {position} of object {object} is stored as it was sent and cannot be decoded: {source}; \
         correct the producer, since no copy of the object differs"
    )]
    Malformed {
        /// The object's key.
        object: String,
        /// Where in the object.
        position: u64,
        /// First offset behind the batch: reading can go on there.
        end_offset: u64,
        /// What is wrong.
        #[source]
        source: BatchError,
    },
    /// A range that no commit can have made, or an offset that it does not hold.
    #[error(
        "a range of {partition} in {object} cannot be read: {problem}; the metadata and the object disagree"
    )]
    Range {
        /// The partition.
        partition: TopicPartition,
        /// Object key.
        object: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A batch that cannot be put into a segment.
    #[error("a batch of {partition} cannot be stored: {source}")]
    Batch {
        /// The partition.
        partition: TopicPartition,
        /// What is wrong with it.
        #[source]
        source: BatchError,
    },
    /// A segment that cannot be built.
    #[error("{partition} cannot be added to a segment: {problem}")]
    Build {
        /// The partition.
        partition: TopicPartition,
        /// What is wrong.
        problem: &'static str,
    },
    /// A segment's bytes are not what was written, found without an object store.
    #[error("segment {} is damaged at byte {position}: {problem}", segment.map_or("(id unknown)".to_owned(), |id| id.to_string()))]
    Segment {
        /// The segment, when its footer could be read.
        segment: Option<SegmentId>,
        /// Where.
        position: u64,
        /// What is wrong.
        problem: String,
    },
}

impl StorageError {
    /// How the caller should react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StorageError::NotFound { .. } | StorageError::Missing { .. } => ErrorKind::NotFound,
            StorageError::Exists { .. }
            | StorageError::Build { .. }
            | StorageError::Url { .. }
            | StorageError::Settings { .. } => ErrorKind::Invalid,
            StorageError::Full { .. }
            | StorageError::Unavailable { .. }
            | StorageError::Refused { .. }
            | StorageError::Open { .. } => ErrorKind::Unavailable,
            StorageError::Corrupt { .. }
            | StorageError::Malformed { .. }
            | StorageError::Range { .. }
            | StorageError::Segment { .. } => ErrorKind::Corrupt,
            StorageError::Batch { source, .. } => source.kind(),
        }
    }

    /// What an object store's error means when `operation` was done to `object`.
    pub(crate) fn of_store(operation: &'static str, object: &str, source: object_store::Error) -> Self {
        let object = object.to_owned();
        if let Some(problem) = s3::refusal(&source) {
            return StorageError::Refused { operation, object, problem };
        }
        match source {
            object_store::Error::NotFound { .. } => StorageError::NotFound { object },
            object_store::Error::AlreadyExists { .. } => StorageError::Exists { object },
            source if is_full(&source) || s3::is_full(&source) => {
                StorageError::Full { operation, object, source }
            }
            source => StorageError::Unavailable { operation, object, source },
        }
    }
}

/// Whether the disk or the quota is exhausted; the system's error is somewhere down the chain.
fn is_full(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
