//! A bucket as an object store: each object is created once, each operation ends.
//!
//! A put whose answer is lost, or that is answered with an error after it was carried out, is sent again and meets the
//! object that it made itself: the server says that there is one. Only then, after an attempt whose outcome is not known,
//! the object is looked at: the key holds 128 random bits that were drawn for this very segment, so an object of the same
//! size under it is the one that was sent. Without such an attempt, an object that is there is somebody else's.

use super::http::{Late, Uncertain};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    aws::AmazonS3, path::Path,
};
use std::{fmt, ops::Range, time::Duration};

/// Objects removed at a time when many are.
const DELETES: usize = 8;

#[derive(Clone)]
pub(crate) struct S3Store {
    client: AmazonS3,
    timeout: Duration,
}

impl S3Store {
    /// Operations on one object end within `timeout`, which should be above what the client's retries take.
    pub(crate) fn new(client: AmazonS3, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    async fn in_time<T>(&self, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let late = Late { what: "the operation did not end", wait: self.timeout };
        let ended = tokio::time::timeout(self.timeout, operation).await;
        ended.unwrap_or_else(|_| Err(Error::Generic { store: "S3", source: late.into() }))
    }

    async fn create(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let uncertain = Uncertain::default();
        options.extensions.insert(uncertain.clone());
        let bytes = payload.content_length() as u64;
        match self.client.put_opts(location, payload, options).await {
            Err(exists @ Error::AlreadyExists { .. }) if uncertain.is_set() => {
                let found = self.client.head(location).await?;
                if found.size != bytes {
                    return Err(exists);
                }
                Ok(PutResult { e_tag: found.e_tag, version: found.version, extensions: Default::default() })
            }
            put => put,
        }
    }
}

/// The client's own says too much.
impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.client, f)
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => self.in_time(self.create(location, payload, options)).await,
            _ => self.in_time(self.client.put_opts(location, payload, options)).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.client.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.in_time(self.client.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.in_time(self.client.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                store.in_time(store.client.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.map(delete).buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.client.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.client.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.client.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.in_time(self.client.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.in_time(self.client.rename_opts(from, to, options)).await
    }
}
