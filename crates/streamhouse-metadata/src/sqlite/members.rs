//! Members of groups and their claims.

use super::{SqliteMetadataStore, not_built};
use crate::error::Result;
use crate::model::{Claimed, GroupView};
use crate::store::Members;
use async_trait::async_trait;
use std::time::Duration;
use streamhouse_core::{GroupId, MemberId, TopicName, TopicPartition};

#[async_trait]
impl Members for SqliteMetadataStore {
    async fn join_group(
        &self,
        _group: &GroupId,
        _member: &MemberId,
        _topics: &[TopicName],
        _session: Duration,
    ) -> Result<GroupView> {
        Err(not_built())
    }

    async fn heartbeat_member(
        &self,
        _group: &GroupId,
        _member: &MemberId,
        _session: Duration,
    ) -> Result<GroupView> {
        Err(not_built())
    }

    async fn claim_partitions(
        &self,
        _group: &GroupId,
        _member: &MemberId,
        _wanted: &[TopicPartition],
    ) -> Result<Vec<Claimed>> {
        Err(not_built())
    }

    async fn release_claims(
        &self,
        _group: &GroupId,
        _member: &MemberId,
        _partitions: &[TopicPartition],
    ) -> Result<()> {
        Err(not_built())
    }

    async fn leave_group(&self, _group: &GroupId, _member: &MemberId) -> Result<()> {
        Err(not_built())
    }

    async fn group_view(&self, _group: &GroupId) -> Result<GroupView> {
        Err(not_built())
    }
}
