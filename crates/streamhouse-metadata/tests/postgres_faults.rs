//! What only a server can do to its clients: answers that are lost, locks that are waited for, restarts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sqlx::{Connection, PgConnection};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use streamhouse_core::{AgentId, ErrorKind, SegmentId, TopicPartition};
use streamhouse_metadata::RangeOutcome::{Committed, Fenced};
use streamhouse_metadata::*;
use streamhouse_tests::postgres::{Durability, Shutdown, query, test_database};
use streamhouse_tests::{Cut, Postgres, Proxy};

const HOUR: Duration = Duration::from_secs(3600);
/// COMMIT as it is sent: the kind of the message, its length, the text.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

fn orders(partition: u32) -> TopicPartition {
    TopicPartition { topic: "orders".parse().unwrap(), partition }
}

fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

/// A flush of ten records to each of the partitions, under the first lease.
fn flush(partitions: &[u32], base_offset: u64) -> Flush {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let segment = SegmentId(NEXT.fetch_add(1, Ordering::Relaxed).into());
    let range = |partition: &u32| FlushRange {
        partition: orders(*partition),
        epoch: 1,
        base_offset,
        records: 10,
        position: 0,
        bytes: 100,
        index_position: 100,
        index_bytes: 50,
        producers: Vec::new(),
    };
    let ranges = partitions.iter().map(range).collect();
    Flush { segment, object: segment.to_string(), object_bytes: 200, agent: agent("a"), ranges }
}

/// A database whose topic's partitions the agent "a" holds.
async fn leased(partitions: u32, term: Duration) -> (String, PostgresMetadataStore) {
    let url = test_database("faults").unwrap();
    let store = PostgresMetadataStore::connect(&url).await.unwrap();
    store.create_topic(&orders(0).topic, partitions, Retention::default()).await.unwrap();
    store.register_agent(&agent("a"), "host:1").await.unwrap();
    let wanted: Vec<_> = (0..partitions).map(orders).collect();
    assert_eq!(store.acquire_leases(&agent("a"), term, &wanted).await.unwrap().len(), wanted.len());
    (url, store)
}

/// A proxy to the server of a URL, and the URL of the database through it.
fn through_proxy(url: &str) -> (Proxy, String) {
    let (_, server) = url.split_once('@').unwrap();
    let (address, database) = server.split_once('/').unwrap();
    let proxy = Proxy::start(address.parse::<SocketAddr>().unwrap()).unwrap();
    let url = format!("postgres://postgres@{}/{database}", proxy.address());
    (proxy, url)
}

async fn high_watermark(store: &PostgresMetadataStore, partition: u32) -> u64 {
    store.watermarks(&[orders(partition)]).await.unwrap()[0].high_watermark
}

/// Waits until somebody waits for a lock. Within a transaction what was seen first is kept, unless it is cleared.
async fn until_locked(connection: &mut PgConnection) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                   AND datname = current_database()";
    let begin = Instant::now();
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *connection).await.unwrap() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "nobody waits for a lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
        run(connection, "SELECT pg_stat_clear_snapshot()").await;
    }
}

async fn run(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_resolved_both_ways() {
    let (url, direct) = leased(1, HOUR).await;
    let (proxy, url) = through_proxy(&url);
    let store = PostgresMetadataStore::connect(&url).await.unwrap();
    let mut base_offset = 0;
    for (cut, happened) in [(Cut::BeforeAnswer, true), (Cut::BeforeRequest, false)].repeat(3) {
        let flush = flush(&[0], base_offset);
        proxy.cut_at(COMMIT, cut, 1);
        let error = store.commit_flush(&flush).await.unwrap_err();
        assert!(matches!(error, MetadataError::Unknown(_)), "{cut:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::Retry);
        let outcome = store.flush_outcome(&flush).await.unwrap();
        assert_eq!(outcome, happened.then(|| vec![Committed]), "{cut:?}");
        assert_eq!(direct.flush_outcome(&flush).await.unwrap(), outcome);
        base_offset += if happened { 10 } else { 0 };
        assert_eq!(high_watermark(&direct, 0).await, base_offset, "{cut:?}");
        assert_eq!(store.committed_segments(&[flush.segment]).await.unwrap().len(), usize::from(happened));
        // Either way the same flush can be committed again.
        assert_eq!(store.commit_flush(&flush).await.unwrap(), [Committed]);
        base_offset += if happened { 0 } else { 10 };
        assert_eq!(high_watermark(&direct, 0).await, base_offset, "{cut:?}");
    }
    assert_eq!(proxy.cuts(), 6);
}

#[tokio::test]
async fn what_can_be_repeated_is_repeated_when_an_answer_is_lost() {
    let (url, direct) = leased(2, HOUR).await;
    let (proxy, url) = through_proxy(&url);
    let store = PostgresMetadataStore::connect(&url).await.unwrap();
    for cut in [Cut::BeforeAnswer, Cut::BeforeRequest] {
        let lose = || proxy.cut_at(COMMIT, cut, 1);
        let cuts = proxy.cuts();
        lose();
        let renewed = store.renew_leases(&agent("a"), &[(orders(0), 1)], HOUR).await.unwrap();
        assert_eq!(renewed, [orders(0)]);
        lose();
        let first = store.new_producer_id().await.unwrap();
        assert!(store.new_producer_id().await.unwrap() > first);
        let (group, member) = ("g".parse().unwrap(), "m".parse().unwrap());
        lose();
        let view = store.join_group(&group, &member, &[orders(0).topic], HOUR).await.unwrap();
        assert_eq!((view.generation, view.members.len()), (1, 1));
        lose();
        let claimed = store.claim_partitions(&group, &member, &[orders(0)]).await.unwrap();
        assert_eq!((claimed.len(), claimed[0].generation), (1, 1));
        lose();
        let commit = [OffsetCommit { partition: orders(0), offset: 0, generation: 1 }];
        store.commit_offsets(&group, Some(&member), &commit).await.unwrap();
        assert_eq!(proxy.cuts() - cuts, 5, "each was cut");
    }
    // What cannot is told: the topic may be there.
    let (seen, lost) = ("seen".parse().unwrap(), "lost".parse().unwrap());
    for (topic, cut, is_there) in [(&seen, Cut::BeforeAnswer, true), (&lost, Cut::BeforeRequest, false)] {
        proxy.cut_at(COMMIT, cut, 1);
        let error = store.create_topic(topic, 1, Retention::default()).await.unwrap_err();
        assert!(matches!(error, MetadataError::Unknown(_)), "{error}");
        // The server may still be at it when the connection is cut.
        let begin = Instant::now();
        while direct.topic(topic).await.is_ok() != is_there && begin.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(direct.topic(topic).await.is_ok(), is_there);
    }
    // And a statement that got no answer has done nothing yet.
    proxy.cut_at(b"generate_series", Cut::BeforeAnswer, 1);
    assert_eq!(store.create_topic(&lost, 3, Retention::default()).await.unwrap().partitions, 3);
}

#[tokio::test]
async fn an_outcome_is_told_when_no_commit_can_come_any_more() {
    let (url, store) = leased(1, HOUR).await;
    for (end, known) in [("COMMIT", true), ("ROLLBACK", false)] {
        // As a commit whose COMMIT is still on its way.
        let flush = flush(&[0], 0);
        let mut other = PgConnection::connect(&url).await.unwrap();
        run(&mut other, "BEGIN").await;
        let insert =
            "INSERT INTO segments (id, object, object_bytes, agent, committed_ms, live_ranges, dead_ms)
                      VALUES ($1, '', 0, 'a', 0, 0, 0)";
        let id = flush.segment.0.to_be_bytes().to_vec();
        sqlx::query(insert).bind(id).execute(&mut other).await.unwrap();
        let asking = tokio::spawn({
            let (store, flush) = (store.clone(), flush.clone());
            async move { store.flush_outcome(&flush).await }
        });
        until_locked(&mut other).await;
        assert!(!asking.is_finished(), "nobody can know yet");
        run(&mut other, end).await;
        assert_eq!(asking.await.unwrap().unwrap(), known.then(|| vec![Fenced]), "{end}");
    }
}

#[tokio::test]
async fn a_lease_that_ends_while_its_commit_waits_is_fenced() {
    let (url, store) = leased(2, HOUR).await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    run(&mut other, "BEGIN; SELECT 1 FROM partitions WHERE partition = 1 FOR UPDATE").await;
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit_flush(&flush(&[0, 1], 0)).await }
    });
    until_locked(&mut other).await;
    // It ends by the database's clock, now; what the agent's says is not asked.
    let end = "UPDATE partitions SET expires_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
               WHERE partition = 1; COMMIT";
    run(&mut other, end).await;
    assert_eq!(committing.await.unwrap().unwrap(), [Committed, Fenced]);
    let taken = store.acquire_leases(&agent("a"), HOUR, &[orders(0), orders(1)]).await.unwrap();
    assert_eq!((taken.len(), taken[0].epoch, &taken[0].partition), (1, 2, &orders(1)));
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let (url, _) = leased(2, HOUR).await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    // Who waits looks for a deadlock once, after this time: the other has come to wait by then. It is less than half the
    // time in which a store tries again.
    let later = "DO $$ BEGIN EXECUTE format(
        'ALTER DATABASE %I SET deadlock_timeout = ''2s''', current_database()); END $$";
    run(&mut other, later).await;
    let store = PostgresMetadataStore::connect(&url).await.unwrap();
    // The other never looks: it is the store that finds one, and goes back.
    let lock = "SET deadlock_timeout = '1h'; BEGIN; SELECT 1 FROM partitions WHERE partition = 1 FOR UPDATE";
    run(&mut other, lock).await;
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit_flush(&flush(&[1, 0], 0)).await }
    });
    until_locked(&mut other).await;
    run(&mut other, "UPDATE partitions SET bytes = bytes WHERE partition = 0; COMMIT").await;
    assert_eq!(committing.await.unwrap().unwrap(), [Committed, Committed]);
    let database = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let begin = Instant::now();
    while sqlx::query_scalar::<_, i64>(database).fetch_one(&mut other).await.unwrap() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no deadlock was met");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn agents_of_two_processes_share_without_overlap() {
    let (url, first) = leased(40, HOUR).await;
    first.release_all_leases(&agent("a")).await.unwrap();
    let second = PostgresMetadataStore::connect(&url).await.unwrap();
    second.register_agent(&agent("b"), "host:2").await.unwrap();
    let wanted: Vec<_> = (0..40).map(orders).collect();
    let turned: Vec<_> = wanted.iter().rev().cloned().collect();
    let (a, b) = (agent("a"), agent("b"));
    let (one, two) =
        tokio::join!(first.acquire_leases(&a, HOUR, &wanted), second.acquire_leases(&b, HOUR, &turned));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.len() + two.len(), 40, "each has one holder");
    for row in second.lease_table().await.unwrap() {
        let holds = |leases: &[Lease]| leases.iter().any(|lease| lease.partition == row.partition);
        let holder = row.holder.unwrap();
        assert_eq!((holds(&one), holds(&two)), (holder == a, holder == b), "{}", row.partition);
    }
}

#[tokio::test]
async fn connections_that_the_server_ended_are_replaced() {
    let (url, store) = leased(1, HOUR).await;
    for round in 0..3 {
        // Some of them, idle in the pool.
        let reads = (0..8).map(|_| {
            tokio::spawn({
                let store = store.clone();
                async move { store.topics().await }
            })
        });
        for read in reads.collect::<Vec<_>>() {
            assert_eq!(read.await.unwrap().unwrap().len(), 1);
        }
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert_ne!(query(&url, end).unwrap(), "0");
        assert_eq!(store.commit_flush(&flush(&[0], round * 10)).await.unwrap(), [Committed]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_loses_nothing() {
    let server = Postgres::scratch(Durability::Process).unwrap();
    let url = server.create_database("restart").unwrap();
    let store = PostgresMetadataStore::connect(&url).await.unwrap();
    store.create_topic(&orders(0).topic, 4, Retention::default()).await.unwrap();
    store.register_agent(&agent("a"), "host:1").await.unwrap();
    let wanted: Vec<_> = (0..4).map(orders).collect();
    store.acquire_leases(&agent("a"), HOUR, &wanted).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|partition| tokio::spawn(write_until(Arc::clone(&stop), store.clone(), partition)))
        .collect();
    let mut restarted = server;
    for shutdown in [Shutdown::Immediate, Shutdown::Fast] {
        let before = high_watermark(&store, 3).await;
        while high_watermark(&store, 3).await < before + 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        restarted = tokio::task::spawn_blocking(move || {
            restarted.restart(shutdown).unwrap();
            restarted
        })
        .await
        .unwrap();
        // A server that takes longer than an attempt lasts is said, and tried again by whoever asks.
        while store.topics().await.is_err() {}
    }
    let before = high_watermark(&store, 3).await;
    while high_watermark(&store, 3).await < before + 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for (partition, writer) in (0..).zip(writers) {
        let acknowledged = writer.await.unwrap();
        assert_eq!(high_watermark(&store, partition).await, acknowledged);
        let ranges = store.ranges(&orders(partition), 0, u32::MAX).await.unwrap();
        let bases: Vec<_> = ranges.iter().map(|range| range.base_offset).collect();
        assert_eq!(bases, (0..acknowledged / 10).map(|number| number * 10).collect::<Vec<_>>());
    }
}

/// Commits flush after flush, as an agent does: an unknown outcome is asked for, anything else tried again. Gives the end
/// of what was acknowledged.
async fn write_until(stop: Arc<AtomicBool>, store: PostgresMetadataStore, partition: u32) -> u64 {
    let mut base_offset = 0;
    while !stop.load(Ordering::Relaxed) {
        let flush = flush(&[partition], base_offset);
        let stands = match store.commit_flush(&flush).await {
            Ok(outcomes) => Some(outcomes),
            Err(MetadataError::Unknown(_)) => loop {
                match store.flush_outcome(&flush).await {
                    Ok(outcome) => break outcome,
                    Err(error) => assert!(error.kind().is_retryable(), "{error}"),
                }
            },
            Err(error) => {
                assert!(error.kind().is_retryable(), "{error}");
                None
            }
        };
        if let Some(outcomes) = stands {
            assert_eq!(outcomes, [Committed], "at {base_offset}");
            base_offset += 10;
        }
    }
    base_offset
}

/// Begins to delete the topic, lets the deletion wait for what `other` has locked, then has that run to its end.
async fn delete_behind(
    store: &PostgresMetadataStore,
    other: &mut PgConnection,
    url: &str,
    end: &'static str,
) {
    let mut watch = PgConnection::connect(url).await.unwrap();
    let topic = orders(0).topic;
    // The deletion may end before the answer to what lets it go on is here.
    let goes_on = AtomicBool::new(false);
    let delete = async {
        let deleted = store.delete_topic(&topic).await;
        (deleted, goes_on.load(Ordering::Relaxed))
    };
    let unlock = async {
        until_locked(&mut watch).await;
        goes_on.store(true, Ordering::Relaxed);
        run(other, end).await;
    };
    let ((deleted, waited), ()) = tokio::join!(delete, unlock);
    deleted.unwrap();
    assert!(waited, "it does not wait");
}

#[tokio::test]
async fn a_deletion_waits_for_what_a_group_is_at_and_removes_it() {
    for is_new in [false, true] {
        let (url, store) = leased(1, HOUR).await;
        let mut other = PgConnection::connect(&url).await.unwrap();
        if !is_new {
            run(&mut other, "INSERT INTO consumer_groups (name) VALUES ('g')").await;
        }
        // As a group's commit: its row is locked or made, then the partition is looked up.
        run(&mut other, "BEGIN").await;
        run(&mut other, "INSERT INTO consumer_groups (name) VALUES ('g') ON CONFLICT DO NOTHING").await;
        run(&mut other, "SELECT id FROM consumer_groups WHERE name = 'g' FOR NO KEY UPDATE").await;
        let end =
            "INSERT INTO group_offsets SELECT g.id, t.id, 0, 0 FROM consumer_groups g, topics t; COMMIT";
        delete_behind(&store, &mut other, &url, end).await;
        assert_eq!(query(&url, "SELECT count(*) FROM group_offsets").unwrap(), "0", "new group: {is_new}");
        let groups = store.groups().await.unwrap();
        assert_eq!(groups.iter().map(|group| group.partitions).collect::<Vec<_>>(), [0]);
    }
}

#[tokio::test]
async fn a_deletion_waits_for_a_flush_that_is_committed_and_removes_it() {
    let (url, store) = leased(2, HOUR).await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    // As a flush: its partition is locked, then its range is inserted, and the lease is granted anew besides.
    run(&mut other, "BEGIN; SELECT 1 FROM partitions WHERE partition = 1 FOR NO KEY UPDATE").await;
    let end = "
        INSERT INTO segments (id, object, object_bytes, agent, committed_ms, live_ranges)
        VALUES (decode(repeat('0a', 16), 'hex'), 'late', 1, 'a', 0, 1);
        INSERT INTO segment_ranges SELECT topic_id, 1, 0, 10, (SELECT seq FROM segments), 0, 1, 0, 1 FROM partitions
        WHERE partition = 1;
        UPDATE partitions SET high_watermark = 10, epoch = 41 WHERE partition = 1;
        COMMIT";
    delete_behind(&store, &mut other, &url, end).await;
    store.apply_retention().await.unwrap();
    let dead = store.dead_segments(Duration::ZERO, 10).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.object.as_str()).collect::<Vec<_>>(), ["late"]);
    let left = "SELECT (SELECT count(*) FROM segment_ranges) + (SELECT count(*) FROM deleted_topics)";
    assert_eq!(query(&url, left).unwrap(), "0");
    store.create_topic(&orders(0).topic, 1, Retention::default()).await.unwrap();
    let lease = store.acquire_leases(&agent("a"), HOUR, &[orders(0)]).await.unwrap().remove(0);
    assert_eq!(lease.epoch, 42, "also the epoch that was reached while the deletion waited counts");
}
