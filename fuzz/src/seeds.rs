//! Valid inputs, for a fuzzer to begin with.

use bytes::Bytes;
use prost::Message;
use streamhouse_core::batch::{BatchBuilder, Compression, ProducerStamp};
use streamhouse_core::{Header, SegmentId, TopicName, TopicPartition};
use streamhouse_proto::v1::{ProduceBatch, ProduceRequest};
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
    let batch = ProduceBatch { topic: "orders".into(), partition: 3, batch, record_bytes: 100 };
    ProduceRequest { batches: vec![batch; 2] }.encode_to_vec()
}
