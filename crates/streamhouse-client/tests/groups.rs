//! Members of a group: who reads what while others come, go and die.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::{sync::Arc, time::Duration};
use streamhouse_client::{ClientError, Compression, ConsumedRecord, Consumer, ConsumerBuilder};
use streamhouse_core::{ErrorKind, GroupId, TopicPartition};
use streamhouse_metadata::{Members, SqliteMetadataStore};
use support::{Log, read};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// So long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member that never dies of a slow machine, and notices soon who comes and goes.
fn member(log: &Log, name: &str, topics: &[&str]) -> ConsumerBuilder {
    log.consumer("g", topics)
        .client_id(name)
        .session_timeout(Duration::from_secs(120))
        .heartbeat_interval(Duration::from_millis(50))
}

fn held(consumer: &Consumer) -> BTreeSet<TopicPartition> {
    consumer.partitions().cloned().collect()
}

fn counts(members: &[Consumer]) -> Vec<usize> {
    members.iter().map(|member| member.partitions().len()).collect()
}

/// Polls all in turns until they hold so many partitions each.
async fn share(members: &mut [Consumer], shares: &[usize]) {
    let start = Instant::now();
    while counts(members) != shares {
        for member in members.iter_mut() {
            member.poll(Duration::ZERO).await.unwrap();
            member.commit().await.unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "{:?} became no {shares:?}", counts(members));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn members_of(log: &Log) -> usize {
    log.store.group_view(&GroupId::new("g").unwrap()).await.unwrap().members.len()
}

async fn wait_for_members(log: &Log, members: usize) {
    let start = Instant::now();
    while members_of(log).await != members {
        assert!(start.elapsed() < PATIENCE, "the group does not come to {members} members");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A process: what runs in it goes on, whatever its main thread does.
fn running_process() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A process of which all stands still whenever nothing is driven, as after SIGSTOP.
fn stopping_process() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// With a store of its own, as another process has.
async fn elsewhere(log: &Log, builder: ConsumerBuilder) -> ConsumerBuilder {
    let store = SqliteMetadataStore::new(log.directory.path().join("metadata.db")).await.unwrap();
    builder.metadata_store(Arc::new(store))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[tokio::test]
async fn who_joins_or_leaves_moves_only_what_must_move() {
    let log = Log::without_agent(&[("orders", 12)]).await;
    let mut members = Vec::new();
    for (name, shares) in [("a", &[12][..]), ("b", &[6, 6]), ("c", &[4, 4, 4])] {
        members.push(member(&log, name, &["orders"]).build().await.unwrap());
        share(&mut members, shares).await;
    }
    let before: Vec<_> = members.iter().map(held).collect();

    members.push(member(&log, "d", &["orders"]).build().await.unwrap());
    share(&mut members, &[3, 3, 3, 3]).await;
    let between: Vec<_> = members.iter().map(held).collect();
    for (before, between) in before.iter().zip(&between) {
        assert!(between.is_subset(before), "{between:?} came from nobody but {before:?}");
    }

    members.pop().unwrap().close().await.unwrap();
    share(&mut members, &[4, 4, 4]).await;
    for (between, after) in between.iter().zip(members.iter().map(held)) {
        assert!(between.is_subset(&after), "{between:?} stay in {after:?}");
    }
}

#[test]
fn a_dead_member_is_replaced_and_comes_back_fenced() {
    let (world, frozen) = (running_process(), stopping_process());
    let log = world.block_on(Log::without_agent(&[("orders", 4)]));
    for partition in 0..4 {
        world.block_on(log.write("orders", partition, &[10], Compression::None));
    }
    for commits_first in [true, false] {
        let group = if commits_first { "one" } else { "two" };
        let mortal = log.consumer(group, &["orders"]).client_id("zombie").max_poll_records(7);
        let mut zombie = frozen.block_on(async {
            let mortal = mortal.session_timeout(Duration::from_secs(4));
            elsewhere(&log, mortal).await.build().await.unwrap()
        });
        assert_eq!(zombie.partitions().len(), 4);
        assert_eq!(frozen.block_on(zombie.poll(Duration::ZERO)).unwrap().len(), 7);

        let survivor = log.consumer(group, &["orders"]).client_id("survivor");
        let survivor = survivor.heartbeat_interval(Duration::from_millis(50));
        let mut survivor = world.block_on(survivor.session_timeout(PATIENCE).build()).unwrap();
        assert_eq!(survivor.partitions().len(), 0, "the other is not dead yet");
        let records = world.block_on(read(&mut survivor, 40));
        assert_eq!(records.len(), 40, "all of them, since the dead one committed none");
        world.block_on(survivor.commit()).unwrap();

        let fenced = if commits_first {
            frozen.block_on(zombie.commit()).unwrap_err()
        } else {
            // It finds out by itself, and returns nothing of what it had claimed.
            let records = frozen.block_on(zombie.poll(Duration::from_millis(300))).unwrap();
            assert!(records.is_empty(), "{records:?}");
            frozen.block_on(zombie.commit()).unwrap_err()
        };
        assert_eq!(fenced.kind(), ErrorKind::Fenced, "{fenced}");
        for says in ["orders/", "was not committed", "read again", group] {
            assert!(fenced.to_string().contains(says), "{fenced}");
        }
        frozen.block_on(zombie.commit()).expect("it is told once");

        // It joins again, and finds all committed that it gets.
        let start = std::time::Instant::now();
        let nothing = |polled: Result<Vec<ConsumedRecord>, ClientError>| match polled {
            Ok(records) => assert!(records.is_empty(), "{records:?}"),
            // Its connections stand still with it, where they hold a lock too, and may have to be made anew.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
        };
        while (zombie.partitions().len(), survivor.partitions().len()) != (2, 2) {
            assert!(start.elapsed() < PATIENCE, "they do not share");
            nothing(frozen.block_on(zombie.poll(Duration::from_millis(10))));
            nothing(world.block_on(survivor.poll(Duration::from_millis(10))));
        }
        frozen.block_on(zombie.close()).unwrap();
        world.block_on(survivor.close()).unwrap();
    }
}

#[tokio::test]
async fn a_member_that_is_dropped_leaves() {
    let log = Log::without_agent(&[("orders", 2)]).await;
    let consumer = member(&log, "a", &["orders"]).build().await.unwrap();
    assert_eq!(members_of(&log).await, 1);
    drop(consumer);
    wait_for_members(&log, 0).await;
}

#[tokio::test]
async fn a_member_that_is_not_polled_leaves_and_the_next_poll_joins_again() {
    let log = Log::without_agent(&[("orders", 2)]).await;
    log.write("orders", 0, &[10], Compression::None).await;
    let idle = member(&log, "a", &["orders"]).session_timeout(Duration::from_secs(4));
    let idle = idle.max_poll_interval(Duration::from_secs(4)).max_poll_records(4);
    let mut consumer = idle.build().await.unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).await.unwrap().len(), 4);
    wait_for_members(&log, 0).await;
    assert_eq!(consumer.commit().await.unwrap_err().kind(), ErrorKind::Fenced);
    let records = consumer.poll(PATIENCE).await.unwrap();
    assert_eq!(records[0].offset, 0, "nothing was committed");
    consumer.commit().await.unwrap();
}

#[tokio::test]
async fn topics_are_shared_by_those_who_read_them() {
    let log = Log::without_agent(&[("a", 4), ("b", 3)]).await;
    let mut members = Vec::new();
    members.push(member(&log, "both", &["a", "b"]).build().await.unwrap());
    members.push(member(&log, "one", &["a"]).build().await.unwrap());
    share(&mut members, &[5, 2]).await;
    let of = |topic: &str, member: &Consumer| {
        member.partitions().filter(|partition| partition.topic.as_str() == topic).count()
    };
    assert_eq!((of("a", &members[0]), of("b", &members[0]), of("a", &members[1])), (2, 3, 2));

    // Who does not read a partition says who does.
    let others = held(&members[0]);
    let other = others.iter().find(|partition| partition.topic.as_str() == "a").unwrap();
    let error = members[1].position("a", other.partition).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&other.to_string()) && error.to_string().contains("both-"), "{error}");
    assert!(members[1].position("b", 0).unwrap_err().to_string().contains("topics"));
}

#[tokio::test]
async fn members_without_a_partition_wait_and_take_over() {
    let log = Log::without_agent(&[("orders", 1)]).await;
    let mut first = member(&log, "a", &["orders"]).build().await.unwrap();
    let mut second = member(&log, "b", &["orders"]).build().await.unwrap();
    let mut third = member(&log, "c", &["orders"]).build().await.unwrap();
    for idle in [&mut second, &mut third] {
        assert!(idle.poll(Duration::from_millis(30)).await.unwrap().is_empty());
        assert_eq!(idle.partitions().len(), 0);
        idle.commit().await.unwrap();
    }
    log.write("orders", 0, &[5], Compression::None).await;
    assert_eq!(read(&mut first, 5).await.len(), 5);
    first.commit().await.unwrap();
    log.write("orders", 0, &[3], Compression::None).await;
    let (closed, records) = tokio::join!(first.close(), async {
        tokio::select! {
            records = read(&mut second, 3) => records,
            records = read(&mut third, 3) => records,
        }
    });
    closed.unwrap();
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [5, 6, 7]);
}

#[tokio::test]
async fn what_is_handed_over_waits_for_a_commit() {
    let log = Log::without_agent(&[("orders", 2)]).await;
    for partition in [0, 1] {
        log.write("orders", partition, &[10], Compression::None).await;
    }
    let mut old = member(&log, "old", &["orders"]).build().await.unwrap();
    assert_eq!(read(&mut old, 20).await.len(), 20);
    let mut new = member(&log, "new", &["orders"]).build().await.unwrap();
    // The poll ends early, so that there can be a commit.
    let before = Instant::now();
    assert!(old.poll(PATIENCE).await.unwrap().is_empty());
    assert!(before.elapsed() < PATIENCE);
    let leaving: Vec<_> = old.handing_over().cloned().collect();
    assert_eq!((leaving.len(), old.partitions().len()), (1, 2));
    assert!(new.poll(Duration::from_millis(200)).await.unwrap().is_empty());
    assert_eq!(new.partitions().len(), 0, "it is waited for the commit");
    log.write("orders", leaving[0].partition, &[5], Compression::None).await;
    assert!(old.poll(Duration::from_millis(50)).await.unwrap().is_empty(), "nothing more is read of it");
    old.commit().await.unwrap();
    old.poll(Duration::ZERO).await.unwrap();
    assert_eq!(old.handing_over().count(), 0);
    let records = read(&mut new, 5).await;
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
}

#[tokio::test]
async fn what_nobody_commits_is_handed_over_after_the_session_timeout_and_told() {
    let log = Log::without_agent(&[("orders", 2)]).await;
    for partition in [0, 1] {
        log.write("orders", partition, &[10], Compression::None).await;
    }
    let mut old =
        member(&log, "old", &["orders"]).session_timeout(Duration::from_secs(2)).build().await.unwrap();
    assert_eq!(read(&mut old, 20).await.len(), 20);
    let mut new = member(&log, "new", &["orders"]).build().await.unwrap();
    let start = Instant::now();
    let mut records = Vec::new();
    while records.is_empty() {
        assert!(start.elapsed() < PATIENCE);
        old.poll(Duration::ZERO).await.unwrap();
        records = new.poll(Duration::from_millis(20)).await.unwrap();
    }
    assert_eq!(records[0].offset, 0, "it is read again");
    let told = old.commit().await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Fenced);
    assert!(told.to_string().contains(&format!("orders/{}", records[0].partition)), "{told}");
}

#[tokio::test]
async fn a_standalone_consumer_reads_all_and_commits_nothing_that_is_claimed() {
    let log = Log::without_agent(&[("orders", 2)]).await;
    for partition in [0, 1] {
        log.write("orders", partition, &[10], Compression::None).await;
    }
    let member = member(&log, "a", &["orders"]).build().await.unwrap();
    let mut all = log.consumer("g", &["orders"]).standalone(true).build().await.unwrap();
    assert_eq!(all.partitions().len(), 2);
    assert_eq!(read(&mut all, 20).await.len(), 20);
    assert_eq!(members_of(&log).await, 1);
    let refused = all.commit().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    member.close().await.unwrap();
    all.commit().await.unwrap();
    assert_eq!(all.lag("orders", 0).await.unwrap(), 0);
}

#[tokio::test]
async fn settings_of_members_that_cannot_work_are_refused() {
    let log = Log::without_agent(&[("orders", 1)]).await;
    let second = Duration::from_secs(1);
    for (builder, says) in [
        (log.consumer("g", &["orders"]).session_timeout(Duration::ZERO), "session_timeout"),
        (log.consumer("g", &["orders"]).session_timeout(second * 100_000), "session_timeout"),
        (log.consumer("g", &["orders"]).heartbeat_interval(second * 4), "heartbeat_interval"),
        (log.consumer("g", &["orders"]).heartbeat_interval(Duration::ZERO), "heartbeat_interval"),
        (log.consumer("g", &["orders"]).max_poll_interval(second), "max_poll_interval"),
    ] {
        let error = builder.build().await.err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// A group under load whose members come and go as the seed says.
struct World {
    log: Log,
    random: Random,
    members: Vec<Consumer>,
    written: BTreeMap<u32, u64>,
    /// One past the last record that was seen, by partition.
    seen: BTreeMap<u32, u64>,
    /// Records that came again.
    again: u64,
}

const PARTITIONS: u32 = 6;

impl World {
    async fn new(seed: u64) -> World {
        let log = Log::without_agent(&[("orders", PARTITIONS)]).await;
        let (written, seen) = (BTreeMap::new(), BTreeMap::new());
        World { log, random: Random(seed), members: Vec::new(), written, seen, again: 0 }
    }

    /// One step. A careless member is dropped instead of closed, and commits now and then.
    async fn step(&mut self, careless: bool) {
        match self.random.below(10) {
            0 if self.members.len() < 5 => {
                let name = format!("m{}", self.random.below(1000));
                let builder = member(&self.log, &name, &["orders"]).max_poll_records(7);
                self.members.push(builder.build().await.unwrap());
            }
            1 if !self.members.is_empty() => {
                let index = self.random.below(self.members.len() as u64) as usize;
                let gone = self.members.swap_remove(index);
                if !careless {
                    gone.close().await.unwrap();
                }
            }
            2..5 => {
                let partition = self.random.below(PARTITIONS.into()) as u32;
                let records = 1 + self.random.below(20);
                self.log.write("orders", partition, &[records as usize], Compression::None).await;
                *self.written.entry(partition).or_default() += records;
            }
            _ => self.poll(careless).await,
        }
    }

    async fn poll(&mut self, careless: bool) {
        for index in 0..self.members.len() {
            let commits = !careless || self.random.below(3) == 0;
            let member = &mut self.members[index];
            for record in member.poll(Duration::from_millis(2)).await.unwrap() {
                let next = self.seen.entry(record.partition).or_default();
                assert!(
                    record.offset <= *next,
                    "orders/{} skips {next} to {}",
                    record.partition,
                    record.offset
                );
                if record.offset < *next {
                    self.again += 1;
                } else {
                    *next += 1;
                }
            }
            if commits {
                member.commit().await.unwrap();
            }
        }
    }

    async fn finish(&mut self) {
        if self.members.is_empty() {
            self.members.push(member(&self.log, "last", &["orders"]).build().await.unwrap());
        }
        let start = Instant::now();
        while self.seen != self.written {
            assert!(start.elapsed() < PATIENCE, "{:?} of {:?}", self.seen, self.written);
            self.poll(false).await;
        }
    }
}

#[tokio::test]
async fn with_commits_before_the_hand_over_every_record_comes_once_and_in_order() {
    for seed in 1..5 {
        let mut world = World::new(seed).await;
        for _ in 0..120 {
            world.step(false).await;
        }
        world.finish().await;
        assert_eq!(world.again, 0, "seed {seed}");
    }
}

#[tokio::test]
async fn whoever_vanishes_no_record_is_skipped() {
    let mut again = 0;
    for seed in 1..5 {
        let mut world = World::new(seed).await;
        for _ in 0..120 {
            world.step(true).await;
        }
        world.finish().await;
        again += world.again;
    }
    assert!(again > 0, "no member was careless");
}
