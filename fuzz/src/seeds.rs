//! Valid inputs, for a fuzzer to begin with.

mod probe;

use bytes::Bytes;
use prost::Message;
use streamhouse_core::batch::{BatchBuilder, Compression, ProducerStamp};
use streamhouse_core::{Header, SegmentId, TopicName, TopicPartition};
use streamhouse_proto::v1::{self, ProduceBatch, ProduceRequest};
use streamhouse_storage::SegmentBuilder;

const STAMP: ProducerStamp = ProducerStamp { producer_id: 7, epoch: 1, base_sequence: 42 };

/// A target's seeds, each with a name.
///
/// # Panics
///
/// When there is no such target.
pub fn of(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    let make: fn(Bytes) -> Vec<u8> = match target {
        "batch" => Vec::from,
        "segment" => segment,
        "produce" => produce,
        "metadata" => return metadata(),
        "notes" => return vec![("sites", probe::executable())],
        "page" => return vec![("consumer", probe::page())],
        "web_config" => return probe::web_configs(),
        "http" => return probe::requests(),
        other => panic!("there is no target {other}"),
    };
    batches().map(|(name, batch)| (name, make(batch))).into()
}

fn batches() -> [(&'static str, Bytes); 4] {
    [
        ("plain", batch(Compression::None, None)),
        ("stamped", batch(Compression::None, Some(STAMP))),
        ("lz4", batch(Compression::Lz4, Some(STAMP))),
        ("zstd", batch(Compression::Zstd, None)),
    ]
}

fn batch(compression: Compression, stamp: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    let headers = [Header { name: "trace".into(), value: Bytes::from_static(b"abc") }];
    for (key, value) in [(None, "first"), (Some(&b"key"[..]), "second"), (None, "")] {
        builder.push(1_700_000_000_000, key, value.as_bytes(), &headers).expect("small records fit");
    }
    builder.finish(stamp)
}

fn segment(batch: Bytes) -> Vec<u8> {
    let topic = TopicName::new("orders").expect("a valid name");
    let mut builder = SegmentBuilder::new();
    for partition in 0..2 {
        let partition = TopicPartition { topic: topic.clone(), partition };
        builder.add(partition, 100, vec![batch.clone(); 2]).expect("whole batches are taken");
    }
    let segment = builder.finish(SegmentId(0x5eed));
    segment.payload.iter().flatten().copied().collect()
}

fn produce(batch: Bytes) -> Vec<u8> {
    let batch = ProduceBatch {
        topic: "orders".into(),
        partition: 3,
        batch,
        record_bytes: 100,
        traceparent: String::new(),
    };
    ProduceRequest { batches: vec![batch; 2] }.encode_to_vec()
}

fn metadata() -> Vec<(&'static str, Vec<u8>)> {
    let partition = v1::TopicPartition { topic: "orders".into(), partition: 3 };
    let commit = v1::OffsetCommit { partition: Some(partition.clone()), offset: 12, generation: 2 };
    let member = v1::Member { id: "reader-0123456789abcdef".into(), topics: vec!["orders".into()] };
    let claim = v1::Claim { partition: Some(partition.clone()), member: member.id.clone(), generation: 2 };
    let watermarks = v1::Watermarks { log_start: 1, high_watermark: 20 };
    let offset = v1::GroupOffset {
        partition: Some(partition.clone()),
        committed: Some(12),
        watermarks: Some(watermarks),
        lag_records: 8,
        lag_ms: 900,
    };
    let range = v1::SegmentRange {
        segment: Bytes::from(vec![7; 16]),
        object: "segments/07.seg".into(),
        base_offset: 1,
        end_offset: 20,
        bytes: 100,
        index_position: 100,
        index_bytes: 84,
        ..v1::SegmentRange::default()
    };
    let group = String::from("billing");
    let join = v1::JoinGroupRequest {
        group: group.clone(),
        member: member.id.clone(),
        topics: member.topics.clone(),
        session_ms: 10_000,
    };
    let claims = v1::ClaimPartitionsRequest {
        group: group.clone(),
        member: member.id.clone(),
        wanted: vec![partition],
    };
    vec![
        (
            "commit",
            v1::CommitOffsetsRequest { group, member: member.id.clone(), offsets: vec![commit] }
                .encode_to_vec(),
        ),
        ("join", join.encode_to_vec()),
        ("claims", claims.encode_to_vec()),
        ("view", v1::GroupView { generation: 2, members: vec![member], claims: vec![claim] }.encode_to_vec()),
        ("offsets", v1::GroupOffsets { offsets: vec![offset] }.encode_to_vec()),
        ("ranges", v1::ListRangesResponse { ranges: vec![range] }.encode_to_vec()),
    ]
}
