//! Members of groups and their claims.

use super::*;
use std::collections::BTreeSet;
use streamhouse_core::{ErrorKind, MemberId};
use streamhouse_metadata::{Claimed, GroupView, MetadataError};

fn member(name: &str) -> MemberId {
    name.parse().unwrap()
}

async fn join(store: &dyn MetadataStore, name: &str, topics: &[&str]) -> GroupView {
    let topics: Vec<_> = topics.iter().map(|name| topic(name)).collect();
    store.join_group(&group("g"), &member(name), &topics, HOUR).await.unwrap()
}

async fn claim(store: &dyn MetadataStore, name: &str, wanted: &[TopicPartition]) -> Vec<Claimed> {
    store.claim_partitions(&group("g"), &member(name), wanted).await.unwrap()
}

async fn view(store: &dyn MetadataStore) -> GroupView {
    store.group_view(&group("g")).await.unwrap()
}

async fn commit(
    store: &dyn MetadataStore,
    name: Option<&str>,
    at: &TopicPartition,
    offset: u64,
    generation: u64,
) -> Result<()> {
    let commit = OffsetCommit { partition: at.clone(), offset, generation };
    store.commit_offsets(&group("g"), name.map(member).as_ref(), &[commit]).await
}

fn assert_fenced<T: std::fmt::Debug>(result: Result<T>, why: &str) {
    let error = result.expect_err(why);
    assert!(matches!(error, MetadataError::MemberFenced { .. }), "{why}: {error}");
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

fn names(view: &GroupView) -> Vec<&str> {
    view.members.iter().map(|member| member.id.as_str()).collect()
}

/// Lets the member's session run out by the database's clock.
async fn let_die(store: &dyn MetadataStore, name: &str) {
    store.heartbeat_member(&group("g"), &member(name), Duration::from_millis(1)).await.unwrap();
    while names(&view(store).await).contains(&name) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) async fn every_change_of_the_members_raises_the_generation(store: &dyn MetadataStore) {
    let first = join(store, "b", &["orders", "audit", "orders"]).await;
    assert_eq!(first.generation, 1);
    let topics: Vec<_> = first.members[0].topics.iter().map(|topic| topic.as_str()).collect();
    assert_eq!(topics, ["audit", "orders"], "by name, each once, whether they exist or not");
    let second = join(store, "a", &["orders"]).await;
    assert_eq!((second.generation, names(&second)), (2, vec!["a", "b"]));
    assert_eq!(join(store, "a", &["orders"]).await.generation, 2, "nothing has changed");
    let beat = store.heartbeat_member(&group("g"), &member("b"), HOUR).await.unwrap();
    assert_eq!(beat, view(store).await);
    assert_eq!(join(store, "a", &["orders", "audit"]).await.generation, 3, "other topics");
    store.leave_group(&group("g"), &member("b")).await.unwrap();
    store.leave_group(&group("g"), &member("b")).await.unwrap();
    store.leave_group(&group("never-seen"), &member("b")).await.unwrap();
    let left = view(store).await;
    assert_eq!((left.generation, names(&left)), (4, vec!["a"]));
    let_die(store, "a").await;
    let died = view(store).await;
    assert_eq!((died.generation, names(&died)), (5, vec![]));
    assert_eq!(join(store, "c", &["orders"]).await.generation, 6);
    assert_eq!(store.groups().await.unwrap()[0].partitions, 0, "a group without offsets is listed");
    assert_eq!(store.describe_group(&group("g")).await.unwrap(), []);
}

pub(crate) async fn groups_do_not_share_members(store: &dyn MetadataStore) {
    let error = store.group_view(&group("g")).await.unwrap_err();
    assert!(matches!(&error, MetadataError::GroupNotFound(name) if name == "g"), "{error}");
    create(store, "orders", 1).await.unwrap();
    join(store, "a", &["orders"]).await;
    let heartbeat = store.heartbeat_member(&group("other"), &member("a"), HOUR).await;
    assert_fenced(heartbeat, "it never joined");
    store.join_group(&group("other"), &member("a"), &[topic("orders")], HOUR).await.unwrap();
    for name in ["g", "other"] {
        let claimed = store.claim_partitions(&group(name), &member("a"), &[at("orders", 0)]).await.unwrap();
        assert_eq!(claimed.len(), 1, "each group reads each partition");
    }
    for session in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(86_401)] {
        for error in [
            store.join_group(&group("g"), &member("a"), &[], session).await.unwrap_err(),
            store.heartbeat_member(&group("g"), &member("a"), session).await.unwrap_err(),
        ] {
            assert!(matches!(error, MetadataError::Invalid(_)), "{error}");
        }
    }
}

pub(crate) async fn a_claim_is_exclusive_and_says_where_the_group_stands(store: &dyn MetadataStore) {
    leased(store, "orders", 4, "x").await;
    append(store, "x", &at("orders", 2), 1, 0, 10).await;
    commit_offsets(store, "g", &[(at("orders", 2), 4)]).await.unwrap();
    join(store, "a", &["orders"]).await;
    join(store, "b", &["orders"]).await;
    let wanted = [at("orders", 2), at("orders", 0), at("orders", 9), at("nothing", 0), at("orders", 2)];
    let mut claimed = claim(store, "a", &wanted).await;
    claimed.sort_by_key(|claimed| claimed.offset.partition.clone());
    let rows: Vec<_> = claimed
        .iter()
        .map(|row| {
            (row.offset.partition.partition, row.offset.committed, row.offset.lag_records, row.generation)
        })
        .collect();
    assert_eq!(rows, [(0, None, 0, 2), (2, Some(4), 6, 2)]);

    join(store, "c", &["orders"]).await;
    let all: Vec<_> = (0..4).map(|number| at("orders", number)).collect();
    let others = claim(store, "b", &all).await;
    let got: BTreeSet<_> = others.iter().map(|row| row.offset.partition.partition).collect();
    assert_eq!(got, BTreeSet::from([1, 3]), "what nobody had");
    assert!(others.iter().all(|row| row.generation == 3));
    let mut again: Vec<_> = claim(store, "a", &all).await;
    again.sort_by_key(|row| row.offset.partition.clone());
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|row| row.generation == 2), "a claim keeps its generation: {again:?}");

    let claims = view(store).await.claims;
    let rows: Vec<_> = claims
        .iter()
        .map(|claim| (claim.partition.partition, claim.member.as_str(), claim.generation))
        .collect();
    assert_eq!(rows, [(0, "a", 2), (1, "b", 3), (2, "a", 2), (3, "b", 3)]);
    assert_eq!(claim(store, "a", &[]).await, []);
}

pub(crate) async fn released_claims_are_free_at_once(store: &dyn MetadataStore) {
    create(store, "orders", 2).await.unwrap();
    let all = [at("orders", 0), at("orders", 1)];
    join(store, "a", &["orders"]).await;
    join(store, "b", &["orders"]).await;
    claim(store, "a", &all).await;
    // Not its own, not there, not a member, no group: left as it is.
    store.release_claims(&group("g"), &member("b"), &all).await.unwrap();
    store.release_claims(&group("g"), &member("nobody"), &all).await.unwrap();
    store.release_claims(&group("other"), &member("a"), &all).await.unwrap();
    store.release_claims(&group("g"), &member("a"), &[at("nothing", 0), at("orders", 1)]).await.unwrap();
    let taken = claim(store, "b", &all).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].offset.partition, at("orders", 1));
    assert_fenced(commit(store, Some("a"), &at("orders", 1), 0, 2).await, "it gave the claim away");
    commit(store, Some("b"), &at("orders", 1), 0, 2).await.unwrap();

    store.leave_group(&group("g"), &member("a")).await.unwrap();
    assert_fenced(commit(store, Some("a"), &at("orders", 0), 0, 2).await, "it left");
    assert_eq!(claim(store, "b", &all).await.len(), 2, "who leaves leaves everything");
}

pub(crate) async fn a_dead_members_claims_are_free(store: &dyn MetadataStore) {
    create(store, "orders", 2).await.unwrap();
    let all = [at("orders", 0), at("orders", 1)];
    join(store, "a", &["orders"]).await;
    join(store, "b", &["orders"]).await;
    assert_eq!(claim(store, "a", &all).await.len(), 2);
    assert_eq!(claim(store, "b", &all).await, []);
    let_die(store, "a").await;
    assert_eq!(view(store).await.claims, []);
    assert_fenced(store.heartbeat_member(&group("g"), &member("a"), HOUR).await, "its session is over");
    assert_fenced(store.claim_partitions(&group("g"), &member("a"), &all).await, "its session is over");
    assert_fenced(commit(store, Some("a"), &at("orders", 0), 0, 2).await, "its session is over");
    assert_eq!(claim(store, "b", &all).await.len(), 2);
    // Come back to life, it has nothing of what it had.
    assert_eq!(join(store, "a", &["orders"]).await.generation, 4);
    assert_fenced(commit(store, Some("a"), &at("orders", 0), 0, 2).await, "another has the claim");
    assert_eq!(view(store).await.claims.len(), 2);
}

pub(crate) async fn a_commit_needs_its_claim(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "x").await;
    let (zero, one) = (at("orders", 0), at("orders", 1));
    append(store, "x", &zero, 1, 0, 10).await;
    assert_fenced(commit(store, Some("a"), &zero, 1, 0).await, "there is no group");
    assert_eq!(store.groups().await.unwrap(), []);
    join(store, "a", &["orders"]).await;
    assert_fenced(commit(store, Some("a"), &zero, 1, 1).await, "nothing is claimed");
    claim(store, "a", std::slice::from_ref(&zero)).await;
    commit(store, Some("a"), &zero, 1, 1).await.unwrap();
    join(store, "b", &["orders"]).await;
    commit(store, Some("a"), &zero, 2, 1).await.unwrap();
    for (generation, why) in
        [(0, "an older generation"), (2, "a later one"), (u64::MAX, "one that cannot be")]
    {
        assert_fenced(commit(store, Some("a"), &zero, 3, generation).await, why);
    }
    assert_fenced(commit(store, Some("b"), &zero, 3, 1).await, "another's claim");
    // All or none: the second partition is not claimed.
    let both = [&zero, &one].map(|at| OffsetCommit { partition: at.clone(), offset: 0, generation: 1 });
    let fenced = store.commit_offsets(&group("g"), Some(&member("a")), &both).await;
    assert!(fenced.as_ref().unwrap_err().to_string().contains("orders/1"), "{fenced:?}");
    assert_fenced(fenced, "one of two");
    let error = commit(store, Some("a"), &at("orders", 7), 0, 1).await.unwrap_err();
    assert!(matches!(error, MetadataError::PartitionNotFound { partition: 7, .. }), "{error}");
    let error = commit(store, Some("a"), &zero, 11, 1).await.unwrap_err();
    assert!(matches!(error, MetadataError::Invalid(_)), "{error}");
    let read = store.group_offsets(&group("g"), &[zero, one]).await.unwrap();
    assert_eq!((read[0].committed, read[1].committed), (Some(2), None));

    // Claimed anew, in another generation.
    store.release_claims(&group("g"), &member("a"), &[at("orders", 0)]).await.unwrap();
    assert_eq!(claim(store, "a", &[at("orders", 0)]).await[0].generation, 2);
    assert_fenced(commit(store, Some("a"), &at("orders", 0), 3, 1).await, "the claim before this one");
    commit(store, Some("a"), &at("orders", 0), 3, 2).await.unwrap();
}

pub(crate) async fn nobody_outside_changes_what_a_living_member_reads(store: &dyn MetadataStore) {
    leased(store, "orders", 2, "x").await;
    append(store, "x", &at("orders", 0), 1, 0, 10).await;
    join(store, "a", &["orders"]).await;
    claim(store, "a", &[at("orders", 0)]).await;
    let error = commit(store, None, &at("orders", 0), 5, 0).await.unwrap_err();
    let MetadataError::Claimed { group: of, partition, member } = &error else { panic!("{error}") };
    assert_eq!((of.as_str(), partition.as_str(), member.as_str()), ("g", "orders/0", "a"));
    commit(store, None, &at("orders", 1), 0, 0).await.unwrap();
    commit_offsets(store, "other", &[(at("orders", 0), 5)]).await.unwrap();
    let_die(store, "a").await;
    commit(store, None, &at("orders", 0), 5, 0).await.unwrap();
}

pub(crate) async fn members_that_race_claim_without_overlap(store: &dyn MetadataStore) {
    create(store, "orders", 30).await.unwrap();
    let all: Vec<_> = (0..30).map(|number| at("orders", number)).collect();
    let turned: Vec<_> = all.iter().rev().cloned().collect();
    let (group, topics) = (group("g"), [topic("orders")]);
    let (a, b, c) = (member("a"), member("b"), member("c"));
    let joins = tokio::join!(
        store.join_group(&group, &a, &topics, HOUR),
        store.join_group(&group, &b, &topics, HOUR),
        store.join_group(&group, &c, &topics, HOUR),
    );
    let mut generations = [joins.0, joins.1, joins.2].map(|view| view.unwrap().generation);
    generations.sort_unstable();
    assert_eq!(generations, [1, 2, 3], "each has raised the generation");
    let (a, b, c) = tokio::join!(
        store.claim_partitions(&group, &a, &all),
        store.claim_partitions(&group, &b, &turned),
        store.claim_partitions(&group, &c, &all[10..20]),
    );
    let claimed: Vec<_> =
        [a, b, c].into_iter().flat_map(Result::unwrap).map(|row| row.offset.partition).collect();
    assert_eq!(claimed.len(), 30);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 30, "no partition has two readers");
    assert_eq!(view(store).await.claims.len(), 30);
}
