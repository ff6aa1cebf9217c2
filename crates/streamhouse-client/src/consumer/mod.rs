//! The consumer: records out, in order, from where the group left off.

mod builder;
mod cursor;
mod keeper;
mod membership;
mod offsets;
mod rebalance;
mod seen;
mod told;

pub use builder::{ConsumerBuilder, OffsetReset};

use crate::admin::OffsetTarget;
use crate::error::{ClientError, Result};
use bytes::Bytes;
use cursor::{Cursor, Share, Source};
use keeper::{Deed, Place};
use membership::Membership;
use rebalance::Lost;
use std::collections::BTreeSet;
use std::{sync::Arc, time::Duration};
use streamhouse_core::{
    Clock, ErrorKind, GroupId, Header, Partition, SystemClock, TopicName, TopicPartition,
};
use streamhouse_metadata::ClientStore;
use tokio::time::Instant;

/// Most bytes of records one poll returns; one more record may come on top.
const POLL_BYTES_MAX: usize = 16 << 20;
/// Records that a partition gives at least before it is the next one's turn, so that many partitions do not make a poll
/// visit each for a handful.
const TURN_RECORDS_MIN: usize = 100;
/// First pause of an idle poll between two looks at the metadata store. It doubles up to [`IDLE_PAUSE_MAX`].
const IDLE_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause of an idle poll: how late a record may be seen.
const IDLE_PAUSE_MAX: Duration = Duration::from_millis(50);
/// How old the watermarks may get while some partitions are read to their end and others keep the consumer busy.
const WATERMARKS_AGE_MAX: Duration = Duration::from_millis(100);
/// How often it is looked whether topics are there that nobody claims.
const TOPICS_AGE_MAX: Duration = Duration::from_secs(1);
/// How often the lag is published while a consumer polls: one query for all its partitions. Much less often it would say
/// only how things stood right after a commit.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Reads topics for a group.
///
/// Consumers of one group share the partitions of their topics: each is a member of the group and claims its fair share,
/// in the metadata store. When one comes, goes or dies, only the partitions move that must: it takes a heartbeat interval
/// until the others notice, and a poll of theirs until they act. Within a partition records come in order and each once;
/// whoever reads a partition next goes on from the last committed offset, so what was polled and not committed comes
/// again.
///
/// A task in the background says that the consumer lives, also while its records are being processed; it needs the
/// runtime's attention, so do not block a single-threaded runtime for long. A consumer that was not heard of for the session
/// timeout has lost its claims: its commits are refused, and its next poll joins again. What it had read under a lost claim
/// is not returned once that is known.
///
/// Dropping a consumer commits nothing and leaves the group as soon as the runtime comes to it; [`close`](Self::close)
/// waits for that.
///
/// All calls are cancel safe: what a cancelled poll had read comes with the next.
pub struct Consumer {
    store: Arc<dyn ClientStore>,
    group: GroupId,
    /// `None` for a consumer that reads all partitions, whoever else reads them.
    membership: Option<Membership>,
    source: Source,
    /// By topic and number.
    cursors: Vec<Cursor>,
    /// Whose turn it is.
    next: usize,
    max_poll_records: usize,
    /// Read and not returned yet: more than nothing only while a poll is under way, or after it was cancelled.
    records: Vec<ConsumedRecord>,
    /// What a partition met after another had given records; the next poll returns it.
    error: Option<(TopicPartition, ClientError)>,
    /// What the next commit has to tell.
    lost: Lost,
    watermarks_seen: Instant,
    /// When the lag is to be published next.
    progress_due: Instant,
    /// When it was last looked whether topics are there.
    topics_seen: Instant,
    auto_commit: Option<Duration>,
    committed_at: Instant,
}

/// A record and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: Partition,
    /// Its offset in the partition.
    pub offset: u64,
    /// Milliseconds since 1970-01-01 UTC, as the producer stated it.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value: a slice of what was read (up to 1 MiB); copy it to keep it for long.
    pub value: Bytes,
    /// Headers, in order.
    pub headers: Vec<Header>,
}

impl Consumer {
    /// A consumer to be configured.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::default()
    }

    fn new(
        store: Arc<dyn ClientStore>,
        group: GroupId,
        source: Source,
        max_poll_records: usize,
        auto_commit: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        Consumer {
            store,
            group,
            membership: None,
            source,
            cursors: Vec::new(),
            next: 0,
            max_poll_records,
            records: Vec::new(),
            error: None,
            lost: Lost::default(),
            watermarks_seen: now,
            progress_due: now + PROGRESS_EVERY,
            topics_seen: now,
            auto_commit,
            committed_at: now,
        }
    }

    /// The next records: as soon as there are any, at most `max_poll_records`, partition after partition in turns. Empty
    /// when none came within `timeout`, which bounds the wait for records and not the reading of those that are there; a
    /// timeout of zero looks once. A consumer that has nothing to read, because other members have claimed all, waits too.
    ///
    /// Claims change only in here. Also empty, once and before the timeout, when a partition is to be handed over and
    /// waits for what was returned of it to be committed ([`handing_over`](Self::handing_over)).
    ///
    /// # Errors
    ///
    /// Positions are as before, so poll again to retry, or [`seek`](Self::seek) past what cannot be read. `Corrupt`: a
    /// segment failed its checks, or a producer wrote what nobody can decode; the error names object and offset, and the
    /// first offset behind it. Other partitions are read on with the next poll.
    /// `NotFound`: a topic was deleted; the others are read on with the next poll.
    /// `Unavailable` and `Retry`: the object store or the metadata store did not answer as it should. Never `Fenced`: a
    /// consumer that has lost its place in the group joins again.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumedRecord>> {
        let start = Instant::now();
        if let Some((_, error)) = self.error.take() {
            return Err(error);
        }
        self.auto_commit(start).await?;
        let mut pause = IDLE_PAUSE;
        loop {
            let looked = self.look().await;
            let may_return = self.holds();
            if may_return && !self.records.is_empty() {
                return Ok(self.hand_over());
            }
            if may_return && let Some((_, error)) = self.error.take() {
                return Err(error);
            }
            let elapsed = start.elapsed();
            if elapsed >= timeout || self.cursors.iter_mut().any(Cursor::asks_for_commit) {
                return looked.map(|()| Vec::new());
            }
            match looked {
                Err(error) if error.kind() != ErrorKind::Retry => return Err(error),
                _ => self.pause(pause.min(timeout - elapsed)).await,
            }
            pause = IDLE_PAUSE_MAX.min(pause * 2);
        }
    }

    /// Looks once for what there is to read, and reads it.
    async fn look(&mut self) -> Result<()> {
        if !self.take_part().await? {
            return self.trouble();
        }
        self.look_for_topics().await?;
        self.refresh_progress().await;
        let exhausted = self.cursors.iter().any(|cursor| !cursor.has_more());
        let mut looked = Ok(());
        if exhausted && self.watermarks_seen.elapsed() >= WATERMARKS_AGE_MAX {
            looked = self.look_for_more().await;
        }
        self.fetch().await;
        if self.records.is_empty() && self.error.is_none() {
            looked = self.look_for_more().await;
            self.fetch().await;
        }
        looked
    }

    /// Waits a little, and less when something happens in the group.
    async fn pause(&mut self, pause: Duration) {
        let pause = tokio::time::sleep(pause);
        match &mut self.membership {
            Some(membership) => tokio::select! {
                () = pause => {}
                () = membership.changed() => {}
            },
            None => pause.await,
        }
    }

    /// Reads what is known to be there into `records`, each partition in its turn.
    async fn fetch(&mut self) {
        let first = self.next;
        let count = self.cursors.len();
        let mut ready = self.cursors.iter().filter(|cursor| cursor.has_more()).count();
        let mut bytes = POLL_BYTES_MAX;
        for turn in 0..count {
            let room = self.max_poll_records.saturating_sub(self.records.len());
            if ready == 0 || room == 0 || bytes == 0 {
                return;
            }
            let index = (first + turn) % count;
            let cursor = &mut self.cursors[index];
            if !cursor.has_more() {
                continue;
            }
            self.next = (index + 1) % count;
            let records = room.div_ceil(ready).max(TURN_RECORDS_MIN).min(room);
            ready -= 1;
            match cursor.read(&*self.store, Share { records, bytes }, &mut self.records).await {
                Ok(taken) => bytes = bytes.saturating_sub(taken.bytes),
                Err(error) => {
                    let partition = cursor.partition.clone();
                    let deleted = self.lose_deleted(&error).await;
                    self.error = Some(deleted.unwrap_or((partition, error)));
                    return;
                }
            }
        }
    }

    /// Asks how far every partition goes: one query.
    async fn look_for_more(&mut self) -> Result<()> {
        if self.cursors.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = self.cursors.iter().map(|cursor| cursor.partition.clone()).collect();
        let watermarks = match self.store.watermarks(&partitions).await {
            Ok(watermarks) => watermarks,
            Err(error) => {
                let error = error.into();
                // Kept for the poll, whatever the others give meanwhile.
                self.error = Some(self.lose_deleted(&error).await.ok_or(error)?);
                return Ok(());
            }
        };
        self.watermarks_seen = Instant::now();
        for (cursor, watermarks) in self.cursors.iter_mut().zip(watermarks) {
            cursor.watermarks(watermarks);
        }
        Ok(())
    }

    /// When partitions stay unclaimed that belong to this member, sees now and then whether their topics are there at all.
    async fn look_for_topics(&mut self) -> Result<()> {
        let Some(membership) = &self.membership else { return Ok(()) };
        let Place::In(seen) = membership.place() else { return Ok(()) };
        let topics: BTreeSet<_> = seen.to_claim().map(|partition| partition.topic.clone()).collect();
        if topics.is_empty() || self.topics_seen.elapsed() < TOPICS_AGE_MAX {
            return Ok(());
        }
        self.topics_seen = Instant::now();
        for topic in topics {
            if let Err(error) = self.store.topic(&topic).await
                && error.kind() == ErrorKind::NotFound
            {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// When a call met that a topic is gone, or has fewer partitions since it was created anew, drops what is read of it and
    /// the gauges that speak of it: the other topics are read and committed without it. Gives what is to be told of it.
    /// Of several one at a time; the next call meets the next.
    async fn lose_deleted(&mut self, met: &ClientError) -> Option<(TopicPartition, ClientError)> {
        if !matches!(met, ClientError::Metadata(_)) || met.kind() != ErrorKind::NotFound {
            return None;
        }
        let topics: BTreeSet<_> = self.cursors.iter().map(|cursor| cursor.partition.topic.clone()).collect();
        for name in topics {
            let (partitions, error) = match self.store.topic(&name).await {
                Ok(topic) => (topic.partitions, met.clone()),
                Err(error) if error.kind() == ErrorKind::NotFound => (0, error.into()),
                Err(_) => continue,
            };
            let is_gone = |TopicPartition { topic, partition }: &TopicPartition| {
                *topic == name && *partition >= partitions
            };
            let first = self.cursors.iter().map(|cursor| &cursor.partition).find(|at| is_gone(at)).cloned();
            if let Some(first) = first {
                self.lose("it was deleted", |cursor| is_gone(&cursor.partition));
                return Some((first, error));
            }
        }
        None
    }

    fn hand_over(&mut self) -> Vec<ConsumedRecord> {
        let now_ns = SystemClock.monotonic_ns();
        for cursor in &mut self.cursors {
            cursor.hand_over(now_ns);
        }
        let room = self.records.len();
        std::mem::replace(&mut self.records, Vec::with_capacity(room))
    }

    /// Moves to `offset`: the next poll reads from there.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not claimed here, `Invalid` for an offset below the log start or above the high
    /// watermark. The position is as before then.
    pub async fn seek(&mut self, topic: &str, partition: Partition, offset: u64) -> Result<()> {
        let index = self.index(topic, partition)?;
        let partition = self.cursors[index].partition.clone();
        let watermarks = self.store.watermarks(std::slice::from_ref(&partition)).await?;
        let Some(watermarks) = watermarks.first() else {
            return Err(ClientError::NotSubscribed(partition.to_string()));
        };
        OffsetTarget::Offset(offset).on(&partition, *watermarks)?;
        self.records
            .retain(|record| record.partition != partition.partition || record.topic != partition.topic);
        // What was met at the old position is no news of the new one.
        self.error.take_if(|(at, _)| *at == partition);
        self.cursors[index].seek(offset, *watermarks);
        Ok(())
    }

    /// What is read here, in order of topic and number: the partitions that this member has claimed, as of the last poll;
    /// every partition of the topics for a [`standalone`](ConsumerBuilder::standalone) consumer.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &TopicPartition> {
        self.cursors.iter().map(|cursor| &cursor.partition)
    }

    /// The offset the next poll starts at.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not claimed here.
    pub fn position(&self, topic: &str, partition: Partition) -> Result<u64> {
        Ok(self.cursors[self.index(topic, partition)?].position)
    }

    /// Ends the consumer: with `auto_commit` commits what polls have returned, then leaves the group, so that others take
    /// over at once.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit). The group is left all the same, or when the metadata store does not answer, the
    /// session ends after its timeout.
    pub async fn close(mut self) -> Result<()> {
        let committed = match self.auto_commit {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        if let Some(mut membership) = self.membership.take() {
            // What a cancelled poll had ordered does not matter any more.
            let _ = membership.done().await;
            membership.order(Deed::Leave);
            if let Err(error) = membership.done().await {
                tracing::warn!(group = %self.group, %error, "the group could not be left; the session ends by itself");
            }
        }
        committed
    }

    fn index(&self, topic: &str, partition: Partition) -> Result<usize> {
        let partition = TopicPartition { topic: TopicName::new(topic)?, partition };
        self.index_of(&partition).ok_or_else(|| self.not_here(partition))
    }

    fn index_of(&self, partition: &TopicPartition) -> Option<usize> {
        self.cursors.binary_search_by(|cursor| cursor.partition.cmp(partition)).ok()
    }

    /// Why a partition is not read here.
    fn not_here(&self, partition: TopicPartition) -> ClientError {
        match self.membership.as_ref().filter(|membership| membership.may_read(&partition)) {
            Some(membership) => ClientError::NotClaimed {
                group: self.group.clone(),
                reader: membership.reader(&partition),
                partition,
            },
            None => ClientError::NotSubscribed(partition.to_string()),
        }
    }
}
