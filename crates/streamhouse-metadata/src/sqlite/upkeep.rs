//! Retention, dead segments, duties, and every group's lag.

use super::{SqliteMetadataStore, not_built};
use crate::error::Result;
use crate::model::{DeadSegment, Duty, GroupOffset};
use crate::store::Upkeep;
use async_trait::async_trait;
use std::time::Duration;
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicPartition};

#[async_trait]
impl Upkeep for SqliteMetadataStore {
    async fn take_duty(&self, _duty: Duty, _agent: &AgentId, _term: Duration) -> Result<bool> {
        Err(not_built())
    }

    async fn apply_retention(&self) -> Result<Vec<(TopicPartition, u64)>> {
        Err(not_built())
    }

    async fn dead_segments(&self, _grace: Duration, _max: u32) -> Result<Vec<DeadSegment>> {
        Err(not_built())
    }

    async fn forget_segments(&self, _segments: &[SegmentId]) -> Result<()> {
        Err(not_built())
    }

    async fn group_lags(&self, _partitions: &[TopicPartition]) -> Result<Vec<(GroupId, GroupOffset)>> {
        Err(not_built())
    }
}
