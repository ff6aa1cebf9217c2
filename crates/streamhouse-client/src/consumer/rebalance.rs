//! A consumer among the members of its group: what it gives up and what it takes.

use crate::consumer::keeper::{Deed, Place};
use crate::consumer::{ConsumedRecord, Consumer, cursor::Cursor, seen::Seen};
use crate::error::{ClientError, Result};
use std::sync::Arc;
use streamhouse_core::{ErrorKind, TopicPartition};
use streamhouse_metadata::Claimed;

impl Consumer {
    /// Partitions that this consumer is about to hand over to other members. Polls return no more records of them; a
    /// commit lets them go at once. Without one they go after the session timeout, and what was not committed is read
    /// again by their next reader.
    ///
    /// Empty with [`auto_commit`](crate::ConsumerBuilder::auto_commit), which commits by itself then.
    pub fn handing_over(&self) -> impl Iterator<Item = &TopicPartition> {
        self.cursors.iter().filter(|cursor| cursor.is_leaving()).map(|cursor| &cursor.partition)
    }

    /// Acts on how the group stands: joins it (again), drops what was lost, gives up what belongs to others, claims what
    /// is its own. Says whether what is claimed then may be read.
    ///
    /// # Errors
    ///
    /// What the metadata store met; the next call goes on from there. Never `Fenced`: who is fenced joins again.
    pub(super) async fn take_part(&mut self) -> Result<bool> {
        let Some(membership) = &mut self.membership else { return Ok(true) };
        membership.touch();
        self.change_done().await?;
        let handing_over = self.handing_over().next().is_some();
        let Some(membership) = &mut self.membership else { return Ok(true) };
        let place = match membership.news() {
            Some(Place::Out(reason)) => {
                self.lose(&reason, |_| true);
                self.order(Deed::Join);
                self.change_done().await?;
                self.membership.as_mut().and_then(|membership| membership.news())
            }
            None if handing_over => Some(membership.place()),
            place => place,
        };
        if let Some(Place::In(seen)) = place {
            self.follow(&seen).await?;
        }
        Ok(self.holds())
    }

    /// Gives up and claims what the group's state asks for.
    async fn follow(&mut self, seen: &Seen) -> Result<()> {
        self.lose("they are not claimed any more", |cursor| {
            !seen.holds(&cursor.partition, cursor.generation)
        });
        for cursor in &mut self.cursors {
            if seen.is_share(&cursor.partition) { cursor.stay() } else { cursor.leave() }
        }
        let leaving = |cursor: &&Cursor| cursor.is_leaving();
        let given_up: Vec<_> = self.cursors.iter().filter(leaving).map(|c| c.partition.clone()).collect();
        self.forget_read(&given_up);
        if self.auto_commit.is_some() && self.cursors.iter().any(|c| c.is_leaving() && c.is_uncommitted()) {
            self.commit_quietly().await?;
        }
        // A claim whose grant was not heard of is given back, to be granted anew.
        let unknown = |partition: &TopicPartition| self.index_of(partition).is_none();
        let mut release: Vec<_> =
            seen.held().map(|claim| claim.partition.clone()).filter(|partition| unknown(partition)).collect();
        release.extend(self.let_go());
        let claim: Vec<_> = seen.to_claim().cloned().collect();
        if let Some(membership) = &mut self.membership {
            membership.acted();
        }
        if !release.is_empty() || !claim.is_empty() {
            self.order(Deed::Change { release, claim });
            self.change_done().await?;
        }
        Ok(())
    }

    /// Stops reading what is to be handed over and may go.
    fn let_go(&mut self) -> Vec<TopicPartition> {
        let Some(membership) = &self.membership else { return Vec::new() };
        let wait = membership.seat.session;
        let going: Vec<_> =
            self.cursors.iter().filter(|c| c.may_go(wait)).map(|c| c.partition.clone()).collect();
        self.lose("another member waited for them, and no commit came", |cursor| cursor.may_go(wait));
        going
    }

    /// Waits for an ordered change, and begins to read what was claimed. Cancel safe.
    async fn change_done(&mut self) -> Result<()> {
        let Some(membership) = &mut self.membership else { return Ok(()) };
        let claimed = match membership.done().await {
            // Its place is gone, and the next look at it finds that.
            Err(error) if error.kind() == ErrorKind::Fenced => return Ok(()),
            claimed => claimed?,
        };
        if claimed.is_empty() {
            return Ok(());
        }
        let begin = |Claimed { offset, generation }: &Claimed| Cursor::new(&self.source, offset, *generation);
        let cursors: Vec<_> = claimed.iter().map(begin).collect();
        for cursor in &cursors {
            membership.told.add(&cursor.partition, cursor.generation, cursor.told());
        }
        self.cursors.extend(cursors);
        self.cursors.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(())
    }

    /// Drops the partitions that are `gone`, and whatever was read of them.
    pub(super) fn lose(&mut self, reason: &str, gone: impl Fn(&Cursor) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.cursors).into_iter().partition(|cursor| gone(cursor));
        self.cursors = kept;
        let gone: Vec<Cursor> = gone;
        let partitions: Vec<_> = gone.iter().map(|cursor| cursor.partition.clone()).collect();
        self.forget_read(&partitions);
        let uncommitted = gone.into_iter().filter(Cursor::is_uncommitted).map(|cursor| cursor.partition);
        let before = self.lost.partitions.len();
        self.lost.partitions.extend(uncommitted);
        if self.lost.partitions.len() > before {
            self.lost.reason = reason.into();
            let count = self.lost.partitions.len() - before;
            tracing::warn!(group = %self.group, partitions = count, reason, "what was read there is read again");
        }
    }

    /// Drops what was read of these partitions and not returned.
    fn forget_read(&mut self, partitions: &[TopicPartition]) {
        let among = |record: &ConsumedRecord| {
            partitions.iter().any(|gone| gone.partition == record.partition && gone.topic == record.topic)
        };
        self.records.retain(|record| !among(record));
        self.error.take_if(|(partition, _)| partitions.contains(partition));
    }

    fn order(&mut self, deed: Deed) {
        if let Some(membership) = &mut self.membership {
            membership.order(deed);
        }
    }

    /// Whether what is claimed is so for sure.
    pub(super) fn holds(&self) -> bool {
        self.membership.as_ref().is_none_or(|membership| membership.holds())
    }

    /// What keeps it from being so for sure.
    pub(super) fn trouble(&self) -> Result<()> {
        self.membership.as_ref().map_or(Ok(()), |membership| membership.trouble())
    }

    /// Tells once what was lost before it was committed.
    pub(super) fn tell_lost(&mut self) -> Result<()> {
        let lost = std::mem::take(&mut self.lost);
        if lost.partitions.is_empty() {
            return Ok(());
        }
        let group = self.group.clone();
        Err(ClientError::Fenced { group, partitions: lost.partitions.into(), reason: lost.reason })
    }
}

/// What was read and lost before it was committed.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) reason: Arc<str>,
}

impl Default for Lost {
    fn default() -> Self {
        Lost { partitions: Vec::new(), reason: "".into() }
    }
}
