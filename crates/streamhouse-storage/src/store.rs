//! An object store with segments in it.

use crate::{
    Result, Segment, StorageError, s3,
    segment::{SEGMENT_PREFIX, segment_of},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};
use std::{ops::Range, slice, sync::Arc};
use streamhouse_core::{ErrorKind, SegmentId};
use streamhouse_hooks::{
    Instance, Operation, Scope, Started,
    object::{self, Object},
};

/// Key of the object whose time of writing is [`SegmentStore::now_ms`]. It stays, written over each time: removing it would
/// pull it from under another that looks at it.
pub const CLOCK_OBJECT: &str = "clock";
const CLOCK_CONTENT: &[u8] = b"The time this was written is what matters.\n";

/// Puts, reads and removes segments, and tells the hooks of each operation. Clones are cheap and share everything.
#[derive(Clone)]
pub struct SegmentStore {
    objects: Arc<dyn ObjectStore>,
    scope: Arc<Scope>,
}

impl std::fmt::Debug for SegmentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentStore").field("objects", &self.objects).finish_non_exhaustive()
    }
}

/// An object that is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key.
    pub object: String,
    /// The segment in it; `None` when the key is not one that an agent writes.
    pub segment: Option<SegmentId>,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, in milliseconds since 1970-01-01 UTC by the object store's clock.
    pub modified_ms: i64,
}

impl SegmentStore {
    /// Segments in `objects`, used by `instance`.
    pub fn new(objects: Arc<dyn ObjectStore>, instance: &Instance) -> Self {
        Self { objects, scope: Arc::new(instance.scope("", None)) }
    }

    /// Stores a segment. When it returns, the object is as durable as the store makes it; it is part of the log only once
    /// it is committed. A put to S3 that is tried again, since an answer was lost, and finds its own object has succeeded.
    ///
    /// # Errors
    ///
    /// `Exists` when there is an object under the key: it is never overwritten. `Full` and `Unavailable` when the store
    /// failed; the object may be there or not, or appear later, and nobody reads it as long as it is not committed.
    /// `Refused` when bucket or credentials are not right.
    pub async fn put(&self, segment: &Segment) -> Result<()> {
        // Who gives a put up has had no answer.
        let mut put = self.begin(Operation::Put, ErrorKind::Unavailable.number());
        let key = Path::from(segment.object.as_str());
        let stored = self.objects.put_opts(&key, segment.payload.clone(), PutMode::Create.into()).await;
        let stored =
            stored.map(drop).map_err(|error| StorageError::of_store("store", &segment.object, error));
        put.status = status(&stored);
        put.bytes = if stored.is_ok() { segment.bytes } else { 0 };
        stored
    }

    /// Removes an object. One that is not there counts as removed.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the store failed; the object may still be there.
    pub async fn delete(&self, object: &str) -> Result<()> {
        let started = object::start();
        let removed = match self.objects.delete(&Path::from(object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StorageError::of_store("remove", object, error)),
        };
        self.tell(Operation::Delete, started, 0, removed)
    }

    /// A range of an object, whole.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such object, `Corrupt` when it ends before the range does, `Unavailable` when the store
    /// failed or its answer came only in part, `Refused` when bucket or credentials are not right.
    pub async fn get(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        let started = object::start();
        // `get_ranges` is one hop to a blocking thread on local files, `get_range` two.
        let ranges = self.objects.get_ranges(&Path::from(object), slice::from_ref(&range)).await;
        let got = match ranges.map(|mut ranges| ranges.pop().unwrap_or_default()) {
            Ok(bytes) if bytes.len() as u64 == range.end.saturating_sub(range.start) => Ok(bytes),
            Ok(bytes) => Err(short(object, range.start + bytes.len() as u64)),
            Err(error) => Err(StorageError::of_store("read", object, error)),
        };
        let bytes = got.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self.tell(Operation::Get, started, bytes, got) {
            // Stores say "out of range" each in its own words, and an answer that is too short is no proof that the object
            // is: ask for the size.
            Err(StorageError::Unavailable { operation, object, source }) if !s3::did_not_answer(&source) => {
                match self.size(&object).await {
                    Ok(size) if size < range.end => Err(ends_early(&object, size, range.end)),
                    _ => Err(StorageError::Unavailable { operation, object, source }),
                }
            }
            got => got,
        }
    }

    /// Size of an object, in bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such object, `Unavailable` when the store failed.
    pub async fn size(&self, object: &str) -> Result<u64> {
        let started = object::start();
        let meta = self.objects.head(&Path::from(object)).await;
        let size =
            meta.map(|meta| meta.size).map_err(|error| StorageError::of_store("look at", object, error));
        self.tell(Operation::Head, started, 0, size)
    }

    /// Every object where segments are, in no order, page by page: to find those that no commit knows. One that is stored
    /// or removed meanwhile may be listed or not. Whether an object is old enough to be removed is for
    /// [`now_ms`](Self::now_ms), taken before the listing, to say: the store's clock and this machine's differ. The hooks are
    /// told once, when the listing ends.
    ///
    /// # Errors
    ///
    /// Items are `Unavailable` when the store failed.
    pub fn list(&self) -> impl Stream<Item = Result<StoredObject>> + Send + 'static {
        let listing = self.begin(Operation::List, 0);
        let objects = self.objects.list(Some(&Path::from(SEGMENT_PREFIX)));
        objects.scan(listing, |listing, found| {
            let found = found.map_err(|error| StorageError::of_store("list", SEGMENT_PREFIX, error));
            listing.status = status(&found);
            std::future::ready(Some(found.map(|meta| StoredObject {
                segment: segment_of(meta.location.as_ref()),
                object: meta.location.to_string(),
                bytes: meta.size,
                modified_ms: meta.last_modified.timestamp_millis(),
            })))
        })
    }

    /// The time by the object store's clock, which is what [`StoredObject::modified_ms`] is by, in milliseconds since
    /// 1970-01-01 UTC; S3 tells it in whole seconds, rounded down. Writes a small object, [`CLOCK_OBJECT`], and looks at it:
    /// two operations, and proof that the store can be written.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), without `Exists`.
    pub async fn now_ms(&self) -> Result<i64> {
        let key = Path::from(CLOCK_OBJECT);
        let started = object::start();
        let put = self.objects.put(&key, PutPayload::from_static(CLOCK_CONTENT)).await;
        let written = put.map(drop).map_err(|error| StorageError::of_store("store", CLOCK_OBJECT, error));
        let bytes = if written.is_ok() { CLOCK_CONTENT.len() as u64 } else { 0 };
        self.tell(Operation::Put, started, bytes, written)?;
        let started = object::start();
        let found = self.objects.head(&key).await;
        let now = found
            .map(|found| found.last_modified.timestamp_millis())
            .map_err(|error| StorageError::of_store("look at", CLOCK_OBJECT, error));
        self.tell(Operation::Head, started, 0, now)
    }

    /// An operation that has this status unless it is given another.
    fn begin(&self, operation: Operation, status: u8) -> Underway {
        Underway { scope: Arc::clone(&self.scope), operation, bytes: 0, started: object::start(), status }
    }

    fn tell<T>(&self, operation: Operation, started: Started, bytes: u64, result: Result<T>) -> Result<T> {
        object::object(&self.scope, Object { operation, bytes, started, status: status(&result) });
        result
    }
}

/// An operation under way; its end, also when nobody waits for it any more, is what the hooks are told of.
struct Underway {
    scope: Arc<Scope>,
    operation: Operation,
    bytes: u64,
    started: Started,
    status: u8,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let Underway { operation, bytes, started, status, .. } = *self;
        object::object(&self.scope, Object { operation, bytes, started, status });
    }
}

fn status<T>(result: &Result<T>) -> u8 {
    result.as_ref().err().map_or(0, |error| error.kind().number())
}

fn short(object: &str, end: u64) -> StorageError {
    let problem = format!("the answer ends at byte {end}");
    let source = object_store::Error::Generic { store: "segments", source: problem.into() };
    StorageError::Unavailable { operation: "read", object: object.to_owned(), source }
}

fn ends_early(object: &str, size: u64, expected: u64) -> StorageError {
    StorageError::Corrupt {
        object: object.to_owned(),
        position: size,
        problem: format!("it ends here, before byte {expected}"),
    }
}
