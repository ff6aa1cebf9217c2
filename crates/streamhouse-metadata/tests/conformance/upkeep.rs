//! Retention, dead segments, duties, and every group's lag.

use super::*;
use streamhouse_core::{ErrorKind, MemberId};
use streamhouse_metadata::{Duty, MetadataError, Watermarks};

const NO_GRACE: Duration = Duration::ZERO;
const MILLISECOND: Duration = Duration::from_millis(1);

async fn retain(store: &dyn MetadataStore, name: &str, age: Option<Duration>, bytes: Option<u64>) {
    store.set_retention(&topic(name), Retention { age, bytes }).await.unwrap();
}

async fn ends(store: &dyn MetadataStore, at: &TopicPartition) -> (u64, u64) {
    let Watermarks { log_start, high_watermark } =
        store.watermarks(std::slice::from_ref(at)).await.unwrap()[0];
    (log_start, high_watermark)
}

async fn dead(store: &dyn MetadataStore) -> Vec<SegmentId> {
    let dead = store.dead_segments(NO_GRACE, u32::MAX).await.unwrap();
    dead.into_iter().map(|dead| dead.segment).collect()
}

/// Waits until the database's clock says that everything committed so far is more than a millisecond old.
async fn age(store: &dyn MetadataStore, at: &TopicPartition) {
    let offset = GroupLag { store, at };
    while offset.lag().await <= MILLISECOND * 2 {
        tokio::time::sleep(MILLISECOND).await;
    }
}

/// The age of the last record of a partition, as a group sees it that has read all before.
struct GroupLag<'a> {
    store: &'a dyn MetadataStore,
    at: &'a TopicPartition,
}

impl GroupLag<'_> {
    async fn lag(&self) -> Duration {
        let (_, high_watermark) = ends(self.store, self.at).await;
        commit_offsets(self.store, "clock", &[(self.at.clone(), high_watermark - 1)]).await.unwrap();
        let read = self.store.group_offsets(&group("clock"), std::slice::from_ref(self.at)).await.unwrap();
        read[0].lag
    }
}

pub(crate) async fn retention_is_said_and_changed(store: &dyn MetadataStore) {
    let kept = Retention { age: Some(Duration::from_millis(1500)), bytes: Some(1 << 40) };
    let created = store.create_topic(&topic("orders"), 1, kept).await.unwrap();
    assert_eq!(created.retention, kept);
    assert_eq!(store.topic(&topic("orders")).await.unwrap(), created);
    create(store, "audit", 1).await.unwrap();
    let changed = store.set_retention(&topic("orders"), Retention::default()).await.unwrap();
    assert_eq!(changed.retention, Retention::default());
    assert_eq!((changed.created_ms, changed.partitions), (created.created_ms, 1));
    assert_eq!(store.topics().await.unwrap()[1], changed);

    let error = store.set_retention(&topic("nothing"), kept).await.unwrap_err();
    assert!(matches!(error, MetadataError::TopicNotFound(_)), "{error}");
    for wrong in [
        Retention { age: Some(Duration::ZERO), bytes: None },
        Retention { age: Some(Duration::from_micros(999)), bytes: None },
        Retention { age: None, bytes: Some(0) },
        Retention { age: None, bytes: Some(u64::MAX) },
    ] {
        for error in [
            store.create_topic(&topic("more"), 1, wrong).await.unwrap_err(),
            store.set_retention(&topic("orders"), wrong).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }
    assert_eq!(store.topic(&topic("orders")).await.unwrap(), changed);
}

pub(crate) async fn old_ranges_go_whole(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    leased(store, "kept", 1, "a").await;
    let (orders, empty, kept) = (at("orders", 0), at("orders", 1), at("kept", 0));
    let old = [(0, 10), (10, 5)];
    let mut segments = Vec::new();
    for (base_offset, records) in old {
        segments.push(append(store, "a", &orders, 1, base_offset, records).await.segment);
        append(store, "a", &kept, 1, base_offset, records).await;
    }
    assert_eq!(store.apply_retention().await.unwrap(), [], "nobody said how long");
    retain(store, "orders", Some(HOUR), None).await;
    assert_eq!(store.apply_retention().await.unwrap(), [], "nothing is an hour old");

    age(store, &orders).await;
    retain(store, "orders", Some(MILLISECOND), None).await;
    assert_eq!(store.apply_retention().await.unwrap(), [(orders.clone(), 15)]);
    assert_eq!(ends(store, &orders).await, (15, 15), "also the last, by age");
    assert_eq!(ends(store, &empty).await, (0, 0));
    assert_eq!(ends(store, &kept).await, (0, 15));
    assert_eq!(store.ranges(&orders, 0, 9).await.unwrap(), [], "forgotten");
    assert_eq!(store.ranges(&kept, 0, 9).await.unwrap().len(), 2);
    assert_eq!(store.apply_retention().await.unwrap(), [], "once");
    let gone = dead(store).await;
    assert!(segments.iter().all(|segment| gone.contains(segment)) && gone.len() == 2, "{gone:?}");

    // The log goes on where it was.
    append(store, "a", &orders, 1, 15, 5).await;
    retain(store, "orders", Some(HOUR), None).await;
    assert_eq!(store.apply_retention().await.unwrap(), []);
    let ranges = store.ranges(&orders, 0, 9).await.unwrap();
    assert_eq!((ranges.len(), ranges[0].base_offset), (1, 15), "from the log start");
    let offsets = store.group_offsets(&group("nobody"), std::slice::from_ref(&orders)).await.unwrap();
    assert_eq!(offsets[0].lag_records, 5, "what is gone is no lag");
    let lease = store.expire_all_leases().await.map(|()| acquire(store, "b"));
    let lease = lease.unwrap().await.into_iter().find(|lease| lease.partition == orders).unwrap();
    assert_eq!(lease.watermarks, Watermarks { log_start: 15, high_watermark: 20 });
}

pub(crate) async fn what_is_over_the_size_goes_oldest_first(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let (orders, other) = (at("orders", 0), at("orders", 1));
    // Ten bytes a record: 100, 50, 200, 100.
    for (base_offset, records) in [(0, 10), (10, 5), (15, 20), (35, 10)] {
        append(store, "a", &orders, 1, base_offset, records).await;
    }
    append(store, "a", &other, 1, 0, 44).await;
    for (bytes, log_start) in [(450, 0), (449, 10), (350, 10), (301, 15), (300, 15), (299, 35), (1, 35)] {
        retain(store, "orders", None, Some(bytes)).await;
        let before = ends(store, &orders).await.0;
        let moved = store.apply_retention().await.unwrap();
        let expected = (before != log_start).then_some((orders.clone(), log_start));
        assert_eq!(moved, Vec::from_iter(expected), "{bytes} bytes");
        assert_eq!(ends(store, &orders).await, (log_start, 45), "{bytes} bytes");
    }
    assert_eq!(ends(store, &other).await, (0, 44), "the last range never goes by size");
    append(store, "a", &orders, 1, 45, 1).await;
    assert_eq!(store.apply_retention().await.unwrap(), [(orders.clone(), 45)]);
    let ranges = store.ranges(&orders, 0, 9).await.unwrap();
    assert_eq!((ranges.len(), ranges[0].base_offset), (1, 45));
}

pub(crate) async fn many_ranges_go_at_once(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let both = [at("orders", 0), at("orders", 1)];
    for base_offset in 0..300 {
        let ranges = both.iter().map(|at| range(at, 1, base_offset, 1)).collect();
        assert_eq!(store.commit_flush(&flush("a", ranges)).await.unwrap(), [COMMITTED; 2]);
    }
    retain(store, "orders", None, Some(25)).await;
    let mut moved = store.apply_retention().await.unwrap();
    moved.sort();
    assert_eq!(moved, both.clone().map(|at| (at, 298)));
    for at in &both {
        assert_eq!(store.ranges(at, 0, 9).await.unwrap().len(), 2);
    }
    assert_eq!(dead(store).await.len(), 298);
}

pub(crate) async fn a_segment_is_dead_when_no_range_is_left(store: &dyn MetadataStore) {
    leased(store, "orders", 1, "a").await;
    leased(store, "kept", 1, "a").await;
    let (orders, kept) = (at("orders", 0), at("kept", 0));
    let shared = flush("a", vec![range(&orders, 1, 0, 5), range(&kept, 1, 0, 5)]);
    assert_eq!(store.commit_flush(&shared).await.unwrap(), [COMMITTED, COMMITTED]);
    let half = flush("a", vec![range(&orders, 1, 5, 5), range(&kept, 9, 5, 5)]);
    assert_eq!(store.commit_flush(&half).await.unwrap(), [COMMITTED, FENCED]);
    let fenced = flush("a", vec![range(&orders, 9, 10, 5)]);
    assert_eq!(store.commit_flush(&fenced).await.unwrap(), [FENCED]);
    append(store, "a", &orders, 1, 10, 5).await;
    assert_eq!(dead(store).await, [fenced.segment], "a wholly fenced one never had a range");
    // Deaths are told apart by the millisecond.
    tokio::time::sleep(Duration::from_millis(2)).await;

    retain(store, "orders", None, Some(1)).await;
    assert_eq!(store.apply_retention().await.unwrap(), [(orders.clone(), 10)]);
    assert_eq!(dead(store).await, [fenced.segment, half.segment], "longest first; the shared one is read");
    assert_eq!(store.dead_segments(NO_GRACE, 1).await.unwrap()[0].object, fenced.object);
    assert_eq!(store.dead_segments(HOUR, 9).await.unwrap(), [], "not before the grace time is over");
    assert_eq!(store.dead_segments(Duration::MAX, 9).await.unwrap(), []);

    let every = [shared.segment, half.segment, fenced.segment, SegmentId(99)];
    store.forget_segments(&[]).await.unwrap();
    store.forget_segments(&every).await.unwrap();
    assert_eq!(store.committed_segments(&every).await.unwrap(), [shared.segment], "what has a range stays");
    assert_eq!(dead(store).await, []);
    assert_eq!(store.ranges(&kept, 0, 9).await.unwrap()[0].segment, shared.segment);
    let mut committed = store.committed_segments(&[]).await.unwrap();
    assert_eq!(committed, []);
    retain(store, "kept", Some(MILLISECOND), None).await;
    age(store, &kept).await;
    assert_eq!(store.apply_retention().await.unwrap(), [(kept.clone(), 5)]);
    committed = dead(store).await;
    assert_eq!(committed, [shared.segment], "its last range went");
}

pub(crate) async fn a_duty_is_one_agents(store: &dyn MetadataStore) {
    let take = async |name: &str, term| store.take_duty(Duty::Upkeep, &agent(name), term).await;
    let error = take("a", HOUR).await.unwrap_err();
    assert!(matches!(error, MetadataError::Invalid(_)), "{error}");
    for name in ["a", "b"] {
        store.register_agent(&agent(name), "host:1").await.unwrap();
    }
    for term in [Duration::ZERO, Duration::from_secs(86_401)] {
        assert_eq!(take("a", term).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(take("a", HOUR).await.unwrap());
    assert!(!take("b", HOUR).await.unwrap());
    assert!(take("a", MILLISECOND).await.unwrap(), "kept, for another term");
    while !take("b", HOUR).await.unwrap() {
        tokio::time::sleep(MILLISECOND).await;
    }
    assert!(!take("a", HOUR).await.unwrap(), "it expired and is another's");
    store.deregister_agent(&agent("b")).await.unwrap();
    assert!(take("a", HOUR).await.unwrap(), "who is forgotten has no duty");
    store.register_agent(&agent("b"), "host:1").await.unwrap();
    store.expire_all_leases().await.unwrap();
    assert!(take("b", HOUR).await.unwrap(), "a dead predecessor's");
    let (one, two) = (agent("a"), agent("b"));
    store.expire_all_leases().await.unwrap();
    let race =
        tokio::join!(store.take_duty(Duty::Upkeep, &one, HOUR), store.take_duty(Duty::Upkeep, &two, HOUR));
    assert!(race.0.unwrap() != race.1.unwrap(), "one of two");
}

pub(crate) async fn every_groups_lag_is_told(store: &dyn MetadataStore) {
    leased(store, "orders", 11, "a").await;
    leased(store, "audit", 1, "a").await;
    append(store, "a", &at("orders", 10), 1, 0, 8).await;
    append(store, "a", &at("audit", 0), 1, 0, 4).await;
    let commit = [(at("orders", 10), 2), (at("orders", 2), 0), (at("audit", 0), 1)];
    commit_offsets(store, "second", &commit).await.unwrap();
    commit_offsets(store, "first", &[(at("orders", 10), 8)]).await.unwrap();
    let asked = [at("orders", 10), at("nothing", 0), at("orders", 2), at("orders", 99), at("orders", 3)];
    let lags = store.group_lags(&asked).await.unwrap();
    let rows: Vec<_> = lags
        .iter()
        .map(|(group, row)| (group.as_str(), row.partition.to_string(), row.committed, row.lag_records))
        .collect();
    let expected =
        [("first", "orders/10", 8, 0), ("second", "orders/2", 0, 0), ("second", "orders/10", 2, 6)];
    assert_eq!(
        rows,
        expected.map(|(group, at, committed, lag)| (group, at.to_string(), Some(committed), lag))
    );
    age(store, &at("orders", 10)).await;
    let lags = store.group_lags(&asked[..1]).await.unwrap();
    let of = |name: &str| lags.iter().find(|(group, _)| group.as_str() == name).unwrap().1.lag;
    assert!(of("first") == Duration::ZERO && of("second") > MILLISECOND, "{lags:?}");
    // A group that reads and has committed nothing is behind by all there is.
    let (group, reader) = (GroupId::new("new").unwrap(), MemberId::new("reader").unwrap());
    let session = Duration::from_secs(60);
    store.join_group(&group, &reader, &[at("orders", 10).topic], session).await.unwrap();
    store.claim_partitions(&group, &reader, &[at("orders", 10)]).await.unwrap();
    let lags = store.group_lags(&asked[..1]).await.unwrap();
    let new = lags
        .iter()
        .find(|(group, _)| group.as_str() == "new")
        .map(|(_, row)| (row.committed, row.lag_records));
    assert_eq!(new, Some((None, 8)));
    let news = lags.iter().filter(|(group, _)| group.as_str() == "new").count();
    assert_eq!(news, 1);
    // And stays behind when nobody of it reads any more, wherever it is asked for.
    store.leave_group(&group, &reader).await.unwrap();
    let lags = store.group_lags(&asked[..1]).await.unwrap();
    let new = lags.iter().find(|(group, _)| group.as_str() == "new").unwrap();
    assert_eq!((new.1.committed, new.1.lag_records), (None, 8));
    let described = store.describe_group(&group).await.unwrap();
    let rows: Vec<_> = described.iter().map(|row| (&row.partition, row.committed, row.lag_records)).collect();
    assert_eq!(rows, [(&asked[0], None, 8)]);
    let listed = store.groups().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == group).unwrap();
    assert_eq!((listed.partitions, listed.lag_records), (1, 8));
    assert_eq!(store.group_lags(&[]).await.unwrap(), []);
}
