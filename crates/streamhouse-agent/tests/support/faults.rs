//! Stores that fail when told to.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::{fmt, future::pending, io, time::Duration};
use streamhouse_core::{AgentId, GroupId, MemberId, SegmentId, TopicName, TopicPartition};
use streamhouse_metadata::*;
use tokio::sync::Notify;

/// What goes wrong next, each once, in order; when a queue is empty all is well.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) puts: Mutex<VecDeque<PutFault>>,
    pub(crate) commits: Mutex<VecDeque<CommitFault>>,
    /// Calls of `flush_outcome` that fail.
    pub(crate) outcomes: Mutex<u32>,
    /// Removals of objects that fail.
    pub(crate) deletes: Mutex<u32>,
    /// Told when a commit or put meets a fault.
    pub(crate) met: Notify,
    /// What `CommitFault::RefusedWhenTold` and `PutFault::SlowUntilTold` wait for.
    pub(crate) told: Notify,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PutFault {
    Full,
    Hangs,
    SlowUntilTold,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum CommitFault {
    /// Nothing happens, and the store says so.
    Refused,
    /// The same, but not before the test says so.
    RefusedWhenTold,
    Busy,
    /// It commits, and says that it does not know.
    DoneButUnknown,
    /// It does not commit, and says that it does not know.
    NotDoneAndUnknown,
    Hangs,
}

impl Faults {
    pub(crate) fn puts(&self, faults: impl IntoIterator<Item = PutFault>) {
        self.puts.lock().unwrap().extend(faults);
    }

    pub(crate) fn commits(&self, faults: impl IntoIterator<Item = CommitFault>) {
        self.commits.lock().unwrap().extend(faults);
    }

    fn next_put(&self) -> Option<PutFault> {
        self.puts.lock().unwrap().pop_front().inspect(|_| self.met.notify_one())
    }

    fn next_commit(&self) -> Option<CommitFault> {
        self.commits.lock().unwrap().pop_front().inspect(|_| self.met.notify_one())
    }
}

fn unknown() -> MetadataError {
    MetadataError::Unknown("made by the test".into())
}

fn refused() -> MetadataError {
    MetadataError::Unavailable("made by the test".into())
}

/// A metadata store whose commits fail.
pub(crate) struct FaultyMetadata {
    inner: Arc<dyn MetadataStore>,
    faults: Arc<Faults>,
}

impl FaultyMetadata {
    pub(crate) fn new(inner: Arc<dyn MetadataStore>, faults: Arc<Faults>) -> FaultyMetadata {
        FaultyMetadata { inner, faults }
    }
}

#[async_trait]
impl Segments for FaultyMetadata {
    async fn commit_flush(&self, flush: &Flush) -> Result<Vec<RangeOutcome>> {
        match self.faults.next_commit() {
            None => self.inner.commit_flush(flush).await,
            Some(CommitFault::Refused) => Err(refused()),
            Some(CommitFault::RefusedWhenTold) => {
                self.faults.told.notified().await;
                Err(refused())
            }
            Some(CommitFault::Busy) => Err(MetadataError::Busy("made by the test".into())),
            Some(CommitFault::DoneButUnknown) => {
                self.inner.commit_flush(flush).await?;
                Err(unknown())
            }
            Some(CommitFault::NotDoneAndUnknown) => Err(unknown()),
            Some(CommitFault::Hangs) => pending().await,
        }
    }

    async fn flush_outcome(&self, flush: &Flush) -> Result<Option<Vec<RangeOutcome>>> {
        let fails = {
            let mut left = self.faults.outcomes.lock().unwrap();
            let fails = *left > 0;
            *left = left.saturating_sub(1);
            fails
        };
        if fails { Err(refused()) } else { self.inner.flush_outcome(flush).await }
    }

    async fn committed_segments(&self, segments: &[SegmentId]) -> Result<Vec<SegmentId>> {
        self.inner.committed_segments(segments).await
    }
}

/// Passes calls on as they are.
macro_rules! pass_on {
    ($($trait:ident { $($name:ident($($arg:ident: $type:ty),*) -> $given:ty;)* })*) => {$(
        #[async_trait]
        impl $trait for FaultyMetadata {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$given> {
                self.inner.$name($($arg),*).await
            })*
        }
    )*};
}

pass_on! {
    Topics {
        create_topic(name: &TopicName, partitions: u32, retention: Retention) -> Topic;
        set_retention(name: &TopicName, retention: Retention) -> Topic;
        delete_topic(name: &TopicName) -> ();
        topic(name: &TopicName) -> Topic;
        topics() -> Vec<Topic>;
        partitions(name: &TopicName) -> Vec<PartitionInfo>;
        watermarks(partitions: &[TopicPartition]) -> Vec<Watermarks>;
    }
    Producers {
        new_producer_id() -> u64;
    }
    Agents {
        register_agent(agent: &AgentId, address: &str) -> ();
        heartbeat(agent: &AgentId) -> ();
        deregister_agent(agent: &AgentId) -> ();
        agents() -> Vec<AgentInfo>;
    }
    Leases {
        lease_table() -> Vec<LeaseRow>;
        any_lease_free() -> bool;
        acquire_leases(agent: &AgentId, term: Duration, wanted: &[TopicPartition]) -> Vec<Lease>;
        renew_leases(agent: &AgentId, leases: &[(TopicPartition, u64)], term: Duration) -> Vec<TopicPartition>;
        release_leases(agent: &AgentId, leases: &[(TopicPartition, u64)]) -> ();
        release_all_leases(agent: &AgentId) -> ();
        expire_all_leases() -> ();
    }
    SegmentRanges {
        ranges(partition: &TopicPartition, offset: u64, max: u32) -> Vec<SegmentRange>;
    }
    Groups {
        commit_offsets(group: &GroupId, member: Option<&MemberId>, offsets: &[OffsetCommit]) -> ();
        group_offsets(group: &GroupId, partitions: &[TopicPartition]) -> Vec<GroupOffset>;
        groups() -> Vec<Group>;
        describe_group(group: &GroupId) -> Vec<GroupOffset>;
        delete_group(group: &GroupId) -> ();
    }
    Members {
        join_group(group: &GroupId, member: &MemberId, topics: &[TopicName], session: Duration) -> GroupView;
        heartbeat_member(group: &GroupId, member: &MemberId, session: Duration) -> GroupView;
        claim_partitions(group: &GroupId, member: &MemberId, wanted: &[TopicPartition]) -> Vec<Claimed>;
        release_claims(group: &GroupId, member: &MemberId, partitions: &[TopicPartition]) -> ();
        leave_group(group: &GroupId, member: &MemberId) -> ();
        group_view(group: &GroupId) -> GroupView;
    }
    Upkeep {
        take_duty(duty: Duty, agent: &AgentId, term: Duration) -> bool;
        apply_retention() -> Vec<(TopicPartition, u64)>;
        dead_segments(grace: Duration, max: u32) -> Vec<DeadSegment>;
        forget_segments(segments: &[SegmentId]) -> ();
        group_lags(partitions: &[TopicPartition]) -> Vec<(GroupId, GroupOffset)>;
    }
}

/// An object store whose puts fail.
pub(crate) struct FaultyObjects {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
}

impl FaultyObjects {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, faults: Arc<Faults>) -> FaultyObjects {
        FaultyObjects { inner, faults }
    }
}

impl fmt::Debug for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyObjects")
    }
}

impl fmt::Display for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyObjects")
    }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        match self.faults.next_put() {
            None => {}
            Some(PutFault::Full) => {
                let source = io::Error::from(io::ErrorKind::StorageFull).into();
                return Err(object_store::Error::Generic { store: "Faulty", source });
            }
            Some(PutFault::Hangs) => pending().await,
            Some(PutFault::SlowUntilTold) => self.faults.told.notified().await,
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let mut failing = self.faults.deletes.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into();
            let error = object_store::Error::Generic { store: "faulty", source };
            return futures::stream::once(async { Err(error) }).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
