//! One file, several handles; and files that cannot be used: each is refused with a sentence that says what to do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;
use streamhouse_core::{ErrorKind, SegmentId, TopicName, TopicPartition};
use streamhouse_metadata::{
    DeadSegment, MetadataError, Producers, Result, Retention, SqliteMetadataStore, Topics, Upkeep,
};
use support::without_override;
use tempfile::TempDir;

fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

/// The error of opening this path, as one sentence. Nothing that was there is changed.
async fn refused(path: &Path) -> String {
    let read = || path.is_file().then(|| fs::read(path).ok());
    let before = read();
    let error = SqliteMetadataStore::new(path).await.expect_err("this path cannot be used");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(read() == before, "the file was changed: {error}");
    let message = error.to_string();
    assert!(!message.contains("(code: ") && !message.contains("with database"), "{message}");
    message
}

#[tokio::test]
async fn directories_are_created_and_what_was_written_is_found_again() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a/b/c/metadata.db");
    let store = SqliteMetadataStore::new(&path).await.unwrap();
    let created = store.create_topic(&topic("orders"), 3, Retention::default()).await.unwrap();
    let first = store.new_producer_id().await.unwrap();
    store.close().await;
    assert!(store.topics().await.is_err(), "a closed store answers nothing");

    let store = SqliteMetadataStore::new(&path).await.unwrap();
    assert_eq!(store.topics().await.unwrap(), [created]);
    assert!(store.new_producer_id().await.unwrap() > first);
}

#[tokio::test]
async fn a_new_file_can_be_opened_by_many_at_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new/metadata.db");
    let open = (0..12).map(|number| {
        let path = path.clone();
        tokio::spawn(async move {
            let store = SqliteMetadataStore::new(path).await?;
            store.create_topic(&topic(&format!("topic-{number}")), 1, Retention::default()).await?;
            Result::<_>::Ok(store)
        })
    });
    let mut stores = Vec::new();
    for handle in open.collect::<Vec<_>>() {
        stores.push(handle.await.unwrap().unwrap());
    }
    for store in &stores {
        assert_eq!(store.topics().await.unwrap().len(), 12, "every handle sees what every other wrote");
    }
}

#[tokio::test]
async fn handles_that_write_at_once_wait_for_each_other() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    let mut writers = Vec::new();
    for _ in 0..4 {
        let store = SqliteMetadataStore::new(&path).await.unwrap();
        writers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..50 {
                ids.push(store.new_producer_id().await.unwrap());
                store.topics().await.unwrap();
            }
            ids
        }));
    }
    let mut ids = Vec::new();
    for writer in writers {
        ids.extend(writer.await.unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_second_agent_is_told_who_runs() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    let first = SqliteMetadataStore::new(&path).await.unwrap();
    let link = directory.path().join("link.db");
    symlink(&path, &link).unwrap();
    let lock = first.lock_agent().unwrap();
    for same in [&path, &link] {
        let second = SqliteMetadataStore::new(same).await.unwrap();
        let error = second.lock_agent().unwrap_err();
        let AgentRunsOn(pid, message) = AgentRunsOn::from(error);
        assert_eq!(pid, std::process::id());
        assert!(message.contains("metadata.db") && message.contains("stop it"), "{message}");
    }
    drop(lock);
    drop(first.lock_agent().unwrap());
}

struct AgentRunsOn(u32, String);

impl From<MetadataError> for AgentRunsOn {
    fn from(error: MetadataError) -> Self {
        let message = error.to_string();
        let MetadataError::AgentRuns { pid, .. } = error else { panic!("{message}") };
        AgentRunsOn(pid, message)
    }
}

#[tokio::test]
async fn names_that_sqlite_reads_specially_are_files() {
    let directory = TempDir::new().unwrap();
    for name in [":memory:", "file:x?mode=memory", "a b%20c#d.db"] {
        let path = directory.path().join(name);
        let store = SqliteMetadataStore::new(&path).await.unwrap();
        store.create_topic(&topic("orders"), 1, Retention::default()).await.unwrap();
        assert!(path.is_file(), "{name}");
        assert_eq!(SqliteMetadataStore::new(&path).await.unwrap().topics().await.unwrap().len(), 1);
    }
    let error = SqliteMetadataStore::new("").await.unwrap_err();
    assert!(error.to_string().contains("cannot be created"), "{error}");
}

#[tokio::test]
async fn a_directory_is_refused() {
    let directory = TempDir::new().unwrap();
    let message = refused(directory.path()).await;
    assert!(message.contains("is a directory; give the path of a file in it"), "{message}");
}

#[tokio::test]
async fn a_device_is_refused() {
    let message = refused(Path::new("/dev/null")).await;
    assert!(message.contains("/dev/null is not a regular file; give the path of one"), "{message}");
    assert!(!Path::new("/dev/null-wal").exists());
}

#[tokio::test]
async fn a_path_through_a_file_is_refused() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let message = refused(&directory.path().join("file/metadata.db")).await;
    assert!(message.contains("cannot be created; check"), "{message}");
}

#[tokio::test]
async fn files_of_other_programs_are_left_alone() {
    let directory = TempDir::new().unwrap();
    let garbage = directory.path().join("garbage");
    fs::write(
        &garbage,
        "this is no database, and it is longer than the header of one would be.\n".repeat(99),
    )
    .unwrap();
    let short = directory.path().join("short");
    fs::write(&short, "hello").unwrap();
    let foreign = directory.path().join("foreign.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&foreign).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE topics (anything)").execute(&pool).await.unwrap();
    pool.close().await;
    for path in [&garbage, &short, &foreign] {
        let message = refused(path).await;
        assert!(message.contains("is not a StreamHouse metadata file; give another path"), "{message}");
    }
}

#[tokio::test]
async fn a_file_of_another_version_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    SqliteMetadataStore::new(&path).await.unwrap().close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', true, x'00', 0)";
    sqlx::query(later).execute(&pool).await.unwrap();
    pool.close().await;
    let message = refused(&path).await;
    assert!(message.contains("was written by another version of StreamHouse"), "{message}");
}

/// What the first version wrote: two partitions in one segment, a segment that was fenced, a group.
const FIRST_VERSION: &str = "
    INSERT INTO topics VALUES (1, 'orders', 2, 1700000000000);
    INSERT INTO agents VALUES (1, 'a', 'host:1', 1700000000000);
    INSERT INTO partitions VALUES (1, 0, 0, 10, 1, 1, 1700000000000), (1, 1, 0, 5, 1, 1, 1700000000000);
    INSERT INTO segments VALUES (1, x'00000000000000000000000000000001', 'one', 300, 'a', 1700000000000),
                                (2, x'00000000000000000000000000000002', 'two', 200, 'a', 1700000000001);
    INSERT INTO segment_ranges VALUES (1, 0, 0, 10, 1, 0, 100, 200, 50), (1, 1, 0, 5, 1, 100, 60, 250, 50);
    INSERT INTO consumer_groups VALUES (1, 'g');
    INSERT INTO group_offsets VALUES (1, 1, 0, 4);";

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let mut first = sqlx::migrate!("migrations/sqlite");
    first.migrations.to_mut().truncate(1);
    first.run(&pool).await.unwrap();
    sqlx::raw_sql(FIRST_VERSION).execute(&pool).await.unwrap();
    pool.close().await;

    let store = SqliteMetadataStore::new(&path).await.unwrap();
    assert_eq!(store.topic(&topic("orders")).await.unwrap().retention, Retention::default());
    let dead = store.dead_segments(Duration::ZERO, 9).await.unwrap();
    assert_eq!(dead, [DeadSegment { segment: SegmentId(2), object: "two".into() }]);
    let orders = |partition| TopicPartition { topic: topic("orders"), partition };
    assert_eq!(store.group_lags(&[orders(0)]).await.unwrap()[0].1.lag_records, 6);
    let hour = Retention { age: Some(Duration::from_secs(3600)), bytes: None };
    store.set_retention(&topic("orders"), hour).await.unwrap();
    assert_eq!(store.apply_retention().await.unwrap(), [(orders(0), 10), (orders(1), 5)]);
    assert_eq!(store.dead_segments(Duration::ZERO, 9).await.unwrap().len(), 2);
}

#[test]
fn a_directory_without_permission_is_refused() {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o555)).unwrap();
    let path = directory.path().to_owned();
    without_override(async move || {
        let message = refused(&path.join("metadata.db")).await;
        assert!(
            message.contains("cannot be opened; check") && message.contains("read and write"),
            "{message}"
        );
        let message = refused(&path.join("more/metadata.db")).await;
        assert!(message.contains("cannot be created; check"), "{message}");
    });
}

#[test]
fn a_file_without_permission_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { SqliteMetadataStore::new(&path).await.unwrap().close().await });
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    without_override(async move || {
        let message = refused(&path).await;
        assert!(message.contains("cannot be written; make the file"), "{message}");
    });
}

#[tokio::test]
async fn a_file_that_was_removed_moved_or_replaced_is_not_written() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    let moved = directory.path().join("moved.db");
    let store = SqliteMetadataStore::new(&path).await.unwrap();
    store.create_topic(&topic("before"), 1, Retention::default()).await.unwrap();
    let refused = async || {
        let error = store.create_topic(&topic("lost"), 1, Retention::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let message = error.to_string();
        assert!(message.contains("stop the agent") && message.contains("restore the file"), "{message}");
    };

    fs::rename(&path, &moved).unwrap();
    refused().await;
    assert!(!path.exists(), "nothing is created in its place");
    fs::copy(&moved, &path).unwrap();
    refused().await;
    fs::rename(&moved, &path).unwrap();
    store.create_topic(&topic("after"), 1, Retention::default()).await.unwrap();
    fs::remove_file(&path).unwrap();
    refused().await;
}

#[tokio::test]
async fn a_topic_with_one_partition_is_counted_in_the_singular() {
    let error = |partitions| MetadataError::PartitionNotFound { topic: "a".into(), partition: 9, partitions };
    assert!(error(1).to_string().ends_with("the topic has 1 partition, counted from 0"));
    assert!(error(2).to_string().ends_with("the topic has 2 partitions, counted from 0"));
}
