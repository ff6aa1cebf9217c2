//! Topics and their partitions.

use super::*;
use streamhouse_core::limits::PARTITIONS_MAX;
use streamhouse_metadata::{LeaseHolder, MetadataError, Watermarks};

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
