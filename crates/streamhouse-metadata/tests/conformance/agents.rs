//! Agents and producer ids.

use super::*;
use std::collections::HashSet;
use streamhouse_metadata::MetadataError;

pub(crate) async fn registering_again_changes_the_address(store: &dyn MetadataStore) {
    assert_eq!(store.agents().await.unwrap(), []);
    store.register_agent(&agent("b"), "host-b:1").await.unwrap();
    store.register_agent(&agent("a"), "host-a:1").await.unwrap();
    store.register_agent(&agent("b"), "host-b:2").await.unwrap();
    let agents = store.agents().await.unwrap();
    let known: Vec<_> = agents.iter().map(|agent| (agent.id.as_str(), agent.address.as_str())).collect();
    assert_eq!(known, [("a", "host-a:1"), ("b", "host-b:2")]);
    assert!(agents.iter().all(|agent| (0..60_000).contains(&agent.heartbeat_age_ms)), "{agents:?}");
}

pub(crate) async fn a_heartbeat_needs_a_registration(store: &dyn MetadataStore) {
    let error = store.heartbeat(&agent("a")).await.unwrap_err();
    assert!(matches!(error, MetadataError::Invalid(_)), "{error}");
    store.register_agent(&agent("a"), "host-a:1").await.unwrap();
    let age = async || store.agents().await.unwrap()[0].heartbeat_age_ms;
    // The age grows until a heartbeat makes it small again: it is no older than the call then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(age().await >= 98);
    let begin = Instant::now();
    store.heartbeat(&agent("a")).await.unwrap();
    let after = age().await;
    // Both clocks are read in whole milliseconds.
    let most = begin.elapsed().as_millis() as i64 + 2;
    assert!(after <= most, "the age is {after} ms, {most} ms after the heartbeat was begun");
}

pub(crate) async fn a_forgotten_agent_leaves_its_leases(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "a").await;
    store.deregister_agent(&agent("a")).await.unwrap();
    store.deregister_agent(&agent("never-seen")).await.unwrap();
    assert_eq!(store.agents().await.unwrap(), []);
    let late = flush("a", vec![range(&at("orders", 0), 1, 0, 1)]);
    assert_eq!(store.commit_flush(&late).await.unwrap(), [FENCED]);
    assert_eq!(acquire(store, "b").await.len(), 2);
    // Known again, it is not what it was.
    store.register_agent(&agent("a"), "host-a:1").await.unwrap();
    assert_eq!(store.renew_leases(&agent("a"), &[(at("orders", 0), 1)], HOUR).await.unwrap(), []);
}

pub(crate) async fn producer_ids_are_never_given_twice(store: &dyn MetadataStore) {
    let mut ids = HashSet::new();
    for _ in 0..10 {
        let id = store.new_producer_id().await.unwrap();
        assert!(id >= 1);
        assert!(ids.insert(id), "{id} was given twice");
    }
}
