use super::*;
use crate::{
    PartitionReader, Segment, SegmentStore,
    testing::{instance, location, object_of, partition, record_at, segment},
};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use std::process::Command;
use streamhouse_core::{ErrorKind, SegmentId};

fn open(dir: &Path) -> SegmentStore {
    SegmentStore::new(create_local(dir).unwrap(), &instance())
}

fn small(id: u128) -> Segment {
    segment(id, &partition("t", 0), 0, &[2, 3], 0)
}

#[tokio::test]
async fn what_is_put_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("a/b"));
    let segment = small(1);
    store.put(&segment).await.unwrap();
    let object = store.get(&segment.object, 0..segment.bytes).await.unwrap();
    assert_eq!(object, object_of(&segment));
    assert_eq!(store.size(&segment.object).await.unwrap(), segment.bytes);

    let mut listed: Vec<_> = store.list().try_collect().await.unwrap();
    let listed = listed.pop().filter(|_| listed.is_empty()).unwrap();
    assert_eq!((listed.segment, listed.bytes), (Some(SegmentId(1)), segment.bytes));
    assert_eq!(listed.object, segment.object);
    assert!(listed.modified_ms > 1_600_000_000_000);

    store.delete(&segment.object).await.unwrap();
    store.delete(&segment.object).await.unwrap();
    let error = store.get(&segment.object, 0..1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_exists_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = small(1);
    store.put(&first).await.unwrap();
    let other = segment(1, &partition("other", 0), 0, &[9], 0);
    let error = store.put(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("exists already"), "{error}");
    assert_eq!(store.get(&first.object, 0..first.bytes).await.unwrap(), object_of(&first));
}

#[tokio::test]
async fn many_chunks_become_one_object() {
    let dir = tempfile::tempdir().unwrap();
    let records = vec![1; 3 * WRITE_SLICES];
    let segment = segment(1, &partition("t", 0), 0, &records, 0);
    let store = open(dir.path());
    store.put(&segment).await.unwrap();
    assert_eq!(store.get(&segment.object, 0..segment.bytes).await.unwrap(), object_of(&segment));
}

#[tokio::test]
async fn other_objects_take_the_general_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = create_local(dir.path()).unwrap();
    let key = ObjectPath::from("new/dir/object");
    for content in ["one", "two"] {
        store.put(&key, content.into()).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), content);
    }
}

#[tokio::test]
async fn an_object_that_was_cut_is_corrupt_and_one_that_is_gone_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let segment = small(1);
    store.put(&segment).await.unwrap();
    let path = dir.path().join(&segment.object);
    let range = location(&segment, &segment.ranges[0]);
    for len in 0..segment.ranges[0].bytes {
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let mut reader = PartitionReader::new(store.clone(), partition("t", 0));
        reader.open(range.clone(), 0).unwrap();
        let error = reader.read(10, 1000, |_, _| panic!("no record")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut to {len}: {error}");
        fs::write(&path, object_of(&segment)).unwrap();
    }
    fs::remove_file(&path).unwrap();
    let mut reader = PartitionReader::new(store, partition("t", 0));
    reader.open(range, 0).unwrap();
    let error = reader.read(10, 1000, |_, _| panic!("no record")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = create_local(file.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let path = file.path().display().to_string();
    assert!(error.to_string().contains(&path), "{error}");
}

#[tokio::test]
async fn whoever_reads_finds_what_was_created_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects");
    let missing = |path: &Path| {
        let error = open_local(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let message = error.to_string();
        let says = format!("there is no object store in {}; give the directory", path.display());
        assert!(message.starts_with(&says), "{message}");
    };
    missing(&path);
    assert!(!path.exists());
    // A directory without segments is some other directory.
    missing(dir.path());
    missing(tempfile::NamedTempFile::new().unwrap().path());

    let segment = small(1);
    open(&path).put(&segment).await.unwrap();
    let reader = SegmentStore::new(open_local(&path).unwrap(), &instance());
    assert_eq!(reader.get(&segment.object, 0..segment.bytes).await.unwrap(), object_of(&segment));
}

/// A small file system of its own, gone with the value.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_behind() {
    let Some(tmpfs) = Tmpfs::mount() else {
        println!("skipped: needs to mount a tmpfs, which this user may not");
        return;
    };
    let store = open(tmpfs.0.path());
    let large = segment(1, &partition("t", 0), 3, &[400], 1000);
    let error = store.put(&large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with("no space is left to store segments/"), "{error}");
    assert!(!tmpfs.0.path().join(&large.object).exists());

    let small = small(2);
    store.put(&small).await.unwrap();
    let mut reader = PartitionReader::new(store, partition("t", 0));
    reader.open(location(&small, &small.ranges[0]), 4).unwrap();
    let mut read = Vec::new();
    reader.read(10, 1000, |offset, record| read.push((offset, record))).await.unwrap();
    assert_eq!(read, [(4, record_at(4, 0))]);
}
