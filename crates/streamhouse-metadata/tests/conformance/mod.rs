//! What every metadata store must do, whatever database is below it.
//!
//! A backend's test file names a function that opens an empty store, and gets one test for each of these:
//! `conformance!(open)`. No test depends on how fast it runs: a lease that must hold is granted for an hour, and one that
//! must be over is renewed for a millisecond and watched until it is.

pub(crate) mod agents;
pub(crate) mod groups;
pub(crate) mod leases;
pub(crate) mod members;
pub(crate) mod model;
pub(crate) mod segments;
pub(crate) mod topics;
pub(crate) mod upkeep;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicName, TopicPartition};
use streamhouse_metadata::{
    Flush, FlushRange, Lease, MetadataStore, OffsetCommit, RangeOutcome, Result, Retention, Topic,
};

/// A term that no test outlives.
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

pub(crate) const COMMITTED: RangeOutcome = RangeOutcome::Committed;
pub(crate) const FENCED: RangeOutcome = RangeOutcome::Fenced;

pub(crate) fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

pub(crate) fn at(name: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic(name), partition }
}

pub(crate) fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

pub(crate) fn group(name: &str) -> GroupId {
    name.parse().unwrap()
}

/// Creates the topic, registers the agent and grants it everything that is free.
pub(crate) async fn leased(
    store: &dyn MetadataStore,
    name: &str,
    partitions: u32,
    holder: &str,
) -> Vec<Lease> {
    create(store, name, partitions).await.unwrap();
    acquire(store, holder).await
}

/// Registers the agent and grants it everything that is free.
pub(crate) async fn acquire(store: &dyn MetadataStore, holder: &str) -> Vec<Lease> {
    store.register_agent(&agent(holder), "127.0.0.1:50051").await.unwrap();
    store.acquire_leases(&agent(holder), HOUR, &every_partition(store).await).await.unwrap()
}

/// Creates a topic whose records are kept for ever.
pub(crate) async fn create(store: &dyn MetadataStore, name: &str, partitions: u32) -> Result<Topic> {
    store.create_topic(&topic(name), partitions, Retention::default()).await
}

/// Every partition of every topic.
pub(crate) async fn every_partition(store: &dyn MetadataStore) -> Vec<TopicPartition> {
    store.lease_table().await.unwrap().into_iter().map(|row| row.partition).collect()
}

/// Commits a group's offsets from outside of the group.
pub(crate) async fn commit_offsets(
    store: &dyn MetadataStore,
    name: &str,
    offsets: &[(TopicPartition, u64)],
) -> Result<()> {
    let commit = |(partition, offset): &(TopicPartition, u64)| OffsetCommit {
        partition: partition.clone(),
        offset: *offset,
        generation: 0,
    };
    let offsets: Vec<_> = offsets.iter().map(commit).collect();
    store.commit_offsets(&group(name), None, &offsets).await
}

pub(crate) async fn exists(store: &dyn MetadataStore, segment: SegmentId) -> bool {
    !store.committed_segments(&[segment]).await.unwrap().is_empty()
}

/// Lets one lease run out by the database's clock.
pub(crate) async fn expire(store: &dyn MetadataStore, holder: &str, at: &TopicPartition, epoch: u64) {
    let lease = [(at.clone(), epoch)];
    let renewed = store.renew_leases(&agent(holder), &lease, Duration::from_millis(1)).await.unwrap();
    assert_eq!(renewed, std::slice::from_ref(at), "only a lease that holds can be made to run out");
    while store.partitions(&at.topic).await.unwrap()[at.partition as usize].holder.is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A range of a flush: partition, epoch, base offset, records.
pub(crate) fn range(at: &TopicPartition, epoch: u64, base_offset: u64, records: u64) -> FlushRange {
    FlushRange {
        partition: at.clone(),
        epoch,
        base_offset,
        records,
        position: base_offset * 10,
        bytes: records * 10,
        index_position: 1_000_000 + base_offset,
        index_bytes: 44,
        producers: Vec::new(),
    }
}

/// A flush with a segment id that no other flush of this process has.
pub(crate) fn flush(holder: &str, ranges: Vec<FlushRange>) -> Flush {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let segment = SegmentId(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 64 | 7);
    let object = format!("segments/{segment}");
    Flush { segment, object, object_bytes: 4096, agent: agent(holder), ranges }
}

/// Commits `records` to one partition; the caller knows that it must succeed.
pub(crate) async fn append(
    store: &dyn MetadataStore,
    holder: &str,
    at: &TopicPartition,
    epoch: u64,
    base_offset: u64,
    records: u64,
) -> Flush {
    let flush = flush(holder, vec![range(at, epoch, base_offset, records)]);
    assert_eq!(store.commit_flush(&flush).await.unwrap(), [COMMITTED]);
    flush
}

pub(crate) async fn high_watermark(store: &dyn MetadataStore, at: &TopicPartition) -> u64 {
    store.watermarks(std::slice::from_ref(at)).await.unwrap()[0].high_watermark
}

/// One test for each conformance function, on a store of its own. A function that is not named here is dead code, which
/// the lints refuse.
macro_rules! conformance {
    ($open:ident) => {
        conformance!($open;
            topics: created_topics_are_listed_by_name, a_topic_is_created_once,
                a_deleted_topic_leaves_nothing_to_one_of_its_name, what_a_deleted_topic_leaves_is_nobody_elses,
                epochs_rise_from_topic_to_topic_of_a_name, members_of_a_deleted_topic_lose_it_and_nothing_else,
                partition_counts_are_bounded,
                unknown_topics_and_partitions_are_not_found, partitions_say_who_holds_them,
                watermarks_come_in_the_order_asked;
            agents: registering_again_changes_the_address, a_heartbeat_needs_a_registration,
                a_forgotten_agent_leaves_its_leases, producer_ids_are_never_given_twice;
            leases: a_grant_is_bounded_and_exclusive, every_grant_raises_the_epoch,
                a_lease_needs_a_registered_agent_and_a_sane_term, only_a_lease_that_holds_is_renewed,
                released_leases_are_free_at_once, leases_are_released_one_by_one, the_lease_table_says_it_all, all_leases_expire_at_once,
                a_grant_says_where_the_partition_stands, agents_that_race_share_without_overlap;
            segments: commits_are_dense_and_readable, what_does_not_hold_the_lease_is_fenced,
                a_fenced_partition_leaves_the_others_standing, a_wholly_fenced_flush_is_known,
                a_commit_is_repeated_without_effect, an_outcome_is_known_by_the_segment,
                ranges_begin_at_the_one_that_holds_the_offset, ranges_of_unknown_partitions_are_not_found,
                producers_are_kept_where_the_range_stands, impossible_flushes_are_refused,
                one_flush_holds_many_partitions, of_two_commits_at_one_offset_one_stands,
                an_abandoned_commit_is_over_when_its_outcome_is_told;
            groups: committed_offsets_are_read_back, offsets_are_committed_all_or_none,
                unknown_groups_and_partitions_are_not_found, lag_counts_from_the_committed_offset,
                lag_in_time_is_the_age_of_the_first_uncommitted_record,
                groups_are_listed_and_described, groups_without_members_can_be_deleted;
            members: every_change_of_the_members_raises_the_generation, groups_do_not_share_members,
                a_claim_is_exclusive_and_says_where_the_group_stands, released_claims_are_free_at_once,
                a_dead_members_claims_are_free, a_commit_needs_its_claim,
                nobody_outside_changes_what_a_living_member_reads, members_that_race_claim_without_overlap;
            upkeep: retention_is_said_and_changed, old_ranges_go_whole, what_is_over_the_size_goes_oldest_first,
                many_ranges_go_at_once, a_segment_is_dead_when_no_range_is_left, a_duty_is_one_agents,
                every_groups_lag_is_told;
        );

        #[test]
        fn random_histories_keep_the_invariants() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            conformance::model::run_histories(|steps| {
                runtime.block_on(async {
                    let fixture = $open().await;
                    conformance::model::check(fixture.store(), steps).await;
                });
            });
        }
    };
    ($open:ident; $($module:ident: $($test:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $test() {
                let fixture = super::$open().await;
                super::conformance::$module::$test(fixture.store()).await;
            })+
        })+
    };
}
pub(crate) use conformance;
