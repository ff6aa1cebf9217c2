//! The store's calls, each as one to an agent. Lists longer than a request may name go in several.

use super::RemoteMetadataStore;
use super::answers::{one, one_each};
use super::ask::Twice;
use std::time::Duration;
use streamhouse_core::limits::METADATA_ITEMS_MAX;
use streamhouse_core::{GroupId, MemberId, TopicName, TopicPartition};
use streamhouse_metadata::{
    Claimed, Group, GroupOffset, GroupView, Groups, Members, OffsetCommit, PartitionInfo, Producers, Result,
    Retention, SegmentRange, SegmentRanges, Topic, Topics, Watermarks,
};
use streamhouse_proto::convert::{self, messages, milliseconds};
use streamhouse_proto::v1;

/// Sends a message with a method of the client: `ask!(self, twice, method, message)`.
macro_rules! ask {
    ($store:expr, $twice:expr, $method:ident, $message:expr) => {
        $store.ask($twice, $message, |mut client, request| async move { client.$method(request).await }).await
    };
}

#[tonic::async_trait]
impl Topics for RemoteMetadataStore {
    async fn create_topic(&self, name: &TopicName, partitions: u32, retention: Retention) -> Result<Topic> {
        const LOOK: Twice =
            Twice::Never("the topic may exist now: look with `streamhouse topic list`, then try again");
        let (name, retention) = (name.to_string(), Some(retention.into()));
        one(ask!(self, LOOK, create_topic, v1::CreateTopicRequest { name, partitions, retention })?)
    }

    async fn set_retention(&self, name: &TopicName, retention: Retention) -> Result<Topic> {
        let (name, retention) = (name.to_string(), Some(retention.into()));
        one(ask!(self, Twice::Fine, set_retention, v1::SetRetentionRequest { name, retention })?)
    }

    async fn delete_topic(&self, name: &TopicName) -> Result<()> {
        const LOOK: Twice =
            Twice::Never("the topic may be gone: look with `streamhouse topic list`, then try again");
        ask!(self, LOOK, delete_topic, v1::DeleteTopicRequest { name: name.to_string() }).map(drop)
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic> {
        one(ask!(self, Twice::Fine, get_topic, v1::GetTopicRequest { name: name.to_string() })?)
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        let answer = ask!(self, Twice::Fine, list_topics, v1::ListTopicsRequest {})?;
        Ok(convert::list(answer.topics)?)
    }

    async fn partitions(&self, name: &TopicName) -> Result<Vec<PartitionInfo>> {
        let message = v1::ListPartitionsRequest { topic: name.to_string() };
        let answer = ask!(self, Twice::Fine, list_partitions, message)?;
        Ok(convert::list(answer.partitions)?)
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>> {
        let mut all = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(METADATA_ITEMS_MAX) {
            let message = v1::GetWatermarksRequest { partitions: messages(some) };
            let answer = ask!(self, Twice::Fine, get_watermarks, message)?;
            all.extend(one_each::<_, Watermarks>(answer.watermarks, some.len())?);
        }
        Ok(all)
    }
}

#[tonic::async_trait]
impl Producers for RemoteMetadataStore {
    async fn new_producer_id(&self) -> Result<u64> {
        // An id whose answer is lost is never used, which harms nobody.
        Ok(ask!(self, Twice::Fine, new_producer_id, v1::NewProducerIdRequest {})?.producer_id)
    }
}

#[tonic::async_trait]
impl SegmentRanges for RemoteMetadataStore {
    async fn ranges(&self, partition: &TopicPartition, offset: u64, max: u32) -> Result<Vec<SegmentRange>> {
        let message = v1::ListRangesRequest { partition: Some(partition.into()), offset, max };
        Ok(convert::list(ask!(self, Twice::Fine, list_ranges, message)?.ranges)?)
    }
}

#[tonic::async_trait]
impl Groups for RemoteMetadataStore {
    async fn commit_offsets(
        &self,
        group: &GroupId,
        member: Option<&MemberId>,
        offsets: &[OffsetCommit],
    ) -> Result<()> {
        // Not in several requests: all or none are committed.
        let message = v1::CommitOffsetsRequest {
            group: group.to_string(),
            member: member.map(ToString::to_string).unwrap_or_default(),
            offsets: messages(offsets),
        };
        ask!(self, Twice::Fine, commit_offsets, message).map(drop)
    }

    async fn group_offsets(
        &self,
        group: &GroupId,
        partitions: &[TopicPartition],
    ) -> Result<Vec<GroupOffset>> {
        let mut all = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(METADATA_ITEMS_MAX) {
            let message = v1::GetGroupOffsetsRequest { group: group.to_string(), partitions: messages(some) };
            let answer = ask!(self, Twice::Fine, get_group_offsets, message)?;
            all.extend(one_each::<_, GroupOffset>(answer.offsets, some.len())?);
        }
        Ok(all)
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let answer = ask!(self, Twice::Fine, list_groups, v1::ListGroupsRequest {})?;
        Ok(convert::list(answer.groups)?)
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        const LOOK: Twice =
            Twice::Never("the group may be gone: look with `streamhouse groups list`, then try again");
        ask!(self, LOOK, delete_group, v1::DeleteGroupRequest { group: group.to_string() }).map(drop)
    }

    async fn describe_group(&self, group: &GroupId) -> Result<Vec<GroupOffset>> {
        let message = v1::DescribeGroupRequest { group: group.to_string() };
        Ok(convert::list(ask!(self, Twice::Fine, describe_group, message)?.offsets)?)
    }
}

#[tonic::async_trait]
impl Members for RemoteMetadataStore {
    async fn join_group(
        &self,
        group: &GroupId,
        member: &MemberId,
        topics: &[TopicName],
        session: Duration,
    ) -> Result<GroupView> {
        let message = v1::JoinGroupRequest {
            group: group.to_string(),
            member: member.to_string(),
            topics: topics.iter().map(ToString::to_string).collect(),
            session_ms: milliseconds(session),
        };
        one(ask!(self, Twice::Fine, join_group, message)?)
    }

    async fn heartbeat_member(
        &self,
        group: &GroupId,
        member: &MemberId,
        session: Duration,
    ) -> Result<GroupView> {
        let message = v1::HeartbeatMemberRequest {
            group: group.to_string(),
            member: member.to_string(),
            session_ms: milliseconds(session),
        };
        one(ask!(self, Twice::Fine, heartbeat_member, message)?)
    }

    async fn claim_partitions(
        &self,
        group: &GroupId,
        member: &MemberId,
        wanted: &[TopicPartition],
    ) -> Result<Vec<Claimed>> {
        // Made again, it would leave out what it was granted before, which is claimed by then.
        const LOOK: Twice =
            Twice::Never("the partitions may be claimed now: the member's next heartbeat says which");
        let mut all = Vec::new();
        for some in wanted.chunks(METADATA_ITEMS_MAX) {
            let message = v1::ClaimPartitionsRequest {
                group: group.to_string(),
                member: member.to_string(),
                wanted: messages(some),
            };
            let answer = ask!(self, LOOK, claim_partitions, message)?;
            all.extend(convert::list::<_, Claimed>(answer.claimed)?);
        }
        Ok(all)
    }

    async fn release_claims(
        &self,
        group: &GroupId,
        member: &MemberId,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        for some in partitions.chunks(METADATA_ITEMS_MAX) {
            let message = v1::ReleaseClaimsRequest {
                group: group.to_string(),
                member: member.to_string(),
                partitions: messages(some),
            };
            ask!(self, Twice::Fine, release_claims, message)?;
        }
        Ok(())
    }

    async fn leave_group(&self, group: &GroupId, member: &MemberId) -> Result<()> {
        let message = v1::LeaveGroupRequest { group: group.to_string(), member: member.to_string() };
        ask!(self, Twice::Fine, leave_group, message).map(drop)
    }

    async fn group_view(&self, group: &GroupId) -> Result<GroupView> {
        let message = v1::GetGroupViewRequest { group: group.to_string() };
        one(ask!(self, Twice::Fine, get_group_view, message)?)
    }
}
