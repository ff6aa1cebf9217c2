//! Arguments that no store takes, and what is said of them.

use crate::error::{MetadataError, Result};
use crate::model::{Flush, OffsetCommit, Retention};
use crate::stored::unsigned;
use std::collections::HashSet;
use std::time::Duration;
use streamhouse_core::limits::{IDEMPOTENCE_WINDOW, PARTITIONS_MAX};
use streamhouse_core::{AgentId, AsTyped, GroupId, MemberId, TopicName, TopicPartition};

/// Longest lease, session or duty.
const TERM_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the duplicate check remembers a producer that writes nothing. It can only forget when a partition changes
/// hands, so that no agent has a window the store has not.
pub(crate) const PRODUCER_SILENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A number for an SQL parameter, or `Invalid`: SQL integers are signed.
pub(crate) fn signed(what: &str, number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| {
        MetadataError::Invalid(format!("{what} {number} is too large; the maximum is {}", i64::MAX))
    })
}

/// A time in milliseconds; what is longer than the database can count is as long as it can.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A term in milliseconds, or `Invalid`.
pub(crate) fn term_ms(what: &str, term: Duration) -> Result<i64> {
    if term < Duration::from_millis(1) || term > TERM_MAX {
        return Err(MetadataError::Invalid(format!(
            "a {what} of {} is out of range; choose one from 1 ms to 1 day",
            AsTyped(term)
        )));
    }
    Ok(millis(term))
}

pub(crate) fn partition_count(topic: &TopicName, partitions: u32) -> Result<()> {
    if partitions == 0 || partitions > PARTITIONS_MAX {
        return Err(MetadataError::Invalid(format!(
            "topic {topic} cannot have {partitions} partitions; choose 1 to {PARTITIONS_MAX}"
        )));
    }
    Ok(())
}

/// A retention as it is stored: milliseconds and bytes.
pub(crate) fn retention(retention: Retention) -> Result<(Option<i64>, Option<i64>)> {
    let none = "give none to keep them for ever";
    if retention.age.is_some_and(|age| age < Duration::from_millis(1)) {
        return Err(MetadataError::Invalid(format!(
            "records cannot be kept for less than a millisecond; {none}"
        )));
    }
    if retention.bytes == Some(0) {
        return Err(MetadataError::Invalid(format!("records cannot be kept in 0 bytes; {none}")));
    }
    let bytes = retention.bytes.map(|bytes| signed("a retention of bytes", bytes)).transpose()?;
    let age = retention.age.map(|age| age.as_millis().try_into().unwrap_or(u64::MAX));
    Ok((age.map(|age| signed("a retention of milliseconds", age)).transpose()?, bytes))
}

/// An offset to commit, as it is stored.
pub(crate) fn committed(at: &TopicPartition, offset: u64, high_watermark: i64) -> Result<i64> {
    let committed = signed("an offset of", offset)?;
    if committed > high_watermark {
        return Err(MetadataError::Invalid(format!(
            "offset {offset} of {at} is above the high watermark {high_watermark}; commit an offset up to it"
        )));
    }
    Ok(committed)
}

/// Whether a group with so many living members may be removed.
pub(crate) fn no_members(group: &GroupId, members: i64) -> Result<()> {
    match unsigned(members)? {
        0 => Ok(()),
        members => Err(MetadataError::GroupInUse { group: group.to_string(), members }),
    }
}

/// Whether the commit may change its partition, which this member has claimed in this generation, if any has.
pub(crate) fn claim(
    group: &GroupId,
    member: Option<&MemberId>,
    commit: &OffsetCommit,
    claim: Option<(String, i64)>,
) -> Result<()> {
    let at = &commit.partition;
    match (member, claim) {
        (None, None) => Ok(()),
        (None, Some((member, _))) => {
            let (group, partition) = (group.to_string(), at.to_string());
            Err(MetadataError::Claimed { group, partition, member })
        }
        (Some(member), Some((holder, generation)))
            if holder == member.as_str() && u64::try_from(generation) == Ok(commit.generation) =>
        {
            Ok(())
        }
        (Some(member), _) => {
            let reason = format!("it has no claim on {at} in generation {}", commit.generation);
            Err(fenced(group, member, reason))
        }
    }
}

/// For a member that is not in the group, or not any more.
pub(crate) fn not_a_member(group: &GroupId, member: &MemberId) -> MetadataError {
    fenced(group, member, "it is not in the group, or its session is over".to_owned())
}

fn fenced(group: &GroupId, member: &MemberId, reason: String) -> MetadataError {
    MetadataError::MemberFenced { group: group.to_string(), member: member.to_string(), reason }
}

/// For an agent that calls before it registered, or after it was forgotten.
pub(crate) fn not_registered(agent: &AgentId) -> MetadataError {
    MetadataError::Invalid(format!("agent {agent} is not registered; register it, then try again"))
}

/// Why a partition was not found: `partitions` is what its topic has, `None` without a topic.
pub(crate) fn not_found(at: &TopicPartition, partitions: Option<u32>) -> MetadataError {
    match partitions {
        None => MetadataError::TopicNotFound(at.topic.to_string()),
        Some(partitions) => MetadataError::PartitionNotFound {
            topic: at.topic.to_string(),
            partition: at.partition,
            partitions,
        },
    }
}

/// What no flush may have, whoever holds the leases.
pub(crate) fn flush(flush: &Flush) -> Result<()> {
    let invalid =
        |problem: String| Err(MetadataError::Invalid(format!("segment {}: {problem}", flush.segment)));
    if flush.ranges.is_empty() {
        return invalid("a flush has at least one partition".into());
    }
    signed("an object size of", flush.object_bytes)?;
    let mut partitions = HashSet::with_capacity(flush.ranges.len());
    for range in &flush.ranges {
        let at = &range.partition;
        if !partitions.insert(at) {
            return invalid(format!("{at} is in it twice"));
        }
        if range.records == 0 {
            return invalid(format!("{at} has no records"));
        }
        signed("an offset of", range.base_offset.saturating_add(range.records))?;
        signed("an epoch of", range.epoch)?;
        signed("a position of", range.position.saturating_add(range.bytes))?;
        signed("a position of", range.index_position)?;
        let mut producers = HashSet::with_capacity(range.producers.len());
        for producer in &range.producers {
            if !producers.insert((producer.producer_id, producer.epoch)) {
                return invalid(format!("producer {} is twice in {at}", producer.producer_id));
            }
            signed("a producer id of", producer.producer_id)?;
            if producer.batches.len() > IDEMPOTENCE_WINDOW {
                return invalid(format!(
                    "producer {} has more than {IDEMPOTENCE_WINDOW} batches",
                    producer.producer_id
                ));
            }
        }
    }
    Ok(())
}
