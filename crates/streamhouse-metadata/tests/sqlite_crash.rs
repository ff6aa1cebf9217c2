//! Processes that die or fail in the middle. The test starts itself once more as the process that does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use streamhouse_core::{AgentId, SegmentId, TopicPartition};
use streamhouse_metadata::*;
use tempfile::TempDir;

const DATABASE: &str = "STREAMHOUSE_TEST_DATABASE";
const HOUR: Duration = Duration::from_secs(3600);

fn orders() -> TopicPartition {
    TopicPartition { topic: "orders".parse().unwrap(), partition: 0 }
}

fn agent() -> AgentId {
    "a".parse().unwrap()
}

fn flush(segment: u128, epoch: u64, base_offset: u64) -> Flush {
    let range = FlushRange {
        partition: orders(),
        epoch,
        base_offset,
        records: 10,
        position: 0,
        bytes: 100,
        index_position: 100,
        index_bytes: 50,
        producers: Vec::new(),
    };
    let segment = SegmentId(segment);
    Flush { segment, object: segment.to_string(), object_bytes: 200, agent: agent(), ranges: vec![range] }
}

/// Takes over as an agent does after its predecessor died: the lock, then every lease.
async fn take_over(store: &SqliteMetadataStore) -> (AgentLock, Lease) {
    let lock = store.lock_agent().unwrap();
    store.register_agent(&agent(), "127.0.0.1:50051").await.unwrap();
    store.expire_all_leases().await.unwrap();
    let lease = store.acquire_leases(&agent(), HOUR, &[orders()]).await.unwrap().remove(0);
    (lock, lease)
}

/// Starts one of the tests below that are ignored, as a process of its own. A write over its file size limit is an error
/// there, not a signal.
fn start(test: &str, database: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DATABASE, database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

#[tokio::test]
async fn what_was_committed_survives_a_kill() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.db");
    let store = SqliteMetadataStore::new(&path).await.unwrap();
    store.create_topic(&orders().topic, 1, Retention::default()).await.unwrap();
    let mut segment = 0;
    for round in 1..=3 {
        // The lines are held: the process goes on as long as it can print.
        let (mut child, mut lines) = start("process_that_commits", &path);
        let committed = lines
            .by_ref()
            .map(|line| line.unwrap())
            .filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok())
            .nth(20)
            .expect("the process commits until it is killed");
        let error = store.lock_agent().unwrap_err();
        assert!(matches!(error, MetadataError::AgentRuns { pid, .. } if pid == child.id()), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();

        let (_lock, lease) = take_over(&store).await;
        assert_eq!(lease.epoch, 2 * round, "the process's grant and this one");
        let high_watermark = lease.watermarks.high_watermark;
        assert!(high_watermark >= committed, "{high_watermark} is below what was acknowledged, {committed}");
        let ranges = store.ranges(&orders(), 0, u32::MAX).await.unwrap();
        let ends: Vec<_> = ranges.iter().map(|range| (range.base_offset, range.end_offset)).collect();
        let dense: Vec<_> = (0..high_watermark / 10).map(|index| (index * 10, index * 10 + 10)).collect();
        assert_eq!(ends, dense);
        segment += 1;
        let next = flush(segment << 100, lease.epoch, high_watermark);
        assert_eq!(store.commit_flush(&next).await.unwrap(), [RangeOutcome::Committed]);
    }
}

#[tokio::test]
#[ignore = "run by what_was_committed_survives_a_kill"]
async fn process_that_commits() {
    let Some(database) = std::env::var_os(DATABASE) else { return };
    let store = SqliteMetadataStore::new(database).await.unwrap();
    let (_lock, lease) = take_over(&store).await;
    let mut next = lease.watermarks.high_watermark;
    println!();
    loop {
        let segment = u128::from(lease.epoch) << 64 | u128::from(next);
        let flush = flush(segment, lease.epoch, next);
        assert_eq!(store.commit_flush(&flush).await.unwrap(), [RangeOutcome::Committed]);
        next += 10;
        println!("committed {next}");
    }
}

#[test]
fn a_commit_that_failed_half_way_is_resolved() {
    let directory = TempDir::new().unwrap();
    let (mut child, lines) = start("process_whose_disk_fails", &directory.path().join("metadata.db"));
    let output: Vec<_> = lines.map(|line| line.unwrap()).collect();
    assert!(child.wait().unwrap().success(), "{output:#?}");
    assert!(output.iter().any(|line| line == "resolved"), "{output:#?}");
}

/// Its disk fails at COMMIT: the write-ahead log may not grow.
#[tokio::test]
#[ignore = "run by a_commit_that_failed_half_way_is_resolved"]
async fn process_whose_disk_fails() {
    let Some(database) = std::env::var_os(DATABASE) else { return };
    let store = SqliteMetadataStore::new(&database).await.unwrap();
    store.create_topic(&orders().topic, 1, Retention::default()).await.unwrap();
    let (_lock, lease) = take_over(&store).await;
    let mut next = 0;
    let commit = async |segment, next| store.commit_flush(&flush(segment, lease.epoch, next)).await;
    // A few commits, so that the log has its place for everything but what comes.
    while next < 100 {
        assert_eq!(commit(next.into(), next).await.unwrap(), [RangeOutcome::Committed]);
        next += 10;
    }

    let mut log = database.clone();
    log.push("-wal");
    let limit = getrlimit(Resource::Fsize);
    let low = std::fs::metadata(log).unwrap().len() + 100;
    setrlimit(Resource::Fsize, Rlimit { current: Some(low), ..limit }).unwrap();
    let error = commit(1 << 64, next).await.unwrap_err();
    assert!(matches!(error, MetadataError::Unknown(_)), "{error}");
    setrlimit(Resource::Fsize, limit).unwrap();

    assert_eq!(store.flush_outcome(&flush(1 << 64, lease.epoch, next)).await.unwrap(), None);
    assert_eq!(store.watermarks(&[orders()]).await.unwrap()[0].high_watermark, next);
    assert_eq!(commit(1 << 64, next).await.unwrap(), [RangeOutcome::Committed]);
    println!("\nresolved");
}
