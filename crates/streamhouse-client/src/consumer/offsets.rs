//! How far the group is: commits, lag, and what the probe sees of both.

use crate::consumer::keeper::reason;
use crate::consumer::rebalance::Lost;
use crate::consumer::{Consumer, PROGRESS_EVERY};
use crate::error::{ClientError, Result};
use streamhouse_core::{Clock, ErrorKind, Partition, SystemClock, TopicPartition};
use streamhouse_metadata::{GroupOffset, OffsetCommit};
use tokio::time::Instant;

impl Consumer {
    /// Commits, in one transaction, the positions of all partitions that are claimed: a consumer of the group that reads
    /// them later goes on behind what polls have returned.
    ///
    /// # Errors
    ///
    /// `Fenced` when records that polls have returned were not committed and will not be by this consumer, since it has lost
    /// their partitions: its session was over, or other members had waited for a commit for too long. They are read again
    /// by others. The error names the partitions and comes once; what was returned of the partitions that are still
    /// claimed is committed. Poll on: a consumer that has lost its place in the group joins again.
    ///
    /// `NotFound` when a topic was deleted: nothing was committed, and the next commit is of the others.
    ///
    /// `Invalid`, only for a [`standalone`](crate::ConsumerBuilder::standalone) consumer, when a member of the group has
    /// claimed a partition. Otherwise the metadata store failed; nothing was committed then, unless the error says that
    /// this is unknown. Committing again is safe.
    pub async fn commit(&mut self) -> Result<()> {
        self.committed_at = Instant::now();
        let moved = self.cursors.iter().filter(|cursor| cursor.committed != Some(cursor.position));
        let offsets: Vec<_> = moved.map(|cursor| (cursor.partition.clone(), cursor.position)).collect();
        self.commit_all(&offsets).await?;
        self.tell_lost()
    }

    /// Commits one offset: the next record the group will read there after a restart. Positions stay as they are.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not claimed here, `Invalid` for an offset above the high watermark; `Fenced` when
    /// the claim is lost; else as [`commit`](Self::commit).
    pub async fn commit_offset(&mut self, topic: &str, partition: Partition, offset: u64) -> Result<()> {
        let index = self.index(topic, partition)?;
        let partition = self.cursors[index].partition.clone();
        self.commit_all(&[(partition, offset)]).await
    }

    async fn commit_all(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        let member = self.membership.as_ref().map(|membership| {
            membership.touch();
            membership.seat.member.clone()
        });
        if !offsets.is_empty() {
            let commits = offsets.iter().filter_map(|(partition, offset)| {
                let generation = self.cursors[self.index_of(partition)?].generation;
                Some(OffsetCommit { partition: partition.clone(), offset: *offset, generation })
            });
            let commits: Vec<_> = commits.collect();
            let committed = self.store.commit_offsets(&self.group, member.as_ref(), &commits).await;
            if let Err(error) = committed {
                let error = self.not_committed(error.into(), offsets);
                return Err(self.lose_deleted(&error).await.map_or(error, |(_, deleted)| deleted));
            }
        }
        if let Err(error) = self.look_at_progress().await {
            // What was asked for is done; the next look publishes it.
            tracing::debug!(%error, "the lag could not be read after a commit");
            for (partition, offset) in offsets {
                if let Some(index) = self.index_of(partition) {
                    self.cursors[index].committed = Some(*offset);
                }
            }
        }
        Ok(())
    }

    /// Who is fenced has lost all that it had claimed.
    fn not_committed(&mut self, error: ClientError, offsets: &[(TopicPartition, u64)]) -> ClientError {
        let Some(membership) = &mut self.membership else { return error };
        if error.kind() != ErrorKind::Fenced {
            return error;
        }
        membership.suspect();
        let reason = reason(&error);
        self.lose(&reason, |_| true);
        self.lost = Lost::default();
        let partitions = offsets.iter().map(|(partition, _)| partition.clone()).collect();
        ClientError::Fenced { group: self.group.clone(), partitions, reason }
    }

    /// Commits for a consumer that commits by itself, and need not be told that others read something again.
    pub(super) async fn commit_quietly(&mut self) -> Result<()> {
        match self.commit().await {
            Err(error) if error.kind() == ErrorKind::Fenced => {
                tracing::warn!(%error, "an automatic commit was refused");
                Ok(())
            }
            committed => committed,
        }
    }

    /// The offset the group has committed, if it has.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not claimed here; otherwise what the metadata store met.
    pub async fn committed(&self, topic: &str, partition: Partition) -> Result<Option<u64>> {
        Ok(self.offset_of(topic, partition).await?.and_then(|offset| offset.committed))
    }

    /// How far the group is behind, in records: high watermark minus committed offset (log start when there is none).
    /// What was polled and not committed still counts.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not claimed here; otherwise what the metadata store met.
    pub async fn lag(&self, topic: &str, partition: Partition) -> Result<u64> {
        Ok(self.offset_of(topic, partition).await?.map_or(0, |offset| offset.lag_records))
    }

    async fn offset_of(&self, topic: &str, partition: Partition) -> Result<Option<GroupOffset>> {
        let partition = &self.cursors[self.index(topic, partition)?].partition;
        let mut offsets = self.store.group_offsets(&self.group, std::slice::from_ref(partition)).await?;
        Ok(offsets.pop())
    }

    pub(super) async fn auto_commit(&mut self, now: Instant) -> Result<()> {
        match self.auto_commit {
            Some(every) if now.duration_since(self.committed_at) >= every => self.commit_quietly().await,
            _ => Ok(()),
        }
    }

    /// Publishes the lag when it is due. A failure is no reason to stop reading.
    pub(super) async fn refresh_progress(&mut self) {
        if self.cursors.is_empty() || Instant::now() < self.progress_due {
            return;
        }
        if let Err(error) = self.look_at_progress().await {
            tracing::warn!(%error, "the lag could not be read; it is published as it was");
        }
    }

    async fn look_at_progress(&mut self) -> Result<()> {
        if self.cursors.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = self.cursors.iter().map(|cursor| cursor.partition.clone()).collect();
        let offsets = self.store.group_offsets(&self.group, &partitions).await;
        self.progress_due = Instant::now() + PROGRESS_EVERY;
        let now_ns = SystemClock.monotonic_ns();
        for (cursor, offset) in self.cursors.iter_mut().zip(&offsets?) {
            cursor.progress(offset, now_ns);
        }
        Ok(())
    }
}
