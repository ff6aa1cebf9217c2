//! Consumer groups.

use super::*;
use streamhouse_metadata::{GroupOffset, MetadataError, Watermarks};

/// Waits until the database's clock has moved by at least this much.
const TICK: Duration = Duration::from_millis(20);

async fn offsets(store: &dyn MetadataStore, name: &str, partitions: &[TopicPartition]) -> Vec<GroupOffset> {
    store.group_offsets(&group(name), partitions).await.unwrap()
}

pub(crate) async fn committed_offsets_are_read_back(store: &dyn MetadataStore) {
    leased(store, "orders", 3, "a").await;
    let [zero, one, two] = [0, 1, 2].map(|partition| at("orders", partition));
    append(store, "a", &zero, 1, 0, 10).await;
    append(store, "a", &two, 1, 0, 5).await;
    commit_offsets(store, "g", &[(two.clone(), 5), (zero.clone(), 3)]).await.unwrap();

    let asked = [two.clone(), one.clone(), zero.clone(), two.clone()];
    let read = offsets(store, "g", &asked).await;
    assert_eq!(read.iter().map(|offset| offset.partition.clone()).collect::<Vec<_>>(), asked);
    assert_eq!(
        read.iter().map(|offset| offset.committed).collect::<Vec<_>>(),
        [Some(5), None, Some(3), Some(5)]
    );
    assert_eq!(read[2].watermarks, Watermarks { log_start: 0, high_watermark: 10 });
    assert_eq!(offsets(store, "g", &[]).await, []);

    // Forwards and, to read again, backwards.
    for offset in [10, 0, 7] {
        commit_offsets(store, "g", &[(zero.clone(), offset)]).await.unwrap();
        assert_eq!(offsets(store, "g", std::slice::from_ref(&zero)).await[0].committed, Some(offset));
    }
    let other = offsets(store, "other", &[zero]).await;
    assert_eq!(other[0].committed, None, "groups do not see each other");
}

pub(crate) async fn offsets_are_committed_all_or_none(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let (zero, one) = (at("orders", 0), at("orders", 1));
    append(store, "a", &zero, 1, 0, 10).await;
    for (wrong, offset) in [(&one, 1), (&one, u64::MAX), (&at("orders", 2), 0), (&at("nothing", 0), 0)] {
        let error =
            commit_offsets(store, "g", &[(zero.clone(), 4), (wrong.clone(), offset)]).await.unwrap_err();
        let expected = match (&error, wrong.topic.as_str(), wrong.partition) {
            (MetadataError::Invalid(message), "orders", 1) => {
                message.contains("orders/1") || offset == u64::MAX
            }
            (MetadataError::PartitionNotFound { partition: 2, partitions: 2, .. }, "orders", 2) => true,
            (MetadataError::TopicNotFound(name), "nothing", _) => name == "nothing",
            _ => false,
        };
        assert!(expected, "{wrong} at {offset}: {error}");
    }
    assert_eq!(store.groups().await.unwrap(), [], "no commit, no group");
    commit_offsets(store, "g", &[]).await.unwrap();
    assert_eq!(store.groups().await.unwrap(), []);
    commit_offsets(store, "g", &[(zero, 10), (one, 0)]).await.unwrap();
    assert_eq!(store.groups().await.unwrap().len(), 1);
}

pub(crate) async fn unknown_groups_and_partitions_are_not_found(store: &dyn MetadataStore) {
    create(store, "orders", 1).await.unwrap();
    let error = store.describe_group(&group("nobody")).await.unwrap_err();
    assert!(matches!(&error, MetadataError::GroupNotFound(name) if name == "nobody"), "{error}");
    let error = store.group_offsets(&group("g"), &[at("orders", 0), at("orders", 1)]).await.unwrap_err();
    assert!(matches!(error, MetadataError::PartitionNotFound { partition: 1, partitions: 1, .. }), "{error}");
    let error = store.group_offsets(&group("g"), &[at("nothing", 0)]).await.unwrap_err();
    assert!(matches!(error, MetadataError::TopicNotFound(_)), "{error}");
}

pub(crate) async fn lag_counts_from_the_committed_offset(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let (orders, idle) = (at("orders", 0), at("orders", 1));
    append(store, "a", &orders, 1, 0, 60).await;
    append(store, "a", &orders, 1, 60, 40).await;
    let lag = async || {
        let read = offsets(store, "g", &[orders.clone(), idle.clone()]).await;
        (read[0].lag_records, read[1].lag_records, read[1].lag)
    };
    assert_eq!(
        lag().await,
        (100, 0, Duration::ZERO),
        "no commit yet: all of it, and nothing of what is empty"
    );
    for (committed, expected) in [(0, 100), (1, 99), (59, 41), (60, 40), (100, 0)] {
        let commit = [(orders.clone(), committed), (idle.clone(), 0)];
        commit_offsets(store, "g", &commit).await.unwrap();
        assert_eq!(lag().await, (expected, 0, Duration::ZERO), "committed {committed}");
        assert_eq!(store.groups().await.unwrap()[0].lag_records, expected);
    }
}

pub(crate) async fn lag_in_time_is_the_age_of_the_first_uncommitted_record(store: &dyn MetadataStore) {
    leased(store, "orders", 1, "a").await;
    let orders = at("orders", 0);
    let lag = async |name: &str| offsets(store, name, std::slice::from_ref(&orders)).await[0].lag;
    assert_eq!(lag("g").await, Duration::ZERO, "nothing was written");
    append(store, "a", &orders, 1, 0, 10).await;
    tokio::time::sleep(TICK).await;
    append(store, "a", &orders, 1, 10, 10).await;

    // The lag of a group within the first segment is its age: it contains the pause, the second segment's does not.
    let first = lag("nobody-committed").await;
    assert!(first >= TICK, "{first:?}");
    let ages = store.ranges(&orders, 0, 9).await.unwrap();
    let between = Duration::from_millis((ages[1].committed_ms - ages[0].committed_ms) as u64);
    assert!(between >= TICK);
    for (committed, segment) in [(0, 0), (9, 0), (10, 1), (19, 1)] {
        let name = format!("g{committed}");
        commit_offsets(store, &name, &[(orders.clone(), committed)]).await.unwrap();
        // Both ages were taken around this one, so it is bracketed however slow the machine is.
        let before = lag("nobody-committed").await;
        let measured = lag(&name).await;
        let after = lag("nobody-committed").await;
        let offset = if segment == 0 { Duration::ZERO } else { between };
        assert!(
            before - offset <= measured && measured <= after - offset,
            "committed {committed}: {measured:?}"
        );
        assert_eq!(store.describe_group(&group(&name)).await.unwrap()[0].committed, Some(committed));
    }
    commit_offsets(store, "g", &[(orders.clone(), 20)]).await.unwrap();
    tokio::time::sleep(TICK).await;
    assert_eq!(
        lag("g").await,
        Duration::ZERO,
        "who has read everything has no lag, however long nothing comes"
    );
}

pub(crate) async fn groups_without_members_can_be_deleted(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    let orders = at("orders", 0);
    append(store, "a", &orders, 1, 0, 8).await;
    let missing = |error| matches!(error, MetadataError::GroupNotFound(name) if name == "g");
    assert!(missing(store.delete_group(&group("g")).await.unwrap_err()));
    commit_offsets(store, "g", &[(orders.clone(), 2)]).await.unwrap();
    commit_offsets(store, "other", &[(orders.clone(), 3)]).await.unwrap();
    let member = "reader".parse().unwrap();
    store.join_group(&group("g"), &member, &[topic("orders")], HOUR).await.unwrap();
    store.claim_partitions(&group("g"), &member, &[at("orders", 1)]).await.unwrap();
    let error = store.delete_group(&group("g")).await.unwrap_err();
    assert!(matches!(error, MetadataError::GroupInUse { members: 1, .. }), "{error}");
    store.leave_group(&group("g"), &member).await.unwrap();

    store.delete_group(&group("g")).await.unwrap();
    assert!(missing(store.delete_group(&group("g")).await.unwrap_err()));
    assert!(missing(store.describe_group(&group("g")).await.unwrap_err()));
    assert!(missing(store.group_view(&group("g")).await.unwrap_err()));
    let lags = store.group_lags(&[orders.clone(), at("orders", 1)]).await.unwrap();
    assert_eq!(lags.iter().map(|(group, _)| group.as_str()).collect::<Vec<_>>(), ["other"]);
    // The next of its name has nothing of it.
    store.join_group(&group("g"), &member, &[topic("orders")], HOUR).await.unwrap();
    let claimed = store.claim_partitions(&group("g"), &member, &[orders]).await.unwrap();
    assert_eq!(claimed[0].offset.committed, None);
}

pub(crate) async fn groups_are_listed_and_described(store: &dyn MetadataStore) {
    leased(store, "orders", 11, "a").await;
    leased(store, "audit", 1, "a").await;
    append(store, "a", &at("orders", 10), 1, 0, 8).await;
    append(store, "a", &at("audit", 0), 1, 0, 4).await;
    let commit = [(at("orders", 10), 2), (at("orders", 2), 0), (at("audit", 0), 1)];
    commit_offsets(store, "second", &commit).await.unwrap();
    commit_offsets(store, "first", &[(at("audit", 0), 4)]).await.unwrap();

    let groups = store.groups().await.unwrap();
    let listed: Vec<_> =
        groups.iter().map(|group| (group.id.as_str(), group.partitions, group.lag_records)).collect();
    assert_eq!(listed, [("first", 1, 0), ("second", 3, 9)]);
    let described = store.describe_group(&group("second")).await.unwrap();
    let rows: Vec<_> = described
        .iter()
        .map(|row| (row.partition.to_string(), row.committed, row.watermarks.high_watermark, row.lag_records))
        .collect();
    let expected = [("audit/0", Some(1), 4, 3), ("orders/2", Some(0), 0, 0), ("orders/10", Some(2), 8, 6)];
    assert_eq!(rows, expected.map(|(at, committed, high, lag)| (at.to_string(), committed, high, lag)));
}
