//! Segments with known records.

use bytes::Bytes;
use streamhouse_core::{
    SegmentId, TopicName, TopicPartition,
    batch::{BatchBuilder, Compression},
};
use streamhouse_hooks::{Instance, Role};
use streamhouse_storage::{Segment, SegmentBuilder};

/// Who the stores' operations are told of.
pub(crate) fn instance() -> Instance {
    Instance::new(Role::Agent, "test", "")
}

pub(crate) fn partition(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicName::new("orders").unwrap(), partition }
}

/// Batches of one record each that say where they belong, and differ from place to place.
fn batches(count: u64, value_bytes: usize) -> Vec<Bytes> {
    let batch = |offset: u64| {
        let mut value = format!("value {offset} ").into_bytes();
        value.extend((value.len()..value_bytes).map(|at| (at as u64 * 31 + offset * 17) as u8));
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(offset as i64, None, &value, &[]).unwrap();
        builder.finish(None)
    };
    (0..count).map(batch).collect()
}

/// A segment with batches of so many bytes in each of some partitions.
pub(crate) fn segment(id: u128, partitions: u32, batches_each: u64, value_bytes: usize) -> Segment {
    let mut builder = SegmentBuilder::new();
    for number in 0..partitions {
        builder.add(partition(number), 0, batches(batches_each, value_bytes)).unwrap();
    }
    builder.finish(SegmentId(id))
}

/// A segment's bytes.
pub(crate) fn bytes_of(segment: &Segment) -> Bytes {
    segment.payload.clone().into()
}
