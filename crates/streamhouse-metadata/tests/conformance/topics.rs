//! Topics and their partitions.

use super::*;
use streamhouse_core::limits::PARTITIONS_MAX;
use streamhouse_metadata::{LeaseHolder, MetadataError, ProducerState, SequencedBatch, Watermarks};

pub(crate) async fn created_topics_are_listed_by_name(store: &dyn MetadataStore) {
    assert_eq!(store.topics().await.unwrap(), []);
    let orders = create(store, "orders", 3).await.unwrap();
    let audit = create(store, "audit", 1).await.unwrap();
    assert_eq!((orders.name.as_str(), orders.partitions), ("orders", 3));
    assert!(orders.created_ms > 1_700_000_000_000, "{} is not in milliseconds since 1970", orders.created_ms);
    assert!(audit.created_ms >= orders.created_ms);
    assert_eq!(store.topic(&topic("orders")).await.unwrap(), orders);
    assert_eq!(store.topics().await.unwrap(), [audit, orders]);
}

pub(crate) async fn a_topic_is_created_once(store: &dyn MetadataStore) {
    let first = create(store, "orders", 3).await.unwrap();
    let error = create(store, "orders", 5).await.unwrap_err();
    assert!(matches!(&error, MetadataError::TopicExists(name) if name == "orders"), "{error}");
    assert_eq!(store.topics().await.unwrap(), [first]);
    assert_eq!(store.partitions(&topic("orders")).await.unwrap().len(), 3);
    // Names are told apart to the letter.
    create(store, "Orders", 1).await.unwrap();
}

pub(crate) async fn partition_counts_are_bounded(store: &dyn MetadataStore) {
    for wrong in [0, PARTITIONS_MAX + 1, u32::MAX] {
        let error = create(store, "orders", wrong).await.unwrap_err();
        assert!(matches!(error, MetadataError::Invalid(_)), "{error}");
    }
    assert_eq!(store.topics().await.unwrap(), []);
    create(store, "orders", PARTITIONS_MAX).await.unwrap();
    let partitions = store.partitions(&topic("orders")).await.unwrap();
    let numbers: Vec<u32> = partitions.iter().map(|partition| partition.partition).collect();
    assert_eq!(numbers, (0..PARTITIONS_MAX).collect::<Vec<_>>());
}

pub(crate) async fn unknown_topics_and_partitions_are_not_found(store: &dyn MetadataStore) {
    create(store, "orders", 2).await.unwrap();
    for error in [
        store.topic(&topic("nothing")).await.unwrap_err(),
        store.partitions(&topic("nothing")).await.unwrap_err(),
        store.watermarks(&[at("orders", 0), at("nothing", 0)]).await.unwrap_err(),
    ] {
        assert!(matches!(&error, MetadataError::TopicNotFound(name) if name == "nothing"), "{error}");
    }
    let error = store.watermarks(&[at("orders", 1), at("orders", 2), at("nothing", 0)]).await.unwrap_err();
    assert!(
        matches!(&error, MetadataError::PartitionNotFound { topic, partition: 2, partitions: 2 } if topic == "orders"),
        "{error}"
    );
}

pub(crate) async fn partitions_say_who_holds_them(store: &dyn MetadataStore) {
    create(store, "orders", 2).await.unwrap();
    store.register_agent(&agent("a"), "host-a:50051").await.unwrap();
    store.acquire_leases(&agent("a"), HOUR, &[at("orders", 1)]).await.unwrap();
    let partitions = store.partitions(&topic("orders")).await.unwrap();
    let held: Vec<_> = partitions.iter().filter_map(|partition| partition.holder.clone()).collect();
    assert_eq!(held, [LeaseHolder { agent: agent("a"), address: "host-a:50051".into(), epoch: 1 }]);

    let leased = partitions.iter().position(|partition| partition.holder.is_some()).unwrap();
    expire(store, "a", &at("orders", leased as u32), 1).await;
    let partitions = store.partitions(&topic("orders")).await.unwrap();
    assert!(partitions.iter().all(|partition| partition.holder.is_none()), "an expired lease has no holder");
}

pub(crate) async fn watermarks_come_in_the_order_asked(store: &dyn MetadataStore) {
    assert_eq!(store.watermarks(&[]).await.unwrap(), []);
    leased(store, "orders", 3, "a").await;
    leased(store, "audit", 1, "a").await;
    append(store, "a", &at("orders", 2), 1, 0, 20).await;
    append(store, "a", &at("audit", 0), 1, 0, 7).await;
    let asked = [at("orders", 2), at("audit", 0), at("orders", 0), at("orders", 2)];
    let high: Vec<_> = store.watermarks(&asked).await.unwrap();
    let expected = [20, 7, 0, 20].map(|high_watermark| Watermarks { log_start: 0, high_watermark });
    assert_eq!(high, expected);
    let partitions = store.partitions(&topic("orders")).await.unwrap();
    assert_eq!(partitions[2].watermarks, expected[0]);
}

pub(crate) async fn a_deleted_topic_leaves_nothing_to_one_of_its_name(store: &dyn MetadataStore) {
    let (orders, audit) = (at("orders", 0), at("audit", 0));
    create(store, "audit", 1).await.unwrap();
    leased(store, "orders", 2, "a").await;
    let both = flush("a", vec![range(&orders, 1, 0, 5), range(&audit, 1, 0, 5)]);
    assert_eq!(store.commit_flush(&both).await.unwrap(), [COMMITTED; 2]);
    let alone = flush("a", vec![range(&orders, 1, 5, 5)]);
    assert_eq!(store.commit_flush(&alone).await.unwrap(), [COMMITTED]);
    commit_offsets(store, "billing", &[(orders.clone(), 3), (audit.clone(), 2)]).await.unwrap();
    let member = "reader".parse().unwrap();
    store.join_group(&group("billing"), &member, &[topic("orders")], HOUR).await.unwrap();
    store.claim_partitions(&group("billing"), &member, std::slice::from_ref(&orders)).await.unwrap();
    let before = store.group_view(&group("billing")).await.unwrap();

    store.delete_topic(&topic("orders")).await.unwrap();
    let missing = |error| matches!(error, MetadataError::TopicNotFound(_));
    assert!(missing(store.topic(&topic("orders")).await.unwrap_err()));
    assert!(missing(store.delete_topic(&topic("orders")).await.unwrap_err()));
    assert!(missing(store.watermarks(std::slice::from_ref(&orders)).await.unwrap_err()));
    assert!(missing(store.ranges(&orders, 0, 10).await.unwrap_err()));
    assert_eq!(every_partition(store).await, std::slice::from_ref(&audit));
    let renewed = store.renew_leases(&agent("a"), &[(orders.clone(), 1), (audit.clone(), 1)], HOUR).await;
    assert_eq!(renewed.unwrap(), std::slice::from_ref(&audit));
    let lags = store.group_lags(&[orders.clone(), audit.clone()]).await.unwrap();
    assert_eq!(
        lags.iter().map(|(_, lag)| (&lag.partition, lag.lag_records)).collect::<Vec<_>>(),
        [(&audit, 3)]
    );
    let after = store.group_view(&group("billing")).await.unwrap();
    assert!(after.claims.is_empty() && after.generation > before.generation, "{before:?} {after:?}");
    // An object goes when nothing else is in it, which upkeep sees.
    assert_eq!(store.dead_segments(Duration::ZERO, 10).await.unwrap(), []);
    store.apply_retention().await.unwrap();
    let dead = store.dead_segments(Duration::ZERO, 10).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.segment).collect::<Vec<_>>(), [alone.segment]);

    // Who held a lease of the old topic holds none of the new one, though it is the same agent, and both begin at 0.
    let late = flush("a", vec![range(&orders, 1, 0, 5), range(&audit, 1, 5, 5)]);
    assert_eq!(store.commit_flush(&late).await.unwrap(), [FENCED, COMMITTED]);
    leased(store, "orders", 2, "a").await;
    let old = flush("a", vec![range(&orders, 1, 0, 5)]);
    assert_eq!(store.commit_flush(&old).await.unwrap(), [FENCED]);
    let epoch = store.partitions(&topic("orders")).await.unwrap()[0].holder.as_ref().unwrap().epoch;
    assert!(epoch > 1, "{epoch}");
    let new = flush("a", vec![range(&orders, epoch, 0, 5)]);
    assert_eq!(store.commit_flush(&new).await.unwrap(), [COMMITTED]);
    let offsets = store.group_offsets(&group("billing"), std::slice::from_ref(&orders)).await.unwrap();
    assert_eq!((offsets[0].committed, offsets[0].lag_records), (None, 5));
    assert_eq!(
        store.flush_outcome(&both).await.unwrap().unwrap(),
        [FENCED, COMMITTED],
        "it is not there any more"
    );
}

pub(crate) async fn what_a_deleted_topic_leaves_is_nobody_elses(store: &dyn MetadataStore) {
    const RANGES: u64 = 40;
    let orders: Vec<_> = (0..60).map(|number| at("orders", number)).collect();
    let batches = vec![SequencedBatch { base_sequence: 0, records: 1, base_offset: 0 }];
    let window = |producer_id| ProducerState { producer_id, epoch: 0, batches: batches.clone() };
    let windows: Vec<_> = (1..=RANGES).map(window).collect();
    leased(store, "audit", 1, "a").await;
    leased(store, "orders", 60, "a").await;
    let shared = |epoch, base_offset| {
        let ranges = orders.iter().map(|at| {
            let mut range = range(at, epoch, base_offset, 1);
            range.producers.clone_from(&windows);
            range
        });
        flush("a", ranges.collect())
    };
    let mut kept = shared(1, 0);
    kept.ranges.push(range(&at("audit", 0), 1, 0, 1));
    assert_eq!(store.commit_flush(&kept).await.unwrap(), [COMMITTED; 61]);
    let mut gone = Vec::new();
    for base_offset in 1..RANGES {
        let flush = shared(1, base_offset);
        assert_eq!(store.commit_flush(&flush).await.unwrap(), [COMMITTED; 60]);
        gone.push(flush.segment);
    }

    // The next of the name begins empty, also while the ranges of the first are still there.
    store.delete_topic(&topic("orders")).await.unwrap();
    let leases = leased(store, "orders", 60, "a").await;
    assert_eq!(leases.len(), 60);
    for lease in &leases {
        assert_eq!((lease.watermarks.high_watermark, &lease.producers), (0, &Vec::new()), "{lease:?}");
        assert!(lease.epoch > 1, "{lease:?}");
    }
    let new = shared(leases[0].epoch, 0);
    assert_eq!(store.commit_flush(&new).await.unwrap(), [COMMITTED; 60]);
    store.apply_retention().await.unwrap();
    let mut dead: Vec<_> =
        store.dead_segments(Duration::ZERO, 1000).await.unwrap().iter().map(|dead| dead.segment).collect();
    dead.sort_unstable();
    assert_eq!(dead, gone, "what only the first was in");
    for (at, segment) in [(&orders[0], new.segment), (&at("audit", 0), kept.segment)] {
        let ranges = store.ranges(at, 0, 1000).await.unwrap();
        assert_eq!(ranges.iter().map(|range| range.segment).collect::<Vec<_>>(), [segment], "{at}");
    }
    store.expire_all_leases().await.unwrap();
    for lease in acquire(store, "a").await.iter().filter(|lease| lease.partition.topic == topic("orders")) {
        assert_eq!(lease.producers, windows, "{} has those of the new topic", lease.partition);
    }

    // All of it goes with the last.
    for name in ["orders", "audit"] {
        store.delete_topic(&topic(name)).await.unwrap();
    }
    store.apply_retention().await.unwrap();
    let dead = store.dead_segments(Duration::ZERO, 1000).await.unwrap();
    assert_eq!(dead.len(), gone.len() + 2);
    assert!(every_partition(store).await.is_empty());
    for lease in leased(store, "orders", 60, "a").await {
        assert_eq!(lease.producers, [], "{}", lease.partition);
        assert_eq!(store.ranges(&lease.partition, 0, 1).await.unwrap(), []);
    }
}

pub(crate) async fn epochs_rise_from_topic_to_topic_of_a_name(store: &dyn MetadataStore) {
    let mut before = 0;
    for partitions in [3, 1, 2] {
        let leases = leased(store, "orders", partitions, "a").await;
        assert!(leases.iter().all(|lease| lease.epoch > before), "{before} {leases:?}");
        // One partition gets further than the others.
        let last = at("orders", partitions - 1);
        for _ in 0..partitions {
            let epoch =
                store.partitions(&topic("orders")).await.unwrap()[last.partition as usize].holder.clone();
            store.release_leases(&agent("a"), &[(last.clone(), epoch.unwrap().epoch)]).await.unwrap();
            before =
                store.acquire_leases(&agent("a"), HOUR, std::slice::from_ref(&last)).await.unwrap()[0].epoch;
        }
        // An epoch that was reached counts also when nobody holds it at the end.
        store.release_all_leases(&agent("a")).await.unwrap();
        store.delete_topic(&topic("orders")).await.unwrap();
    }
    // Other names are not held back by it.
    create(store, "audit", 1).await.unwrap();
    assert_eq!(acquire(store, "a").await.len(), 1);
}

pub(crate) async fn members_of_a_deleted_topic_lose_it_and_nothing_else(store: &dyn MetadataStore) {
    let (orders, audit) = (at("orders", 0), at("audit", 0));
    for name in ["orders", "audit"] {
        leased(store, name, 1, "x").await;
        append(store, "x", &at(name, 0), 1, 0, 10).await;
    }
    let (group, member) = (group("g"), "a".parse().unwrap());
    let topics = [topic("audit"), topic("orders")];
    store.join_group(&group, &member, &topics, HOUR).await.unwrap();
    let both = [audit.clone(), orders.clone()];
    let claimed = store.claim_partitions(&group, &member, &both).await.unwrap();
    let generation = claimed[0].generation;
    let commit = async |at: &TopicPartition, generation| {
        let commit = OffsetCommit { partition: at.clone(), offset: 5, generation };
        store.commit_offsets(&group, Some(&member), &[commit]).await
    };
    commit(&orders, generation).await.unwrap();

    store.delete_topic(&topic("orders")).await.unwrap();
    let view = store.heartbeat_member(&group, &member, HOUR).await.unwrap();
    assert!(view.generation > generation, "{view:?}");
    assert_eq!(view.claims.iter().map(|claim| &claim.partition).collect::<Vec<_>>(), [&audit]);
    assert_eq!(view.members[0].topics, topics, "it may come back");
    // To name it breaks nothing.
    assert_eq!(store.join_group(&group, &member, &topics, HOUR).await.unwrap(), view);
    let claimed = store.claim_partitions(&group, &member, &both).await.unwrap();
    assert_eq!(claimed.iter().map(|claim| &claim.offset.partition).collect::<Vec<_>>(), [&audit]);
    store.release_claims(&group, &member, std::slice::from_ref(&orders)).await.unwrap();
    commit(&audit, generation).await.unwrap();
    let missing =
        |error: MetadataError| matches!(error, MetadataError::TopicNotFound(name) if name == "orders");
    assert!(missing(commit(&orders, generation).await.unwrap_err()));
    assert!(missing(store.group_offsets(&group, &both).await.unwrap_err()));
    let described = store.describe_group(&group).await.unwrap();
    assert_eq!(described.iter().map(|offset| &offset.partition).collect::<Vec<_>>(), [&audit]);
    let listed = store.groups().await.unwrap();
    assert_eq!((listed[0].partitions, listed[0].lag_records), (1, 5));

    // What was sent under the claim on the first of the name is not taken for the second.
    leased(store, "orders", 1, "x").await;
    let fenced = commit(&orders, generation).await.unwrap_err();
    assert!(matches!(fenced, MetadataError::MemberFenced { .. }), "{fenced}");
    let again = store.claim_partitions(&group, &member, std::slice::from_ref(&orders)).await.unwrap();
    assert_eq!((again[0].offset.committed, again[0].generation), (None, view.generation));
    let fenced = commit(&orders, generation).await.unwrap_err();
    assert!(matches!(fenced, MetadataError::MemberFenced { .. }), "{fenced}");
}
