//! What the databases hold, as the model has it: both have the same columns.

use crate::error::{MetadataError, Result};
use crate::model::*;
use std::time::Duration;
use streamhouse_core::{InvalidName, SegmentId, TopicName, TopicPartition};

fn corrupt(problem: impl std::fmt::Display) -> MetadataError {
    MetadataError::Corrupt(format!("{problem}; restore the metadata store from a backup"))
}

/// A number that was stored from a `u64` or smaller and must still be one.
pub(crate) fn unsigned<T: TryFrom<i64>>(stored: i64) -> Result<T> {
    T::try_from(stored).map_err(|_| corrupt(format_args!("the number {stored} is out of its range")))
}

/// A name that was valid when it was stored.
pub(crate) fn name<T: std::str::FromStr<Err = InvalidName>>(stored: &str) -> Result<T> {
    stored.parse().map_err(corrupt)
}

pub(crate) fn partition(topic: &str, partition: i64) -> Result<TopicPartition> {
    Ok(TopicPartition { topic: name::<TopicName>(topic)?, partition: unsigned(partition)? })
}

pub(crate) fn watermarks(log_start: i64, high_watermark: i64) -> Result<Watermarks> {
    Ok(Watermarks { log_start: unsigned(log_start)?, high_watermark: unsigned(high_watermark)? })
}

/// Name, partitions, retention in milliseconds and in bytes, time of creation.
pub(crate) type TopicRow = (String, i64, Option<i64>, Option<i64>, i64);

pub(crate) fn topic((topic, partitions, age_ms, bytes, created_ms): TopicRow) -> Result<Topic> {
    let age = age_ms.map(unsigned).transpose()?.map(Duration::from_millis);
    let retention = Retention { age, bytes: bytes.map(unsigned).transpose()? };
    Ok(Topic { name: name(&topic)?, partitions: unsigned(partitions)?, retention, created_ms })
}

/// Partition, log start, high watermark, lease epoch, and name and address of the holder of an unexpired lease.
pub(crate) type PartitionRow = (i64, i64, i64, i64, Option<String>, Option<String>);

pub(crate) fn partition_info(row: PartitionRow) -> Result<PartitionInfo> {
    let (partition, log_start, high_watermark, epoch, agent, address) = row;
    let holder = match agent.zip(address) {
        Some((agent, address)) => {
            Some(LeaseHolder { agent: name(&agent)?, address, epoch: unsigned(epoch)? })
        }
        None => None,
    };
    let watermarks = watermarks(log_start, high_watermark)?;
    Ok(PartitionInfo { partition: unsigned(partition)?, watermarks, holder })
}

/// Topic, partition, holder of an unexpired lease, epoch of the last lease.
pub(crate) type LeaseTableRow = (String, i64, Option<String>, i64);

pub(crate) fn lease_row((topic, number, holder, epoch): LeaseTableRow) -> Result<LeaseRow> {
    let holder = holder.map(|holder| name(&holder)).transpose()?;
    Ok(LeaseRow { partition: partition(&topic, number)?, holder, epoch: unsigned(epoch)? })
}

/// A producer's window as it is stored: `[[base_sequence, records, base_offset], ...]`, oldest first.
pub(crate) fn window(stored: &str) -> Result<Vec<SequencedBatch>> {
    let batches: Vec<(i32, u32, u64)> = serde_json::from_str(stored)
        .map_err(|error| corrupt(format_args!("a producer's window {stored:?}: {error}")))?;
    Ok(batches
        .into_iter()
        .map(|(base_sequence, records, base_offset)| SequencedBatch { base_sequence, records, base_offset })
        .collect())
}

/// The other direction of [`window`], for a list of JSON.
pub(crate) fn window_rows(producer: &ProducerState) -> Vec<(i32, u32, u64)> {
    producer.batches.iter().map(|batch| (batch.base_sequence, batch.records, batch.base_offset)).collect()
}

/// The same as JSON.
pub(crate) fn window_json(producer: &ProducerState) -> String {
    serde_json::to_string(&window_rows(producer)).expect("numbers are always JSON")
}

pub(crate) fn segment_id(stored: &[u8]) -> Result<SegmentId> {
    let bytes =
        stored.try_into().map_err(|_| corrupt(format_args!("a segment id of {} bytes", stored.len())))?;
    Ok(SegmentId(u128::from_be_bytes(bytes)))
}

pub(crate) fn id_bytes(id: SegmentId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

pub(crate) fn outcome(stands: bool) -> RangeOutcome {
    if stands { RangeOutcome::Committed } else { RangeOutcome::Fenced }
}

/// Segment, object, base and end offset, position and bytes of the batches, of the index, time of the commit.
pub(crate) type RangeRow = (Vec<u8>, String, i64, i64, i64, i64, i64, i64, i64);

pub(crate) fn segment_range(row: RangeRow) -> Result<SegmentRange> {
    let (id, object, base_offset, end_offset, position, bytes, index_position, index_bytes, committed_ms) =
        row;
    Ok(SegmentRange {
        segment: segment_id(&id)?,
        object,
        base_offset: unsigned(base_offset)?,
        end_offset: unsigned(end_offset)?,
        position: unsigned(position)?,
        bytes: unsigned(bytes)?,
        index_position: unsigned(index_position)?,
        index_bytes: unsigned(index_bytes)?,
        committed_ms,
    })
}

/// Log start and high watermark, committed offset, lag in milliseconds.
pub(crate) fn group_offset(
    partition: TopicPartition,
    (log_start, high_watermark): (i64, i64),
    committed: Option<i64>,
    lag_ms: Option<i64>,
) -> Result<GroupOffset> {
    let watermarks = watermarks(log_start, high_watermark)?;
    let committed: Option<u64> = committed.map(unsigned).transpose()?;
    let next = committed.unwrap_or(0).max(watermarks.log_start);
    Ok(GroupOffset {
        partition,
        committed,
        watermarks,
        lag_records: watermarks.high_watermark.saturating_sub(next),
        lag: Duration::from_millis(unsigned(lag_ms.unwrap_or(0))?),
    })
}

/// Name, partitions committed on, records of lag.
pub(crate) fn group((id, partitions, lag_records): (String, i64, i64)) -> Result<Group> {
    Ok(Group { id: name(&id)?, partitions: unsigned(partitions)?, lag_records: unsigned(lag_records)? })
}

/// Id, and the topics as a list of JSON.
pub(crate) fn member((id, topics): (String, String)) -> Result<Member> {
    let topics: Vec<String> = serde_json::from_str(&topics)
        .map_err(|error| corrupt(format_args!("a member's topics {topics:?}: {error}")))?;
    Ok(Member { id: name(&id)?, topics: topics.iter().map(|topic| name(topic)).collect::<Result<_>>()? })
}

/// A member's topics as they are stored: by name, each once.
pub(crate) fn member_topics(topics: &[TopicName]) -> String {
    let names: std::collections::BTreeSet<_> = topics.iter().map(TopicName::as_str).collect();
    serde_json::to_string(&names).expect("strings are always JSON")
}

/// Topic, partition, member, generation.
pub(crate) fn claim((topic, number, member, generation): (String, i64, String, i64)) -> Result<Claim> {
    let partition = partition(&topic, number)?;
    Ok(Claim { partition, member: name(&member)?, generation: unsigned(generation)? })
}

/// A duty's name in the database.
pub(crate) const fn duty(duty: Duty) -> &'static str {
    match duty {
        Duty::Upkeep => "upkeep",
    }
}
