//! What clients learn of the metadata store from an agent.

mod support;

use std::time::Duration;
use streamhouse_core::limits::{METADATA_ITEMS_MAX, METADATA_REQUEST_BYTES_MAX};
use streamhouse_core::{ErrorKind, GroupId};
use streamhouse_metadata::{GroupView, Groups, Members, SegmentRange, SegmentRanges, Topics};
use streamhouse_proto::status::store_kind;
use streamhouse_proto::v1::*;
use streamhouse_proto::{convert, status};
use support::security::metadata;
use support::{Client, Log, batch, orders};
use tonic::{Code, Status};

fn at(partition: u32) -> TopicPartition {
    (&orders(partition)).into()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, kind: ErrorKind, said: &str) {
    let status = answer.expect_err("it is refused");
    assert_eq!(store_kind(&status), Some(kind), "{status}");
    assert!(status.message().contains(said), "{status}");
    assert_eq!(status::to_error(&status).kind(), kind);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_what_is_in_them_are_what_the_store_says() {
    let log = Log::new(2).await;
    let agent = log.agent().await;
    let mut client = metadata(agent.grpc_address());
    let retention = Retention { age_ms: Some(60_000), bytes: None };
    let request = CreateTopicRequest { name: "events".into(), partitions: 3, retention: Some(retention) };
    let created = client.create_topic(request.clone()).await.unwrap().into_inner();
    assert_eq!((created.partitions, created.retention), (3, Some(retention)));
    refused(client.create_topic(request).await, ErrorKind::Invalid, "exists already");
    let request = SetRetentionRequest { name: "events".into(), retention: None };
    let changed = client.set_retention(request).await.unwrap().into_inner();
    assert_eq!(changed.retention, Some(Retention::default()));
    let topics = client.list_topics(ListTopicsRequest {}).await.unwrap().into_inner().topics;
    assert_eq!(convert::list(topics), Ok(log.metadata.topics().await.unwrap()));
    let get = GetTopicRequest { name: "none".into() };
    refused(client.get_topic(get).await, ErrorKind::NotFound, "streamhouse topic create none");

    let producer = Client::connect(agent.grpc_address()).await;
    producer.stored(batch(0, &["a", "b"], None)).await;
    let request = ListPartitionsRequest { topic: "orders".into() };
    let partitions = client.list_partitions(request).await.unwrap().into_inner().partitions;
    let stored = log.metadata.partitions(&orders(0).topic).await.unwrap();
    assert_eq!(convert::list(partitions), Ok(stored));
    let request = GetWatermarksRequest { partitions: vec![at(1), at(0)] };
    let watermarks = client.get_watermarks(request).await.unwrap().into_inner().watermarks;
    assert_eq!(watermarks.iter().map(|each| each.high_watermark).collect::<Vec<_>>(), [0, 2]);
    let request = ListRangesRequest { partition: Some(at(0)), offset: 0, max: u32::MAX };
    let ranges = client.list_ranges(request).await.unwrap().into_inner().ranges;
    let ranges: Vec<SegmentRange> = convert::list(ranges).unwrap();
    assert_eq!(ranges, log.metadata.ranges(&orders(0), 0, 10).await.unwrap());
    let mut id =
        async || client.new_producer_id(NewProducerIdRequest {}).await.unwrap().into_inner().producer_id;
    assert!(0 < id().await && id().await < id().await);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_lives_through_any_agent() {
    let log = Log::new(2).await;
    let agent = log.agent().await;
    Client::connect(agent.grpc_address()).await.stored(batch(0, &["a", "b"], None)).await;
    let mut client = metadata(agent.grpc_address());
    let (group, member) = ("readers".to_owned(), "member-1".to_owned());
    let request = JoinGroupRequest {
        group: group.clone(),
        member: member.clone(),
        topics: vec!["orders".into()],
        session_ms: 60_000,
    };
    let joined = client.join_group(request).await.unwrap().into_inner();
    let wanted = vec![at(0), at(1)];
    let request = ClaimPartitionsRequest { group: group.clone(), member: member.clone(), wanted };
    let claimed = client.claim_partitions(request).await.unwrap().into_inner().claimed;
    assert_eq!(claimed.len(), 2);
    assert_eq!(claimed[0].generation, joined.generation);

    let commit = |member: &str, generation| CommitOffsetsRequest {
        group: group.clone(),
        member: member.into(),
        offsets: vec![OffsetCommit { partition: Some(at(0)), offset: 1, generation }],
    };
    client.commit_offsets(commit(&member, joined.generation)).await.unwrap();
    let wrong = client.commit_offsets(commit(&member, joined.generation + 1)).await;
    refused(wrong, ErrorKind::Fenced, "is fenced");
    refused(client.commit_offsets(commit("other", 1)).await, ErrorKind::Fenced, "is fenced");
    refused(client.commit_offsets(commit("", 0)).await, ErrorKind::Invalid, "stop the group's consumers");
    let request = GetGroupOffsetsRequest { group: group.clone(), partitions: vec![at(1), at(0)] };
    let offsets = client.get_group_offsets(request).await.unwrap().into_inner().offsets;
    let stand: Vec<_> = offsets.iter().map(|offset| (offset.committed, offset.lag_records)).collect();
    assert_eq!(stand, [(None, 0), (Some(1), 1)]);

    let request = HeartbeatMemberRequest { group: group.clone(), member: member.clone(), session_ms: 60_000 };
    let view = client.heartbeat_member(request).await.unwrap().into_inner();
    let id = GroupId::new(&group).unwrap();
    assert_eq!(GroupView::try_from(view), Ok(log.metadata.group_view(&id).await.unwrap()));
    let partitions = vec![at(1)];
    let request = ReleaseClaimsRequest { group: group.clone(), member: member.clone(), partitions };
    client.release_claims(request).await.unwrap();
    let get = GetGroupViewRequest { group: group.clone() };
    assert_eq!(client.get_group_view(get.clone()).await.unwrap().into_inner().claims.len(), 1);
    client.leave_group(LeaveGroupRequest { group: group.clone(), member }).await.unwrap();
    assert!(client.get_group_view(get).await.unwrap().into_inner().members.is_empty());
    client.commit_offsets(commit("", 0)).await.unwrap();
    let groups = client.list_groups(ListGroupsRequest {}).await.unwrap().into_inner().groups;
    assert_eq!(convert::list(groups), Ok(log.metadata.groups().await.unwrap()));
    let describe = DescribeGroupRequest { group };
    let described = client.describe_group(describe).await.unwrap().into_inner().offsets;
    let stand: Vec<_> = described.iter().map(|offset| (offset.committed, offset.lag_records)).collect();
    assert_eq!(stand, [(Some(1), 1), (None, 0)], "what was claimed counts too");
    let unknown = DescribeGroupRequest { group: "unknown".into() };
    refused(client.describe_group(unknown).await, ErrorKind::NotFound, "group unknown does not exist");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_means_nothing_is_refused_and_the_agent_serves_on() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let mut client = metadata(agent.grpc_address());
    let name = "../orders".to_owned();
    refused(client.get_topic(GetTopicRequest { name }).await, ErrorKind::Invalid, "invalid topic name");
    let name = "x".repeat(1_000_000);
    refused(client.get_topic(GetTopicRequest { name }).await, ErrorKind::Invalid, "it is too long");
    let nowhere = ListRangesRequest::default();
    refused(client.list_ranges(nowhere).await, ErrorKind::Invalid, "a message has no partition");
    let offsets = vec![OffsetCommit::default()];
    let commit = CommitOffsetsRequest { group: "g".into(), member: String::new(), offsets };
    refused(client.commit_offsets(commit).await, ErrorKind::Invalid, "a message has no partition");
    let join = |session_ms| JoinGroupRequest {
        group: "g".into(),
        member: "m".into(),
        topics: Vec::new(),
        session_ms,
    };
    for session_ms in [0, u64::MAX] {
        refused(client.join_group(join(session_ms)).await, ErrorKind::Invalid, "1 day");
    }
    let create = |partitions, age_ms| CreateTopicRequest {
        name: "new".into(),
        partitions,
        retention: Some(Retention { age_ms: Some(age_ms), bytes: None }),
    };
    for request in [create(0, 1), create(u32::MAX, 1), create(1, 0)] {
        let status = client.create_topic(request).await.unwrap_err();
        assert_eq!(store_kind(&status), Some(ErrorKind::Invalid), "{status}");
    }
    let many = GetWatermarksRequest { partitions: vec![at(0); METADATA_ITEMS_MAX + 1] };
    refused(client.get_watermarks(many).await, ErrorKind::Invalid, "10001 partitions");
    // Two bytes each, and a hundred megabytes once decoded.
    let empty = GetWatermarksRequest { partitions: vec![TopicPartition::default(); 2_000_000] };
    assert_eq!(client.get_watermarks(empty).await.unwrap_err().code(), Code::InvalidArgument);
    let name = "x".repeat(METADATA_REQUEST_BYTES_MAX);
    assert_eq!(client.get_topic(GetTopicRequest { name }).await.unwrap_err().code(), Code::OutOfRange);

    let most = GetWatermarksRequest { partitions: vec![at(0); METADATA_ITEMS_MAX] };
    let watermarks = client.get_watermarks(most).await.unwrap().into_inner().watermarks;
    assert_eq!(watermarks.len(), METADATA_ITEMS_MAX);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_requests_do_not_keep_records_out() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let most = GetWatermarksRequest { partitions: vec![at(0); METADATA_ITEMS_MAX] };
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (mut client, most) = (metadata(agent.grpc_address()), most.clone());
        asking.spawn(async move { client.get_watermarks(most).await.map(drop) });
    }
    let client = Client::connect(agent.grpc_address()).await;
    let stored = tokio::time::timeout(Duration::from_secs(30), client.stored(batch(0, &["x"], None))).await;
    assert_eq!(stored.expect("it is stored"), 0);
    while let Some(answered) = asking.join_next().await {
        answered.unwrap().unwrap();
    }
    agent.shutdown().await;
}
