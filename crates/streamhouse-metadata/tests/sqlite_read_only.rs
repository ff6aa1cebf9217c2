//! A file opened for reading only: by whoever may read it, and nothing in it changes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use streamhouse_core::{ErrorKind, TopicName};
use streamhouse_metadata::{Producers, Retention, SqliteMetadataStore, Topics};
use support::without_override;
use tempfile::TempDir;

fn orders() -> TopicName {
    "orders".parse().unwrap()
}

/// A file with one topic, still open.
async fn written() -> (TempDir, PathBuf, SqliteMetadataStore) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    let store = SqliteMetadataStore::new(&path).await.unwrap();
    store.create_topic(&orders(), 3, Retention::default()).await.unwrap();
    (directory, path, store)
}

/// Takes every write permission from a directory and what is in it; only who owns it may look at it, as with a
/// [`TempDir`].
fn write_protect(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o400)).unwrap();
    }
    fs::set_permissions(directory, Permissions::from_mode(0o500)).unwrap();
}

async fn refused(path: &Path) -> String {
    let error = SqliteMetadataStore::open_read_only(path).await.expect_err("this path cannot be read");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    error.to_string()
}

#[tokio::test]
async fn it_sees_what_others_write_and_writes_nothing_itself() {
    let (_directory, path, store) = written().await;
    let reader = SqliteMetadataStore::open_read_only(&path).await.unwrap();
    assert_eq!(reader.topics().await.unwrap(), store.topics().await.unwrap());
    let audit = store.create_topic(&"audit".parse().unwrap(), 1, Retention::default()).await.unwrap();
    assert_eq!(reader.topic(&audit.name).await.unwrap(), audit);

    let writes = [
        reader.create_topic(&"more".parse().unwrap(), 1, Retention::default()).await.map(drop),
        reader.new_producer_id().await.map(drop),
        reader.lock_agent().map(drop),
    ];
    for write in writes {
        let error = write.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("was opened for reading only; open it with"), "{error}");
    }
    assert_eq!(store.topics().await.unwrap().len(), 2);
    assert!(!path.with_file_name("metadata.db.agent").exists());
}

#[tokio::test]
async fn a_path_without_a_log_stays_without_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("more/metadata.db");
    let message = refused(&path).await;
    assert!(
        message.contains("more/metadata.db does not exist; give the path that the agent uses"),
        "{message}"
    );
    assert!(!path.parent().unwrap().exists());

    let empty = directory.path().join("empty");
    fs::write(&empty, "").unwrap();
    assert!(refused(&empty).await.contains("is empty; give the path that the agent uses"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was made beside it");

    let text = directory.path().join("text");
    fs::write(&text, "hello").unwrap();
    assert!(refused(&text).await.contains("is not a StreamHouse metadata file"));
    assert!(refused(directory.path()).await.contains("is a directory"));
    assert!(refused(Path::new("/dev/null")).await.contains("is not a regular file"));
}

#[tokio::test]
async fn a_file_of_another_version_is_refused() {
    for (change, says) in [
        ("DELETE FROM _sqlx_migrations", "was written by an earlier version of StreamHouse; start an agent"),
        ("UPDATE _sqlx_migrations SET checksum = x'00'", "was written by another version of StreamHouse"),
    ] {
        let (_directory, path, store) = written().await;
        store.close().await;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::query(change).execute(&pool).await.unwrap();
        pool.close().await;
        let message = refused(&path).await;
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn read_access_is_enough_while_the_file_is_open() {
    let (directory, path, store) = written().await;
    write_protect(directory.path());
    let read = path.clone();
    let topics = tokio::task::spawn_blocking(move || {
        without_override(async move || SqliteMetadataStore::open_read_only(&read).await?.topics().await)
    });
    assert_eq!(topics.await.unwrap().unwrap(), store.topics().await.unwrap());
}

#[tokio::test]
async fn read_access_is_enough_after_a_crash() {
    let (directory, path, store) = written().await;
    // What a crash leaves: the log's files and nobody who has them open.
    let left = TempDir::new().unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    store.close().await;
    write_protect(left.path());
    let read = left.path().join(path.file_name().unwrap());
    let topics = tokio::task::spawn_blocking(move || {
        without_override(async move || SqliteMetadataStore::open_read_only(&read).await?.topics().await)
    });
    assert_eq!(topics.await.unwrap().unwrap()[0].name, orders());
}

#[tokio::test]
async fn what_sqlite_cannot_read_is_said() {
    let (directory, path, store) = written().await;
    store.close().await;
    assert!(!path.with_file_name("metadata.db-wal").exists(), "whoever closes the file last tidies up");
    write_protect(directory.path());
    let read = path.clone();
    let alone = tokio::task::spawn_blocking(move || without_override(async move || refused(&read).await));
    let message = alone.await.unwrap();
    assert!(message.contains("-wal and -shm") && message.contains("start an agent on it"), "{message}");

    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let unreadable =
        tokio::task::spawn_blocking(move || without_override(async move || refused(&path).await));
    let message = unreadable.await.unwrap();
    assert!(message.contains("cannot be read; make the file readable"), "{message}");
}
