//! One suite for every object store: a directory, a bucket, and a part of a bucket.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use bytes::Bytes;
use futures::TryStreamExt;
use std::{fs, path::PathBuf, time::Duration};
use streamhouse_core::{ErrorKind, SegmentId};
use streamhouse_storage::{
    CLOCK_OBJECT, ObjectStoreUrl, PartitionReader, RangeLocation, S3Settings, SegmentStore, StorageError,
    StoredObject, verify_segment,
};
use support::{
    s3::{BUCKET, S3Server},
    segments::{bytes_of, instance, partition, segment},
};
use tempfile::TempDir;

/// A store and what it needs.
struct Fixture {
    store: SegmentStore,
    /// Where its objects are as files.
    files: PathBuf,
    _server: Option<S3Server>,
    _directory: TempDir,
}

impl Fixture {
    async fn directory() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url: ObjectStoreUrl = format!("file://{}/objects", directory.path().display()).parse().unwrap();
        let objects = url.create().unwrap();
        let files = url.as_directory().unwrap().to_owned();
        Self { store: SegmentStore::new(objects, &instance()), files, _server: None, _directory: directory }
    }

    async fn bucket() -> Self {
        Self::s3("").await
    }

    async fn part_of_a_bucket() -> Self {
        Self::s3("teams/orders").await
    }

    async fn s3(prefix: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = S3Server::start(directory.path()).await;
        let mut settings = S3Settings::from_variables(server.variables());
        // Nothing here is about time, and the machine may be slow.
        settings.limits.answer_timeout = Duration::from_secs(60);
        settings.limits.operation_timeout = Duration::from_secs(120);
        let url: ObjectStoreUrl = format!("s3://{BUCKET}/{prefix}").parse().unwrap();
        let store = SegmentStore::new(url.create_with(&settings).unwrap(), &instance());
        let files = server.files().join(prefix);
        Self { store, files, _server: Some(server), _directory: directory }
    }

    async fn listed(&self) -> Vec<StoredObject> {
        let mut listed: Vec<_> = self.store.list().try_collect().await.unwrap();
        listed.sort_by(|one, other| one.object.cmp(&other.object));
        listed
    }
}

/// Runs each case on each store.
macro_rules! conformance {
    ($($case:ident)*) => {
        mod directory { $(#[tokio::test] async fn $case() { super::$case(super::Fixture::directory().await).await })* }
        mod bucket { $(#[tokio::test] async fn $case() { super::$case(super::Fixture::bucket().await).await })* }
        mod part_of_a_bucket {
            $(#[tokio::test] async fn $case() { super::$case(super::Fixture::part_of_a_bucket().await).await })*
        }
    };
}

conformance! {
    an_object_is_created_once
    ranges_are_what_was_put
    a_range_beyond_the_end_is_damage
    what_is_not_there_is_said_so
    a_listing_has_sizes_times_and_segments
    a_listing_has_many_pages
    removing_twice_is_removing
    a_segment_comes_back_as_it_went
    the_largest_segment_comes_back
    the_clock_is_the_one_of_the_listing
}

async fn an_object_is_created_once(fixture: Fixture) {
    let (first, mut second) = (segment(7, 1, 2, 100), segment(8, 3, 2, 100));
    second.object = first.object.clone();
    fixture.store.put(&first).await.unwrap();
    for again in [&first, &second] {
        let refused = fixture.store.put(again).await.unwrap_err();
        assert!(matches!(&refused, StorageError::Exists { object } if *object == first.object), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
    assert_eq!(fixture.store.get(&first.object, 0..first.bytes).await.unwrap(), bytes_of(&first));
    assert_eq!(fixture.store.size(&first.object).await.unwrap(), first.bytes);
}

async fn ranges_are_what_was_put(fixture: Fixture) {
    let segment = segment(1, 1, 3, 1000);
    let (whole, end) = (bytes_of(&segment), segment.bytes);
    fixture.store.put(&segment).await.unwrap();
    for range in [0..end, 0..1, end - 1..end, 17..18, 100..2000] {
        let expected = whole.slice(range.start as usize..range.end as usize);
        assert_eq!(fixture.store.get(&segment.object, range.clone()).await.unwrap(), expected, "{range:?}");
    }
}

async fn a_range_beyond_the_end_is_damage(fixture: Fixture) {
    let segment = segment(1, 1, 1, 100);
    fixture.store.put(&segment).await.unwrap();
    let end = segment.bytes;
    for range in [0..end + 1, end - 1..end + 5, end..end + 1, end + 10..end + 20] {
        let error = fixture.store.get(&segment.object, range.clone()).await.unwrap_err();
        assert!(
            matches!(&error, StorageError::Corrupt { position, .. } if *position == end),
            "{range:?}: {error}"
        );
    }
}

async fn what_is_not_there_is_said_so(fixture: Fixture) {
    let object = segment(1, 1, 1, 10).object;
    for error in
        [fixture.store.get(&object, 0..1).await.unwrap_err(), fixture.store.size(&object).await.unwrap_err()]
    {
        assert!(
            matches!(&error, StorageError::NotFound { object: missing } if *missing == object),
            "{error}"
        );
    }
}

async fn a_listing_has_sizes_times_and_segments(fixture: Fixture) {
    assert_eq!(fixture.listed().await, []);
    let before = fixture.store.now_ms().await.unwrap();
    let segments = [segment(1, 1, 1, 10), segment(2, 2, 1, 2000)];
    for segment in &segments {
        fixture.store.put(segment).await.unwrap();
    }
    fs::write(fixture.files.join("segments/notes.txt"), "not ours").unwrap();
    let after = fixture.store.now_ms().await.unwrap();
    let listed = fixture.listed().await;
    let found: Vec<_> =
        listed.iter().map(|found| (found.object.as_str(), found.segment, found.bytes)).collect();
    let [one, two] = &segments;
    assert_eq!(
        found,
        [
            (one.object.as_str(), Some(SegmentId(1)), one.bytes),
            (two.object.as_str(), Some(SegmentId(2)), two.bytes),
            ("segments/notes.txt", None, 8),
        ]
    );
    for found in listed {
        // S3 tells its clock in whole seconds.
        assert!((before..=after + 1000).contains(&found.modified_ms), "{before} {found:?} {after}");
    }
}

/// S3 lists at most a thousand objects an answer.
async fn a_listing_has_many_pages(fixture: Fixture) {
    let segments = fixture.files.join("segments");
    fs::create_dir_all(&segments).unwrap();
    for id in 0..2500 {
        fs::write(segments.join(format!("{}.seg", SegmentId(id))), [0; 3]).unwrap();
    }
    let mut found: Vec<_> = fixture.listed().await.iter().map(|found| found.segment.unwrap().0).collect();
    found.sort_unstable();
    assert_eq!(found, (0..2500).collect::<Vec<u128>>());
}

async fn removing_twice_is_removing(fixture: Fixture) {
    let (gone, kept) = (segment(1, 1, 1, 10), segment(2, 1, 1, 10));
    fixture.store.put(&gone).await.unwrap();
    fixture.store.put(&kept).await.unwrap();
    fixture.store.delete(&gone.object).await.unwrap();
    fixture.store.delete(&gone.object).await.unwrap();
    let listed: Vec<_> = fixture.listed().await.into_iter().map(|found| found.object).collect();
    assert_eq!(listed, [kept.object]);
    // A key is free again once its object is gone.
    fixture.store.put(&gone).await.unwrap();
}

async fn a_segment_comes_back_as_it_went(fixture: Fixture) {
    let segment = segment(9, 3, 5, 300);
    fixture.store.put(&segment).await.unwrap();
    let whole = fixture.store.get(&segment.object, 0..segment.bytes).await.unwrap();
    let summary = verify_segment(&whole).unwrap();
    assert_eq!((summary.id, &summary.ranges), (segment.id, &segment.ranges));

    let range = &segment.ranges[1];
    let mut reader = PartitionReader::new(fixture.store.clone(), partition(1));
    let location = RangeLocation {
        segment: segment.id,
        object: segment.object.clone(),
        base_offset: 0,
        end_offset: 5,
        position: range.position,
        bytes: range.bytes,
        index_position: range.index_position,
        index_bytes: range.index_bytes,
    };
    reader.open(location, 0).unwrap();
    let mut offsets = Vec::new();
    while !reader.is_at_end() {
        reader.read(100, 1 << 20, |offset, _| offsets.push(offset)).await.unwrap();
    }
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
}

/// In one request, from many chunks.
async fn the_largest_segment_comes_back(fixture: Fixture) {
    let segment = segment(1, 4, 16, 1_000_000);
    assert!(segment.bytes > 61 << 20 && segment.payload.iter().count() >= 64, "{}", segment.bytes);
    fixture.store.put(&segment).await.unwrap();
    let whole = fixture.store.get(&segment.object, 0..segment.bytes).await.unwrap();
    assert!(whole == bytes_of(&segment), "the bytes differ");
}

async fn the_clock_is_the_one_of_the_listing(fixture: Fixture) {
    let first = fixture.store.now_ms().await.unwrap();
    let second = fixture.store.now_ms().await.unwrap();
    assert!(first > 1_600_000_000_000 && second >= first, "{first} {second}");
    // It is kept, and kept away from the segments.
    let content: Bytes = fs::read(fixture.files.join(CLOCK_OBJECT)).unwrap().into();
    assert_eq!(fixture.store.get(CLOCK_OBJECT, 0..content.len() as u64).await.unwrap(), content);
    assert_eq!(fixture.listed().await, []);
}
