//! How far the group is: commits, lag, and what the probe sees of both.

use crate::consumer::{Consumer, PROGRESS_EVERY};
use crate::error::Result;
use streamhouse_core::{Clock, Partition, SystemClock, TopicPartition};
use streamhouse_metadata::{GroupOffset, OffsetCommit};
use tokio::time::Instant;

impl Consumer {
    /// Commits, in one transaction, the positions of all partitions: a consumer of the group that starts later goes on
    /// behind what polls have returned.
    ///
    /// # Errors
    ///
    /// When the metadata store failed; nothing was committed then, unless the error says that this is unknown. Committing
    /// again is safe.
    pub async fn commit(&mut self) -> Result<()> {
        self.committed_at = Instant::now();
        let moved = self.cursors.iter().filter(|cursor| cursor.committed != Some(cursor.position));
        let offsets: Vec<_> = moved.map(|cursor| (cursor.partition.clone(), cursor.position)).collect();
        self.commit_all(&offsets).await
    }

    /// Commits one offset: the next record the group will read there after a restart. Positions stay as they are.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not read here, `Invalid` for an offset above the high watermark; else as
    /// [`commit`](Self::commit).
    pub async fn commit_offset(&mut self, topic: &str, partition: Partition, offset: u64) -> Result<()> {
        let index = self.index(topic, partition)?;
        let partition = self.cursors[index].partition.clone();
        self.commit_all(&[(partition, offset)]).await
    }

    async fn commit_all(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        if !offsets.is_empty() {
            let commits = offsets.iter().map(|(partition, offset)| OffsetCommit {
                partition: partition.clone(),
                offset: *offset,
                generation: 0,
            });
            self.store.commit_offsets(&self.group, None, &commits.collect::<Vec<_>>()).await?;
        }
        self.progress_seen = Instant::now();
        if let Err(error) = self.look_at_progress().await {
            // What was asked for is done; the next look publishes it.
            tracing::debug!(%error, "the lag could not be read after a commit");
            for (partition, offset) in offsets {
                let index = self.index(partition.topic.as_str(), partition.partition)?;
                self.cursors[index].committed = Some(*offset);
            }
        }
        Ok(())
    }

    /// The offset the group has committed, if it has.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not read here; otherwise what the metadata store met.
    pub async fn committed(&self, topic: &str, partition: Partition) -> Result<Option<u64>> {
        Ok(self.offset_of(topic, partition).await?.and_then(|offset| offset.committed))
    }

    /// How far the group is behind, in records: high watermark minus committed offset (log start when there is none).
    /// What was polled and not committed still counts.
    ///
    /// # Errors
    ///
    /// `NotFound` for a partition that is not read here; otherwise what the metadata store met.
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
            Some(every) if now.duration_since(self.committed_at) >= every => self.commit().await,
            _ => Ok(()),
        }
    }

    /// Publishes the lag when it was not for a while. A failure is no reason to stop reading.
    pub(super) async fn refresh_progress(&mut self) {
        if self.progress_seen.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.progress_seen = Instant::now();
        if let Err(error) = self.look_at_progress().await {
            tracing::warn!(%error, "the lag could not be read; it is published as it was");
        }
    }

    async fn look_at_progress(&mut self) -> Result<()> {
        let partitions: Vec<_> = self.cursors.iter().map(|cursor| cursor.partition.clone()).collect();
        let offsets = self.store.group_offsets(&self.group, &partitions).await?;
        self.publish_progress(&offsets);
        Ok(())
    }

    pub(super) fn publish_progress(&mut self, offsets: &[GroupOffset]) {
        let now_ns = SystemClock.monotonic_ns();
        for (cursor, offset) in self.cursors.iter_mut().zip(offsets) {
            cursor.progress(offset, now_ns);
        }
    }
}
