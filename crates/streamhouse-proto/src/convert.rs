//! Messages of `Metadata` to and from the metadata store's types.
//!
//! What arrives may be anything, so that way is a `TryFrom`: names are parsed, what must be there is asked for. Lists of
//! requests are taken by [`items`], which bounds them; lists of answers by [`list`].

use crate::{status, v1};
use bytes::Bytes;
use std::str::FromStr;
use std::time::Duration;
use streamhouse_core::limits::METADATA_ITEMS_MAX;
use streamhouse_core::{ErrorKind, InvalidName, SegmentId, TopicPartition};
use streamhouse_metadata::{
    Claim, Claimed, Group, GroupOffset, GroupView, LeaseHolder, Member, MetadataError, OffsetCommit,
    PartitionInfo, Retention, SegmentRange, Topic, Watermarks,
};
use tonic::Status;

/// A message that means nothing.
///
/// An agent answers it as a status of kind `Invalid`. To a client, whose agent it came from, it is an error of kind
/// `Corrupt`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A name breaks the rules.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Something that must be there is not.
    #[error("a message has no {0}")]
    Missing(&'static str),
    /// A list is too long.
    #[error(
        "a request names {items} {what}, and may name {METADATA_ITEMS_MAX}; ask for them in several requests"
    )]
    TooMany {
        /// What it lists.
        what: &'static str,
        /// How many.
        items: usize,
    },
    /// A segment's id is not one.
    #[error("a segment's id has {0} bytes, not 16")]
    SegmentId(usize),
    /// A range with nothing in it, whose reader would not get on.
    #[error("a range ends at offset {end_offset}, not behind its base offset {base_offset}")]
    EmptyRange {
        /// Its first offset.
        base_offset: u64,
        /// One past its last.
        end_offset: u64,
    },
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Status {
        status::status(ErrorKind::Invalid, &malformed.to_string())
    }
}

impl From<Malformed> for MetadataError {
    fn from(malformed: Malformed) -> MetadataError {
        let message = format!(
            "the agent's answer means nothing: {malformed}; see that client and agent are of one version"
        );
        MetadataError::Remote { kind: ErrorKind::Corrupt, message }
    }
}

/// Parses a topic's, group's, member's or agent's name.
///
/// # Errors
///
/// `Name` when it breaks the rules.
pub fn name<T: FromStr<Err = InvalidName>>(name: &str) -> Result<T, Malformed> {
    Ok(name.parse()?)
}

/// What a message must have, by the name it has for people.
///
/// # Errors
///
/// `Missing` when it is not there, or breaks a rule of its own.
pub fn required<M, T: TryFrom<M, Error = Malformed>>(
    field: Option<M>,
    what: &'static str,
) -> Result<T, Malformed> {
    field.ok_or(Malformed::Missing(what))?.try_into()
}

/// A list of an answer.
///
/// # Errors
///
/// That of the first item that has one.
pub fn list<M, T: TryFrom<M, Error = Malformed>>(messages: Vec<M>) -> Result<Vec<T>, Malformed> {
    messages.into_iter().map(T::try_from).collect()
}

/// A list of a request, by the name that its items have for people.
///
/// # Errors
///
/// `TooMany`, or that of the first item that has one.
pub fn items<M, T: TryFrom<M, Error = Malformed>>(
    messages: Vec<M>,
    what: &'static str,
) -> Result<Vec<T>, Malformed> {
    bounded(&messages, what)?;
    list(messages)
}

/// Names of a request: as [`items`].
///
/// # Errors
///
/// `TooMany`, or `Name` for the first that breaks the rules.
pub fn names<T: FromStr<Err = InvalidName>>(
    names: &[String],
    what: &'static str,
) -> Result<Vec<T>, Malformed> {
    bounded(names, what)?;
    names.iter().map(|each| name(each)).collect()
}

fn bounded<M>(messages: &[M], what: &'static str) -> Result<(), Malformed> {
    match messages.len() {
        items if items > METADATA_ITEMS_MAX => Err(Malformed::TooMany { what, items }),
        _ => Ok(()),
    }
}

/// A list as messages.
pub fn messages<T, M: From<T>>(list: impl IntoIterator<Item = T>) -> Vec<M> {
    list.into_iter().map(M::from).collect()
}

/// Whole milliseconds: what is less than one is one, since zero has a meaning of its own.
pub fn milliseconds(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX)
}

impl From<&TopicPartition> for v1::TopicPartition {
    fn from(partition: &TopicPartition) -> v1::TopicPartition {
        v1::TopicPartition { topic: partition.topic.to_string(), partition: partition.partition }
    }
}

impl TryFrom<v1::TopicPartition> for TopicPartition {
    type Error = Malformed;

    fn try_from(message: v1::TopicPartition) -> Result<TopicPartition, Malformed> {
        Ok(TopicPartition { topic: name(&message.topic)?, partition: message.partition })
    }
}

impl From<Retention> for v1::Retention {
    fn from(retention: Retention) -> v1::Retention {
        v1::Retention { age_ms: retention.age.map(milliseconds), bytes: retention.bytes }
    }
}

impl From<v1::Retention> for Retention {
    fn from(message: v1::Retention) -> Retention {
        Retention { age: message.age_ms.map(Duration::from_millis), bytes: message.bytes }
    }
}

impl From<Topic> for v1::Topic {
    fn from(topic: Topic) -> v1::Topic {
        v1::Topic {
            name: topic.name.to_string(),
            partitions: topic.partitions,
            retention: Some(topic.retention.into()),
            created_ms: topic.created_ms,
        }
    }
}

impl TryFrom<v1::Topic> for Topic {
    type Error = Malformed;

    fn try_from(message: v1::Topic) -> Result<Topic, Malformed> {
        Ok(Topic {
            name: name(&message.name)?,
            partitions: message.partitions,
            retention: message.retention.unwrap_or_default().into(),
            created_ms: message.created_ms,
        })
    }
}

impl From<Watermarks> for v1::Watermarks {
    fn from(Watermarks { log_start, high_watermark }: Watermarks) -> v1::Watermarks {
        v1::Watermarks { log_start, high_watermark }
    }
}

impl TryFrom<v1::Watermarks> for Watermarks {
    type Error = Malformed;

    fn try_from(message: v1::Watermarks) -> Result<Watermarks, Malformed> {
        let v1::Watermarks { log_start, high_watermark } = message;
        Ok(Watermarks { log_start, high_watermark })
    }
}

impl From<PartitionInfo> for v1::PartitionInfo {
    fn from(info: PartitionInfo) -> v1::PartitionInfo {
        let holder = |LeaseHolder { agent, address, epoch }| v1::LeaseHolder {
            agent: agent.to_string(),
            address,
            epoch,
        };
        v1::PartitionInfo {
            partition: info.partition,
            watermarks: Some(info.watermarks.into()),
            holder: info.holder.map(holder),
        }
    }
}

impl TryFrom<v1::PartitionInfo> for PartitionInfo {
    type Error = Malformed;

    fn try_from(message: v1::PartitionInfo) -> Result<PartitionInfo, Malformed> {
        let holder = |v1::LeaseHolder { agent, address, epoch }| {
            name(&agent).map(|agent| LeaseHolder { agent, address, epoch })
        };
        Ok(PartitionInfo {
            partition: message.partition,
            watermarks: required(message.watermarks, "watermarks")?,
            holder: message.holder.map(holder).transpose()?,
        })
    }
}

impl From<SegmentRange> for v1::SegmentRange {
    fn from(range: SegmentRange) -> v1::SegmentRange {
        v1::SegmentRange {
            segment: Bytes::copy_from_slice(&range.segment.0.to_be_bytes()),
            object: range.object,
            base_offset: range.base_offset,
            end_offset: range.end_offset,
            position: range.position,
            bytes: range.bytes,
            index_position: range.index_position,
            index_bytes: range.index_bytes,
            committed_ms: range.committed_ms,
        }
    }
}

impl TryFrom<v1::SegmentRange> for SegmentRange {
    type Error = Malformed;

    fn try_from(message: v1::SegmentRange) -> Result<SegmentRange, Malformed> {
        let v1::SegmentRange { base_offset, end_offset, .. } = message;
        if end_offset <= base_offset {
            return Err(Malformed::EmptyRange { base_offset, end_offset });
        }
        let id = message.segment[..].try_into().map_err(|_| Malformed::SegmentId(message.segment.len()))?;
        Ok(SegmentRange {
            segment: SegmentId(u128::from_be_bytes(id)),
            object: message.object,
            base_offset,
            end_offset,
            position: message.position,
            bytes: message.bytes,
            index_position: message.index_position,
            index_bytes: message.index_bytes,
            committed_ms: message.committed_ms,
        })
    }
}

impl From<&OffsetCommit> for v1::OffsetCommit {
    fn from(commit: &OffsetCommit) -> v1::OffsetCommit {
        v1::OffsetCommit {
            partition: Some((&commit.partition).into()),
            offset: commit.offset,
            generation: commit.generation,
        }
    }
}

impl TryFrom<v1::OffsetCommit> for OffsetCommit {
    type Error = Malformed;

    fn try_from(message: v1::OffsetCommit) -> Result<OffsetCommit, Malformed> {
        let v1::OffsetCommit { partition, offset, generation } = message;
        Ok(OffsetCommit { partition: required(partition, "partition")?, offset, generation })
    }
}

impl From<GroupOffset> for v1::GroupOffset {
    fn from(offset: GroupOffset) -> v1::GroupOffset {
        v1::GroupOffset {
            partition: Some((&offset.partition).into()),
            committed: offset.committed,
            watermarks: Some(offset.watermarks.into()),
            lag_records: offset.lag_records,
            lag_ms: milliseconds(offset.lag),
        }
    }
}

impl TryFrom<v1::GroupOffset> for GroupOffset {
    type Error = Malformed;

    fn try_from(message: v1::GroupOffset) -> Result<GroupOffset, Malformed> {
        Ok(GroupOffset {
            partition: required(message.partition, "partition")?,
            committed: message.committed,
            watermarks: required(message.watermarks, "watermarks")?,
            lag_records: message.lag_records,
            lag: Duration::from_millis(message.lag_ms),
        })
    }
}

impl From<Group> for v1::Group {
    fn from(group: Group) -> v1::Group {
        v1::Group { id: group.id.to_string(), partitions: group.partitions, lag_records: group.lag_records }
    }
}

impl TryFrom<v1::Group> for Group {
    type Error = Malformed;

    fn try_from(message: v1::Group) -> Result<Group, Malformed> {
        let v1::Group { id, partitions, lag_records } = message;
        Ok(Group { id: name(&id)?, partitions, lag_records })
    }
}

impl From<GroupView> for v1::GroupView {
    fn from(view: GroupView) -> v1::GroupView {
        let member = |Member { id, topics }| v1::Member {
            id: id.to_string(),
            topics: topics.iter().map(ToString::to_string).collect(),
        };
        let claim = |Claim { partition, member, generation }| v1::Claim {
            partition: Some((&partition).into()),
            member: member.to_string(),
            generation,
        };
        v1::GroupView {
            generation: view.generation,
            members: view.members.into_iter().map(member).collect(),
            claims: view.claims.into_iter().map(claim).collect(),
        }
    }
}

impl TryFrom<v1::GroupView> for GroupView {
    type Error = Malformed;

    fn try_from(message: v1::GroupView) -> Result<GroupView, Malformed> {
        let member = |v1::Member { id, topics }| {
            Ok(Member {
                id: name(&id)?,
                topics: topics.iter().map(|topic| name(topic)).collect::<Result<_, _>>()?,
            })
        };
        let claim = |v1::Claim { partition, member, generation }| {
            Ok(Claim { partition: required(partition, "partition")?, member: name(&member)?, generation })
        };
        Ok(GroupView {
            generation: message.generation,
            members: message.members.into_iter().map(member).collect::<Result<_, Malformed>>()?,
            claims: message.claims.into_iter().map(claim).collect::<Result<_, Malformed>>()?,
        })
    }
}

impl From<Claimed> for v1::Claimed {
    fn from(Claimed { offset, generation }: Claimed) -> v1::Claimed {
        v1::Claimed { offset: Some(offset.into()), generation }
    }
}

impl TryFrom<v1::Claimed> for Claimed {
    type Error = Malformed;

    fn try_from(message: v1::Claimed) -> Result<Claimed, Malformed> {
        let v1::Claimed { offset, generation } = message;
        Ok(Claimed { offset: required(offset, "offset")?, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> v1::SegmentRange {
        let segment = SegmentId(0x0102 << 112);
        SegmentRange {
            segment,
            object: "segments/1".into(),
            base_offset: 5,
            end_offset: 9,
            position: 1,
            bytes: 2,
            index_position: 3,
            index_bytes: 4,
            committed_ms: -1,
        }
        .into()
    }

    #[test]
    fn a_range_comes_back_as_it_was() {
        let message = range();
        assert_eq!(message.segment[..3], [1, 2, 0]);
        let back = SegmentRange::try_from(message.clone()).unwrap();
        assert_eq!(back.segment, SegmentId(0x0102 << 112));
        assert_eq!(v1::SegmentRange::from(back), message);
    }

    #[test]
    fn what_means_nothing_is_told_from_what_does() {
        let mut short = range();
        short.segment.truncate(15);
        assert_eq!(SegmentRange::try_from(short), Err(Malformed::SegmentId(15)));
        let empty = v1::SegmentRange { end_offset: 5, ..range() };
        assert!(matches!(SegmentRange::try_from(empty), Err(Malformed::EmptyRange { .. })));
        let missing = GroupOffset::try_from(v1::GroupOffset::default());
        assert_eq!(missing, Err(Malformed::Missing("partition")));
        let named = TopicPartition::try_from(v1::TopicPartition { topic: "a b".into(), partition: 0 });
        assert!(matches!(named, Err(Malformed::Name(_))));
        let error = MetadataError::from(Malformed::Missing("partition"));
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(status::store_kind(&Malformed::Missing("x").into()), Some(ErrorKind::Invalid));
    }

    #[test]
    fn lists_of_requests_are_bounded_and_those_of_answers_are_not() {
        let topic = v1::TopicPartition { topic: "orders".into(), partition: 0 };
        let list_of = |items| vec![topic.clone(); items];
        let most: Vec<TopicPartition> = items(list_of(METADATA_ITEMS_MAX), "partitions").unwrap();
        assert_eq!(most.len(), METADATA_ITEMS_MAX);
        let more: Result<Vec<TopicPartition>, _> = items(list_of(METADATA_ITEMS_MAX + 1), "partitions");
        assert!(more.unwrap_err().to_string().contains("10001 partitions"));
        assert!(list::<_, TopicPartition>(list_of(METADATA_ITEMS_MAX + 1)).is_ok());
    }

    #[test]
    fn less_than_a_millisecond_is_one() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
    }
}
