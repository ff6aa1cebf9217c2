//! Leases.

use super::*;
use std::collections::BTreeSet;
use streamhouse_metadata::{MetadataError, ProducerState, SequencedBatch, Watermarks};

pub(crate) async fn a_grant_is_bounded_and_exclusive(store: &dyn MetadataStore) {
    create(store, "orders", 3).await.unwrap();
    create(store, "audit", 2).await.unwrap();
    for name in ["a", "b"] {
        store.register_agent(&agent(name), "host:1").await.unwrap();
    }
    assert_eq!(store.acquire_leases(&agent("a"), HOUR, &[]).await.unwrap(), []);
    let wanted = [at("orders", 1), at("audit", 1), at("orders", 3), at("nothing", 0)];
    let first = store.acquire_leases(&agent("a"), HOUR, &wanted).await.unwrap();
    let got: BTreeSet<_> = first.iter().map(|lease| &lease.partition).collect();
    assert_eq!(got, wanted[..2].iter().collect(), "what was wanted and exists");
    let every = every_partition(store).await;
    let second = store.acquire_leases(&agent("b"), HOUR, &every).await.unwrap();
    assert_eq!((first.len(), second.len()), (2, 3));
    let partitions: BTreeSet<_> = first.iter().chain(&second).map(|lease| &lease.partition).collect();
    assert_eq!(partitions.len(), 5, "every partition has one holder");
    assert_eq!(store.acquire_leases(&agent("a"), HOUR, &every).await.unwrap(), []);
}

pub(crate) async fn every_grant_raises_the_epoch(store: &dyn MetadataStore) {
    let partition = at("orders", 0);
    let mut epoch = leased(store, "orders", 1, "a").await[0].epoch;
    assert_eq!(epoch, 1);
    for holder in ["b", "a", "a"] {
        store.expire_all_leases().await.unwrap();
        let granted = acquire(store, holder).await;
        assert_eq!(granted[0].partition, partition);
        assert!(granted[0].epoch > epoch, "epoch {} after {epoch}", granted[0].epoch);
        epoch = granted[0].epoch;
    }
}

pub(crate) async fn a_lease_needs_a_registered_agent_and_a_sane_term(store: &dyn MetadataStore) {
    create(store, "orders", 1).await.unwrap();
    let error = store.acquire_leases(&agent("a"), HOUR, &[at("orders", 0)]).await.unwrap_err();
    assert!(matches!(error, MetadataError::Invalid(_)), "{error}");
    store.register_agent(&agent("a"), "host:1").await.unwrap();
    for term in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(86_401), Duration::MAX] {
        for error in [
            store.acquire_leases(&agent("a"), term, &[at("orders", 0)]).await.unwrap_err(),
            store.renew_leases(&agent("a"), &[(at("orders", 0), 1)], term).await.unwrap_err(),
        ] {
            assert!(matches!(error, MetadataError::Invalid(_)), "{error}");
        }
    }
    assert_eq!(store.acquire_leases(&agent("a"), HOUR, &[at("orders", 0)]).await.unwrap().len(), 1);
}

pub(crate) async fn only_a_lease_that_holds_is_renewed(store: &dyn MetadataStore) {
    leased(store, "orders", 4, "a").await;
    store.register_agent(&agent("b"), "host:1").await.unwrap();
    assert_eq!(store.renew_leases(&agent("a"), &[], HOUR).await.unwrap(), []);
    let all: Vec<_> = (0..4).map(|partition| (at("orders", partition), 1)).collect();
    assert_eq!(store.renew_leases(&agent("b"), &all, HOUR).await.unwrap(), [], "another agent's");

    expire(store, "a", &at("orders", 1), 1).await;
    expire(store, "a", &at("orders", 2), 1).await;
    let taken = store.acquire_leases(&agent("b"), HOUR, &[at("orders", 1)]).await.unwrap();
    assert_eq!((&taken[0].partition, taken[0].epoch), (&at("orders", 1), 2));
    // 0 holds; 1 is another's by now; 2 is expired, although nobody took it; 3 is asked for with a wrong epoch.
    let asked = [(at("orders", 0), 1), (at("orders", 1), 1), (at("orders", 2), 1), (at("orders", 3), 2)];
    assert_eq!(store.renew_leases(&agent("a"), &asked, HOUR).await.unwrap(), [at("orders", 0)]);
    let unknown = [(at("nothing", 0), 1), (at("orders", 9), 1), (at("orders", 3), 1)];
    assert_eq!(store.renew_leases(&agent("a"), &unknown, HOUR).await.unwrap(), [at("orders", 3)]);
    assert_eq!(store.partitions(&topic("orders")).await.unwrap()[2].holder, None);
}

pub(crate) async fn released_leases_are_free_at_once(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    leased(store, "audit", 1, "b").await;
    store.release_all_leases(&agent("a")).await.unwrap();
    store.release_all_leases(&agent("never-seen")).await.unwrap();
    assert_eq!(store.renew_leases(&agent("a"), &[(at("orders", 0), 1)], HOUR).await.unwrap(), []);
    let taken = acquire(store, "b").await;
    assert_eq!(taken.len(), 2, "b kept its own and got what a gave back");
    assert!(taken.iter().all(|lease| lease.partition.topic.as_str() == "orders" && lease.epoch == 2));
}

pub(crate) async fn leases_are_released_one_by_one(store: &dyn MetadataStore) {
    leased(store, "orders", 3, "a").await;
    store.register_agent(&agent("b"), "host:1").await.unwrap();
    let [zero, one, two] = [0, 1, 2].map(|partition| at("orders", partition));
    store.release_leases(&agent("a"), &[]).await.unwrap();
    store.release_leases(&agent("b"), &[(zero.clone(), 1)]).await.unwrap();
    let released = [(one.clone(), 1), (two.clone(), 2), (at("nothing", 0), 1), (at("orders", 9), 1)];
    store.release_leases(&agent("a"), &released).await.unwrap();
    assert!(store.any_lease_free().await.unwrap());
    let taken = acquire(store, "b").await;
    assert_eq!(taken.len(), 1, "one was given back; of the others one is held in another epoch");
    assert_eq!((&taken[0].partition, taken[0].epoch), (&one, 2));
    assert!(!store.any_lease_free().await.unwrap());
    // Too late: it is another's, in another epoch.
    store.release_leases(&agent("a"), &[(one.clone(), 1)]).await.unwrap();
    assert_eq!(store.renew_leases(&agent("b"), &[(one.clone(), 2)], HOUR).await.unwrap(), [one]);
    append(store, "a", &zero, 1, 0, 1).await;
}

pub(crate) async fn the_lease_table_says_it_all(store: &dyn MetadataStore) {
    assert_eq!(store.lease_table().await.unwrap(), []);
    create(store, "orders", 11).await.unwrap();
    create(store, "audit", 1).await.unwrap();
    store.register_agent(&agent("a"), "host:1").await.unwrap();
    let wanted = [at("orders", 10), at("orders", 2)];
    store.acquire_leases(&agent("a"), HOUR, &wanted).await.unwrap();
    expire(store, "a", &wanted[1], 1).await;
    let table = store.lease_table().await.unwrap();
    let order: Vec<_> = table.iter().map(|row| row.partition.to_string()).collect();
    let numbers = (0..11).map(|number| format!("orders/{number}"));
    assert_eq!(order, ["audit/0".to_owned()].into_iter().chain(numbers).collect::<Vec<_>>());
    for row in table {
        let (holder, epoch) = match row.partition.to_string().as_str() {
            "orders/10" => (Some(agent("a")), 1),
            "orders/2" => (None, 1),
            _ => (None, 0),
        };
        assert_eq!((row.holder, row.epoch), (holder, epoch), "{}", row.partition);
    }
}

pub(crate) async fn all_leases_expire_at_once(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    leased(store, "audit", 1, "b").await;
    store.expire_all_leases().await.unwrap();
    assert_eq!(store.renew_leases(&agent("a"), &[(at("orders", 0), 1)], HOUR).await.unwrap(), []);
    let late = flush("b", vec![range(&at("audit", 0), 1, 0, 1)]);
    assert_eq!(store.commit_flush(&late).await.unwrap(), [FENCED]);
    assert_eq!(acquire(store, "c").await.len(), 3);
}

pub(crate) async fn a_grant_says_where_the_partition_stands(store: &dyn MetadataStore) {
    let fresh = leased(store, "orders", 2, "a").await;
    assert!(fresh.iter().all(|lease| lease.producers.is_empty()));
    let batch = |base_sequence, base_offset| SequencedBatch { base_sequence, records: 5, base_offset };
    let window = |producer_id, epoch, batches: &[SequencedBatch]| ProducerState {
        producer_id,
        epoch,
        batches: batches.to_vec(),
    };
    let mut first = range(&at("orders", 1), 1, 0, 5);
    first.producers = vec![window(9, 0, &[batch(0, 0)])];
    let mut second = range(&at("orders", 1), 1, 5, 10);
    second.producers = vec![
        window(9, 0, &[batch(0, 0), batch(5, 5)]),
        window(9, 1, &[batch(0, 5)]),
        window(u64::MAX >> 1, 0, &[batch(i32::MAX, 10)]),
    ];
    for range in [first, second.clone()] {
        assert_eq!(store.commit_flush(&flush("a", vec![range])).await.unwrap(), [COMMITTED]);
    }
    store.expire_all_leases().await.unwrap();
    let mut granted = acquire(store, "b").await;
    granted.sort_by_key(|lease| lease.partition.partition);
    assert_eq!(granted[0].producers, []);
    assert_eq!(granted[1].watermarks, Watermarks { log_start: 0, high_watermark: 15 });
    let mut producers = granted[1].producers.clone();
    producers.sort_by_key(|producer| (producer.producer_id, producer.epoch));
    assert_eq!(producers, second.producers);
}

pub(crate) async fn agents_that_race_share_without_overlap(store: &dyn MetadataStore) {
    create(store, "orders", 30).await.unwrap();
    let (a, b, c) = (agent("a"), agent("b"), agent("c"));
    for agent in [&a, &b, &c] {
        store.register_agent(agent, "host:1").await.unwrap();
    }
    // In opposite orders: nobody may wait for somebody who waits for them.
    let every = every_partition(store).await;
    let turned: Vec<_> = every.iter().rev().cloned().collect();
    let (a, b, c) = tokio::join!(
        store.acquire_leases(&a, HOUR, &every),
        store.acquire_leases(&b, HOUR, &turned),
        store.acquire_leases(&c, HOUR, &every[10..20]),
    );
    let granted: Vec<_> =
        [a, b, c].into_iter().flat_map(Result::unwrap).map(|lease| lease.partition).collect();
    assert_eq!(granted.len(), 30);
    assert_eq!(granted.iter().collect::<BTreeSet<_>>().len(), 30, "no partition has two holders");
}
