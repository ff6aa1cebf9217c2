//! What the tests share: partitions with known records, and a store that remembers what was asked of it.

use crate::{RangeLayout, RangeLocation, Segment, SegmentBuilder, SegmentStore};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};
use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use streamhouse_core::{
    Record, SegmentId, TopicName, TopicPartition,
    batch::{BatchBuilder, Compression},
};
use streamhouse_hooks::{Instance, Role};

pub(crate) fn partition(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicName::new(topic).unwrap(), partition }
}

pub(crate) fn instance() -> Instance {
    Instance::new(Role::Consumer, "test", "")
}

/// The record that belongs at an offset.
pub(crate) fn record_at(offset: u64, value_bytes: usize) -> Record {
    let mut value = format!("value {offset}").into_bytes();
    value.resize(value_bytes.max(value.len()), b'.');
    let key = (!offset.is_multiple_of(3)).then(|| Bytes::from(format!("key {offset}")));
    Record { timestamp_ms: 1_700_000_000_000 + offset as i64, key, value: value.into(), headers: Vec::new() }
}

/// Batches with so many records each, from an offset on.
pub(crate) fn batches(base_offset: u64, records: &[u32], value_bytes: usize) -> Vec<Bytes> {
    let mut offset = base_offset;
    let batch = |&records: &u32| {
        let mut builder = BatchBuilder::new(Compression::ALL[(offset % 3) as usize]);
        for _ in 0..records {
            let Record { timestamp_ms, key, value, headers } = record_at(offset, value_bytes);
            builder.push(timestamp_ms, key.as_deref(), &value, &headers).unwrap();
            offset += 1;
        }
        builder.finish(None)
    };
    records.iter().map(batch).collect()
}

/// A segment with one partition.
pub(crate) fn segment(
    id: u128,
    of: &TopicPartition,
    base_offset: u64,
    records: &[u32],
    value_bytes: usize,
) -> Segment {
    let mut builder = SegmentBuilder::new();
    builder.add(of.clone(), base_offset, batches(base_offset, records, value_bytes)).unwrap();
    builder.finish(SegmentId(id))
}

/// A segment's object.
pub(crate) fn object_of(segment: &Segment) -> Bytes {
    segment.payload.clone().into()
}

/// Where metadata would say that a range is.
pub(crate) fn location(segment: &Segment, range: &RangeLayout) -> RangeLocation {
    RangeLocation {
        segment: segment.id,
        object: segment.object.clone(),
        base_offset: range.base_offset,
        end_offset: range.base_offset + range.records,
        position: range.position,
        bytes: range.bytes,
        index_position: range.index_position,
        index_bytes: range.index_bytes,
    }
}

/// A store in memory that notes each range that is read, and can be told to fail or to hang once.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    objects: InMemory,
    gets: Mutex<Vec<Range<u64>>>,
    fails: AtomicBool,
    hangs: AtomicBool,
}

impl Watched {
    pub(crate) fn store(self: &Arc<Self>) -> SegmentStore {
        SegmentStore::new(self.clone(), &instance())
    }

    /// What was read since the last call.
    pub(crate) fn take_gets(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.gets.lock().unwrap())
    }

    pub(crate) fn fail_once(&self) {
        self.fails.store(true, Ordering::Relaxed);
    }

    pub(crate) fn hang_once(&self) {
        self.hangs.store(true, Ordering::Relaxed);
    }

    /// Puts an object as it is, also over another.
    pub(crate) async fn overwrite(&self, object: &str, bytes: Bytes) {
        self.objects.put_opts(&Path::from(object), bytes.into(), PutOptions::default()).await.unwrap();
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.gets.lock().unwrap().extend_from_slice(ranges);
        if self.hangs.swap(false, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.fails.swap(false, Ordering::Relaxed) {
            return Err(object_store::Error::Generic { store: "Watched", source: "told to fail".into() });
        }
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
