//! `Metadata`: answers clients for the metadata store, so that they need no access to the database.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_core::limits::METADATA_ITEMS_MAX;
use streamhouse_core::{AsTyped, ErrorKind};
use streamhouse_metadata::{MetadataError, MetadataStore};
use streamhouse_proto::convert::{items, messages, name, names, required};
use streamhouse_proto::status::{from_error, status};
use streamhouse_proto::v1::{self, metadata_server::Metadata};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// Calls of the store at a time: fewer than it has connections, so that flushes and leases never wait for clients.
const CALLS_MAX: usize = 4;
/// How long a call may take, with the wait for its turn.
const CALL_TIME: Duration = Duration::from_secs(15);

/// The gRPC service. One, shared by all connections.
pub(crate) struct MetadataService {
    store: Arc<dyn MetadataStore>,
    turns: Semaphore,
    call_time: Duration,
}

impl MetadataService {
    pub(crate) fn new(store: Arc<dyn MetadataStore>) -> MetadataService {
        MetadataService { store, turns: Semaphore::new(CALLS_MAX), call_time: CALL_TIME }
    }

    /// What the store says, when it is the call's turn.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, MetadataError>>) -> Result<T, Status> {
        let answer = async {
            let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
            call.await
        };
        match timeout(self.call_time, answer).await {
            Ok(answer) => answer.map_err(|error| from_error(&error)),
            Err(_) => {
                let sentence = format!(
                    "the metadata store has not answered within {}, and what was asked for may have happened; try again",
                    AsTyped(self.call_time)
                );
                Err(status(ErrorKind::Retry, &sentence))
            }
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Metadata for MetadataService {
    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Answer<v1::Topic> {
        let v1::CreateTopicRequest { name: topic, partitions, retention } = request.into_inner();
        let (topic, retention) = (name(&topic)?, retention.unwrap_or_default().into());
        let topic = self.ask(self.store.create_topic(&topic, partitions, retention)).await?;
        Ok(Response::new(topic.into()))
    }

    async fn set_retention(&self, request: Request<v1::SetRetentionRequest>) -> Answer<v1::Topic> {
        let v1::SetRetentionRequest { name: topic, retention } = request.into_inner();
        let (topic, retention) = (name(&topic)?, retention.unwrap_or_default().into());
        Ok(Response::new(self.ask(self.store.set_retention(&topic, retention)).await?.into()))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Answer<v1::DeleteTopicResponse> {
        let topic = name(&request.into_inner().name)?;
        self.ask(self.store.delete_topic(&topic)).await?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn get_topic(&self, request: Request<v1::GetTopicRequest>) -> Answer<v1::Topic> {
        let topic = name(&request.into_inner().name)?;
        Ok(Response::new(self.ask(self.store.topic(&topic)).await?.into()))
    }

    async fn list_topics(&self, _: Request<v1::ListTopicsRequest>) -> Answer<v1::ListTopicsResponse> {
        let topics = messages(self.ask(self.store.topics()).await?);
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Answer<v1::ListPartitionsResponse> {
        let topic = name(&request.into_inner().topic)?;
        let partitions = messages(self.ask(self.store.partitions(&topic)).await?);
        Ok(Response::new(v1::ListPartitionsResponse { partitions }))
    }

    async fn get_watermarks(
        &self,
        request: Request<v1::GetWatermarksRequest>,
    ) -> Answer<v1::GetWatermarksResponse> {
        let partitions = items(request.into_inner().partitions, "partitions")?;
        let watermarks = messages(self.ask(self.store.watermarks(&partitions)).await?);
        Ok(Response::new(v1::GetWatermarksResponse { watermarks }))
    }

    async fn new_producer_id(
        &self,
        _: Request<v1::NewProducerIdRequest>,
    ) -> Answer<v1::NewProducerIdResponse> {
        let producer_id = self.ask(self.store.new_producer_id()).await?;
        Ok(Response::new(v1::NewProducerIdResponse { producer_id }))
    }

    async fn list_ranges(&self, request: Request<v1::ListRangesRequest>) -> Answer<v1::ListRangesResponse> {
        let v1::ListRangesRequest { partition, offset, max } = request.into_inner();
        let (partition, max) = (required(partition, "partition")?, max.min(METADATA_ITEMS_MAX as u32));
        let ranges = messages(self.ask(self.store.ranges(&partition, offset, max)).await?);
        Ok(Response::new(v1::ListRangesResponse { ranges }))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Answer<v1::CommitOffsetsResponse> {
        let v1::CommitOffsetsRequest { group, member, offsets } = request.into_inner();
        let (group, offsets) = (name(&group)?, items(offsets, "offsets")?);
        let member = if member.is_empty() { None } else { Some(name(&member)?) };
        self.ask(self.store.commit_offsets(&group, member.as_ref(), &offsets)).await?;
        Ok(Response::new(v1::CommitOffsetsResponse {}))
    }

    async fn get_group_offsets(
        &self,
        request: Request<v1::GetGroupOffsetsRequest>,
    ) -> Answer<v1::GroupOffsets> {
        let v1::GetGroupOffsetsRequest { group, partitions } = request.into_inner();
        let (group, partitions) = (name(&group)?, items(partitions, "partitions")?);
        let offsets = messages(self.ask(self.store.group_offsets(&group, &partitions)).await?);
        Ok(Response::new(v1::GroupOffsets { offsets }))
    }

    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Answer<v1::ListGroupsResponse> {
        let groups = messages(self.ask(self.store.groups()).await?);
        Ok(Response::new(v1::ListGroupsResponse { groups }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Answer<v1::DeleteGroupResponse> {
        let group = name(&request.into_inner().group)?;
        self.ask(self.store.delete_group(&group)).await?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }

    async fn describe_group(&self, request: Request<v1::DescribeGroupRequest>) -> Answer<v1::GroupOffsets> {
        let group = name(&request.into_inner().group)?;
        let offsets = messages(self.ask(self.store.describe_group(&group)).await?);
        Ok(Response::new(v1::GroupOffsets { offsets }))
    }

    async fn join_group(&self, request: Request<v1::JoinGroupRequest>) -> Answer<v1::GroupView> {
        let v1::JoinGroupRequest { group, member, topics, session_ms } = request.into_inner();
        let (group, member, topics) = (name(&group)?, name(&member)?, names(&topics, "topics")?);
        let session = Duration::from_millis(session_ms);
        let view = self.ask(self.store.join_group(&group, &member, &topics, session)).await?;
        Ok(Response::new(view.into()))
    }

    async fn heartbeat_member(&self, request: Request<v1::HeartbeatMemberRequest>) -> Answer<v1::GroupView> {
        let v1::HeartbeatMemberRequest { group, member, session_ms } = request.into_inner();
        let (group, member, session) = (name(&group)?, name(&member)?, Duration::from_millis(session_ms));
        Ok(Response::new(self.ask(self.store.heartbeat_member(&group, &member, session)).await?.into()))
    }

    async fn claim_partitions(
        &self,
        request: Request<v1::ClaimPartitionsRequest>,
    ) -> Answer<v1::ClaimPartitionsResponse> {
        let v1::ClaimPartitionsRequest { group, member, wanted } = request.into_inner();
        let (group, member, wanted) = (name(&group)?, name(&member)?, items(wanted, "partitions")?);
        let claimed = messages(self.ask(self.store.claim_partitions(&group, &member, &wanted)).await?);
        Ok(Response::new(v1::ClaimPartitionsResponse { claimed }))
    }

    async fn release_claims(
        &self,
        request: Request<v1::ReleaseClaimsRequest>,
    ) -> Answer<v1::ReleaseClaimsResponse> {
        let v1::ReleaseClaimsRequest { group, member, partitions } = request.into_inner();
        let (group, member) = (name(&group)?, name(&member)?);
        let partitions = items(partitions, "partitions")?;
        self.ask(self.store.release_claims(&group, &member, &partitions)).await?;
        Ok(Response::new(v1::ReleaseClaimsResponse {}))
    }

    async fn leave_group(&self, request: Request<v1::LeaveGroupRequest>) -> Answer<v1::LeaveGroupResponse> {
        let v1::LeaveGroupRequest { group, member } = request.into_inner();
        let (group, member) = (name(&group)?, name(&member)?);
        self.ask(self.store.leave_group(&group, &member)).await?;
        Ok(Response::new(v1::LeaveGroupResponse {}))
    }

    async fn get_group_view(&self, request: Request<v1::GetGroupViewRequest>) -> Answer<v1::GroupView> {
        let group = name(&request.into_inner().group)?;
        Ok(Response::new(self.ask(self.store.group_view(&group)).await?.into()))
    }
}
