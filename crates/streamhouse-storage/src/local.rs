//! A directory as an object store that keeps what it acknowledged.

use crate::{Result, StorageError, segment::SEGMENT_PREFIX};
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, local::LocalFileSystem,
    path::Path as ObjectPath,
};
use std::{
    fmt,
    fs::{self, File},
    io::{self, IoSlice, Write},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

/// Slices handed to one write; the kernel takes at most 1024.
const WRITE_SLICES: usize = 1024;

/// Opens `dir`, which [`create_local`] made, as an object store. For those who read: a mistyped path must not look like an
/// empty store.
///
/// # Errors
///
/// `Missing`, kind `NotFound`, when there is no object store in `dir`; `Open`, kind `Unavailable`, when it cannot be used.
pub fn open_local(dir: &Path) -> Result<Arc<dyn ObjectStore>> {
    match fs::metadata(dir.join(SEGMENT_PREFIX)) {
        Ok(segments) if segments.is_dir() => local(dir),
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(cannot_open(dir, error))
        }
        Ok(_) | Err(_) => Err(StorageError::Missing { path: dir.to_owned() }),
    }
}

/// Opens `dir` as an object store; it is created when it is missing. For those who write.
///
/// A `put` that returned is on disk: the object's bytes, its directory entry, and the entries of the directories above it.
/// An object that exists is never overwritten when the caller asks for its creation. A put that fails or is cut short by a
/// crash may leave a part of the object under its key; nobody reads it, since it was never committed (invariant 5).
///
/// Blocks for as long as the directory takes to sync; meant for a process's start.
///
/// # Errors
///
/// `Open`, kind `Unavailable`, when the directory cannot be made or used.
pub fn create_local(dir: &Path) -> Result<Arc<dyn ObjectStore>> {
    // The directory that segments go to exists and is on disk before the first of them: two puts at once never depend on
    // each other for its entry.
    create_durably(&dir.join(SEGMENT_PREFIX)).map_err(|error| cannot_open(dir, error))?;
    local(dir)
}

fn local(dir: &Path) -> Result<Arc<dyn ObjectStore>> {
    let files =
        LocalFileSystem::new_with_prefix(dir).map_err(|error| cannot_open(dir, io::Error::other(error)))?;
    Ok(Arc::new(Local { files: files.with_fsync(true) }))
}

fn cannot_open(dir: &Path, source: io::Error) -> StorageError {
    StorageError::Open { path: dir.to_owned(), source }
}

/// Creates a directory and those above it, and syncs them, so that their entries are on disk. Those that exist already
/// are synced too: another process may have made them a moment ago.
fn create_durably(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let dir = fs::canonicalize(dir)?;
    let device = fs::metadata(&dir)?.dev();
    for above in dir.ancestors() {
        // A directory of another file system, or one that we may not read, has no entry that we made.
        match File::open(above) {
            Ok(open) if open.metadata()?.dev() == device => open.sync_all()?,
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => break,
        }
    }
    Ok(())
}

/// [`LocalFileSystem`] with a `put` of its own for new objects: one journal commit instead of two, one write for many
/// chunks, and no staging file that a crash would leave behind for good.
#[derive(Debug)]
struct Local {
    files: LocalFileSystem,
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.files, f)
    }
}

#[async_trait]
impl ObjectStore for Local {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let path = self.files.path_to_filesystem(location)?;
        // The directory of the segments exists; whatever else is stored takes the general way.
        let ours =
            location.prefix_matches(&ObjectPath::from(SEGMENT_PREFIX)) && location.parts().count() == 2;
        if options.mode != PutMode::Create || !ours {
            return self.files.put_opts(location, payload, options).await;
        }
        let written = tokio::task::spawn_blocking(move || create(&path, &payload)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists { path: location.to_string(), source: source.into() })
            }
            Err(source) => Err(object_store::Error::Generic { store: "Local", source: source.into() }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> object_store::Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &ObjectPath,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<bytes::Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> object_store::Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: RenameOptions,
    ) -> object_store::Result<()> {
        self.files.rename_opts(from, to, options).await
    }
}

/// Writes a new file and syncs it, then its directory. A file that could not be written is removed again.
fn create(path: &Path, payload: &PutPayload) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    let written = write_all(&mut file, payload).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // The write's error says more than the removal's would.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    let dir = path.parent().ok_or_else(|| io::Error::other("an object has no directory"))?;
    File::open(dir)?.sync_all()
}

/// Writes every chunk, many with one system call.
fn write_all(file: &mut File, payload: &PutPayload) -> io::Result<()> {
    let mut chunks = payload.iter().filter(|chunk| !chunk.is_empty()).peekable();
    while chunks.peek().is_some() {
        let mut slices: Vec<_> =
            chunks.by_ref().take(WRITE_SLICES).map(|chunk| IoSlice::new(chunk)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
