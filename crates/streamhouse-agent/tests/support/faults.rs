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
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicName, TopicPartition};
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
    MetadataError::Unknown(sqlx::Error::WorkerCrashed)
}

fn refused() -> MetadataError {
    MetadataError::Unavailable(sqlx::Error::WorkerCrashed)
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
            Some(CommitFault::Busy) => Err(MetadataError::Busy(sqlx::Error::PoolTimedOut)),
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

    async fn ranges(&self, partition: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>> {
        self.inner.ranges(partition, offset, max).await
    }

    async fn segment_exists(&self, segment: SegmentId) -> Result<bool> {
        self.inner.segment_exists(segment).await
    }
}

#[async_trait]
impl Topics for FaultyMetadata {
    async fn create_topic(&self, name: &TopicName, partitions: u32) -> Result<Topic> {
        self.inner.create_topic(name, partitions).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic> {
        self.inner.topic(name).await
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        self.inner.topics().await
    }

    async fn partitions(&self, name: &TopicName) -> Result<Vec<PartitionInfo>> {
        self.inner.partitions(name).await
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        self.inner.watermarks(partitions).await
    }
}

#[async_trait]
impl Agents for FaultyMetadata {
    async fn register_agent(&self, agent: &AgentId, address: &str) -> Result<()> {
        self.inner.register_agent(agent, address).await
    }

    async fn heartbeat(&self, agent: &AgentId) -> Result<()> {
        self.inner.heartbeat(agent).await
    }

    async fn deregister_agent(&self, agent: &AgentId) -> Result<()> {
        self.inner.deregister_agent(agent).await
    }

    async fn agents(&self) -> Result<Vec<AgentInfo>> {
        self.inner.agents().await
    }

    async fn new_producer_id(&self) -> Result<u64> {
        self.inner.new_producer_id().await
    }
}

#[async_trait]
impl Leases for FaultyMetadata {
    async fn acquire_leases(&self, agent: &AgentId, term: Duration, max: u32) -> Result<Vec<Lease>> {
        self.inner.acquire_leases(agent, term, max).await
    }

    async fn renew_leases(
        &self,
        agent: &AgentId,
        leases: &[(TopicPartition, u64)],
        term: Duration,
    ) -> Result<Vec<TopicPartition>> {
        self.inner.renew_leases(agent, leases, term).await
    }

    async fn release_leases(&self, agent: &AgentId) -> Result<()> {
        self.inner.release_leases(agent).await
    }

    async fn expire_all_leases(&self) -> Result<()> {
        self.inner.expire_all_leases().await
    }
}

#[async_trait]
impl Groups for FaultyMetadata {
    async fn commit_offsets(&self, group: &GroupId, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        self.inner.commit_offsets(group, offsets).await
    }

    async fn group_offsets(
        &self,
        group: &GroupId,
        partitions: &[TopicPartition],
    ) -> Result<Vec<GroupOffset>> {
        self.inner.group_offsets(group, partitions).await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.inner.groups().await
    }

    async fn describe_group(&self, group: &GroupId) -> Result<Vec<GroupOffset>> {
        self.inner.describe_group(group).await
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
