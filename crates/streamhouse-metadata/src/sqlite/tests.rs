//! What only this database has: its files, its locks, its query plans.

use super::*;
use crate::model::{Flush, FlushRange, OffsetCommit, RangeOutcome, Retention};
use crate::store::{Agents, Groups, Leases, SegmentRanges, Segments, Topics};
use sqlx::{AssertSqlSafe, Row};
use streamhouse_core::{AgentId, ErrorKind, SegmentId};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

async fn open() -> (TempDir, SqliteMetadataStore) {
    let directory = TempDir::new().unwrap();
    let store = SqliteMetadataStore::new(directory.path().join("metadata.db")).await.unwrap();
    (directory, store)
}

fn orders() -> TopicPartition {
    TopicPartition { topic: "orders".parse().unwrap(), partition: 0 }
}

fn agent() -> AgentId {
    "a".parse().unwrap()
}

fn flush(segment: u128, base_offset: u64) -> Flush {
    let range = FlushRange {
        partition: orders(),
        epoch: 1,
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

/// A store with one partition that the agent holds.
async fn leased() -> (TempDir, SqliteMetadataStore) {
    let (directory, store) = open().await;
    store.create_topic(&orders().topic, 1, Retention::default()).await.unwrap();
    store.register_agent(&agent(), "host:1").await.unwrap();
    assert_eq!(store.acquire_leases(&agent(), HOUR, &[orders()]).await.unwrap().len(), 1);
    (directory, store)
}

#[tokio::test]
async fn commits_are_durable_and_references_are_checked() {
    let (_directory, store) = open().await;
    let pragma = async |pool: &SqlitePool, name: &str| -> String {
        let row = sqlx::query(AssertSqlSafe(format!("PRAGMA {name}"))).fetch_one(pool).await.unwrap();
        row.try_get::<String, _>(0).unwrap_or_else(|_| row.get::<i64, _>(0).to_string())
    };
    for pool in [&store.writer, &store.readers] {
        assert_eq!(pragma(pool, "journal_mode").await, "wal");
        assert_eq!(pragma(pool, "synchronous").await, "2", "FULL");
        assert_eq!(pragma(pool, "foreign_keys").await, "1");
    }
    assert_eq!(pragma(&store.readers, "query_only").await, "1");
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() {
    let (_directory, store) = leased().await;
    let transaction = store.begin().await.unwrap();
    assert_eq!(store.topics().await.unwrap().len(), 1);
    assert_eq!(store.ranges(&orders(), 0, 1).await.unwrap(), []);
    assert!(!store.any_lease_free().await.unwrap());
    assert_eq!(store.lease_table().await.unwrap().len(), 1);
    drop(transaction);
}

#[tokio::test]
async fn a_writer_that_waits_too_long_is_busy_and_nothing_happened() {
    let (directory, mut store) = leased().await;
    let other = SqliteMetadataStore::new(directory.path().join("metadata.db")).await.unwrap();
    store.write_wait = Duration::from_millis(30);
    let transaction = other.begin().await.unwrap();
    let error = store.commit_flush(&flush(1, 0)).await.unwrap_err();
    assert!(matches!(error, MetadataError::Busy(_)), "{error}");
    drop(transaction);
    store.write_wait = WRITE_WAIT_MAX;
    assert!(store.committed_segments(&[SegmentId(1)]).await.unwrap().is_empty());
    assert_eq!(store.commit_flush(&flush(1, 0)).await.unwrap(), [RangeOutcome::Committed]);
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_happened() {
    let (_directory, store) = leased().await;
    let limit = async |pages: u32| {
        let pragma = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(pragma).execute(&store.writer).await.unwrap();
    };
    limit(1).await;
    let mut offset = 0;
    let error = loop {
        match store.commit_flush(&flush(offset.into(), offset)).await {
            Ok(outcome) => assert_eq!(outcome, [RangeOutcome::Committed]),
            Err(error) => break error,
        }
        offset += 10;
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("is on a disk that is full; free some space"), "{error}");
    assert_eq!(store.watermarks(&[orders()]).await.unwrap()[0].high_watermark, offset);
    assert_eq!(store.flush_outcome(&flush(offset.into(), offset)).await.unwrap(), None);

    limit(1 << 30).await;
    assert_eq!(store.commit_flush(&flush(offset.into(), offset)).await.unwrap(), [RangeOutcome::Committed]);
}

#[tokio::test]
async fn what_this_version_did_not_write_is_corrupt() {
    let (_directory, store) = leased().await;
    store.commit_flush(&flush(1, 0)).await.unwrap();
    sqlx::query("UPDATE segment_ranges SET position = -1").execute(&store.writer).await.unwrap();
    let error = store.ranges(&orders(), 0, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    sqlx::query("UPDATE topics SET name = 'a/b'").execute(&store.writer).await.unwrap();
    let error = store.topics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("invalid topic name"), "{error}");
}

#[tokio::test]
async fn a_producer_that_is_silent_for_a_day_is_forgotten_at_the_next_grant() {
    let (_directory, store) = leased().await;
    let mut first = flush(1, 0);
    first.ranges[0].producers = [1, 2]
        .map(|producer_id| crate::ProducerState { producer_id, epoch: 0, batches: Vec::new() })
        .to_vec();
    store.commit_flush(&first).await.unwrap();
    let age = "UPDATE producers SET updated_ms = updated_ms - 86400000 - 1000 WHERE producer_id = 1";
    sqlx::query(age).execute(&store.writer).await.unwrap();
    store.expire_all_leases().await.unwrap();
    let lease = store.acquire_leases(&agent(), HOUR, &[orders()]).await.unwrap().remove(0);
    let known: Vec<_> = lease.producers.iter().map(|producer| producer.producer_id).collect();
    assert_eq!(known, [2]);
}

#[tokio::test]
async fn what_retention_has_passed_is_not_lag_and_not_read() {
    let (_directory, store) = leased().await;
    for (segment, base_offset) in [(1, 0), (2, 10), (3, 20)] {
        store.commit_flush(&flush(segment, base_offset)).await.unwrap();
    }
    let group = "g".parse().unwrap();
    store
        .commit_offsets(&group, None, &[OffsetCommit { partition: orders(), offset: 3, generation: 0 }])
        .await
        .unwrap();
    sqlx::query("UPDATE partitions SET log_start = 12").execute(&store.writer).await.unwrap();
    let first = store.ranges(&orders(), 0, 1).await.unwrap().remove(0);
    assert_eq!(first.base_offset, 10, "the range that holds the log start");
    let offset = store.group_offsets(&group, &[orders()]).await.unwrap().remove(0);
    assert_eq!((offset.committed, offset.lag_records), (Some(3), 18));
    assert_eq!(store.describe_group(&group).await.unwrap()[0].lag_records, 18);
    assert_eq!(store.groups().await.unwrap()[0].lag_records, 18);
    let nobody = "nobody".parse().unwrap();
    assert_eq!(store.group_offsets(&nobody, &[orders()]).await.unwrap()[0].lag_records, 18);
}

/// What runs for every flush, poll, renewal or scrape finds its rows by key, however many there are.
#[tokio::test]
async fn hot_statements_scan_no_table() {
    let (_directory, store) = open().await;
    let hot = [
        topics::SELECT_WATERMARKS,
        leases::GRANT,
        leases::RENEW,
        leases::RELEASE,
        leases::SELECT_PRODUCERS,
        segments::MOVE_HIGH_WATERMARKS,
        segments::INSERT_RANGES,
        segments::UPSERT_PRODUCERS,
        segments::SELECT_OUTCOME,
        segments::SELECT_RANGES,
        groups::SELECT_COMMITTABLE,
        groups::UPSERT_OFFSETS,
        groups::SELECT_OFFSETS,
        groups::SELECT_GROUP,
        members::CLAIM,
        members::REMEMBER,
        members::SELECT_CLAIMED,
        members::RELEASE,
        retention::DELETE_RANGES,
        retention::COUNT_DOWN,
        retention::DELETE_LEFT_RANGES,
        retention::DELETE_LEFT_WINDOWS,
        upkeep::SELECT_DEAD,
        upkeep::FORGET,
        upkeep::SELECT_LAGS,
    ];
    for statement in hot {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan = sqlx::query(explain).fetch_all(&store.writer).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        let scans = steps.iter().filter(|step| step.starts_with("SCAN"));
        // The list that is the parameter is read once from end to end, as it came or with the topics' ids.
        let list =
            ["SCAN j VIRTUAL TABLE", "SCAN json_each VIRTUAL TABLE", "SCAN asked", "SCAN CONSTANT ROW"];
        let scans: Vec<_> = scans.filter(|step| !list.iter().any(|known| step.starts_with(known))).collect();
        assert!(scans.is_empty(), "{statement}\n{steps:#?}");
    }
}
