//! What the fuzz targets do with an input: each reads bytes that anybody may have written, and must neither panic nor take
//! more than it may. `cargo xtask fuzz` runs them; the tests here run each on its seeds and their neighbours.
//!
//! A checksum stops nearly every mutation, and rightly so; but whoever writes bytes on purpose writes checksums that match.
//! The targets look at an input twice: as it is, and mended.

mod mend;
mod probe;
pub mod seeds;

pub use probe::{http, notes, page, web_config};

use bytes::Bytes;
use mend::{mend_batch, mend_segment};
use prost::Message;
use streamhouse_core::batch::{BatchHeader, RecordIter, with_base_offset};
use streamhouse_core::limits::{BATCH_DECOMPRESSED_BYTES_MAX, BATCH_RECORDS_MAX};
use streamhouse_core::{GroupId, MemberId, TopicName, TopicPartition};
use streamhouse_metadata::{GroupOffset, GroupView, OffsetCommit, PartitionInfo, SegmentRange};
use streamhouse_proto::convert::{self, Malformed};
use streamhouse_proto::v1::{self, ProduceRequest};
use streamhouse_storage::verify_segment;

/// What a target does with an input.
pub type Run = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: [(&str, Run); 8] = [
    ("batch", batch),
    ("segment", segment),
    ("produce", produce),
    ("metadata", metadata),
    ("notes", notes),
    ("page", page),
    ("web_config", web_config),
    ("http", http),
];

/// A record batch, as a producer sends it or a reader finds it.
pub fn batch(data: &[u8]) {
    read_batch(data);
    let mut mended = data.to_vec();
    mend_batch(&mut mended);
    read_batch(&mended);
}

/// Checks a batch and reads it to its end.
fn read_batch(batch: &[u8]) {
    // Parsing alone is for batches that were checked; a hostile one must do no harm all the same.
    let _ = BatchHeader::parse(batch);
    let Ok(header) = BatchHeader::check(batch) else { return };
    assert!(header.records > 0 && header.len == batch.len());
    let placed = with_base_offset(Bytes::copy_from_slice(batch), 1 << 40).concat();
    let there = BatchHeader::check(&placed).expect("a place does not change what is checked");
    assert_eq!((there.base_offset, there.records), (1 << 40, header.records));
    let Ok(records) = RecordIter::new(placed.into()) else { return };
    let (mut count, mut bytes) = (0, 0);
    for record in records.map_while(Result::ok) {
        count += 1;
        bytes += record.1.bytes();
        assert!(count <= BATCH_RECORDS_MAX, "more records than a batch may have");
        assert!(bytes <= BATCH_DECOMPRESSED_BYTES_MAX, "more bytes than a batch may unpack to");
    }
}

/// A whole segment, as anybody finds it in the object store.
pub fn segment(data: &[u8]) {
    read_segment(Bytes::copy_from_slice(data));
    let mut mended = data.to_vec();
    mend_segment(&mut mended);
    read_segment(mended.into());
}

fn read_segment(object: Bytes) {
    let Ok(summary) = verify_segment(&object) else { return };
    let records: u64 = summary.ranges.iter().map(|range| range.records).sum();
    assert_eq!(records, summary.records);
    let bytes: u64 = summary.ranges.iter().map(|range| range.bytes + u64::from(range.index_bytes)).sum();
    assert!(bytes < object.len() as u64, "ranges overlap, or there is no footer");
}

/// A produce request, decoded and checked as an agent does before it knows the partition.
pub fn produce(data: &[u8]) {
    let Ok(request) = ProduceRequest::decode(data) else { return };
    for part in request.batches {
        let _ = TopicName::new(&part.topic);
        batch(&part.batch);
    }
}

/// A message of the metadata service, read as each that has a shape of its own: requests as an agent reads them, answers as
/// a client does.
pub fn metadata(data: &[u8]) {
    let _ = read_commit(data);
    let _ = read_join(data);
    let _ = read_answers(data);
}

fn decode<M: Message + Default>(data: &[u8]) -> M {
    // What cannot be decoded is refused before anybody sees it.
    M::decode(data).unwrap_or_default()
}

fn read_commit(data: &[u8]) -> Result<(), Malformed> {
    let request: v1::CommitOffsetsRequest = decode(data);
    convert::name::<GroupId>(&request.group)?;
    for commit in convert::items::<_, OffsetCommit>(request.offsets, "offsets")? {
        // A name that was taken is taken again.
        let message = v1::OffsetCommit::from(&commit);
        assert_eq!(OffsetCommit::try_from(message).ok(), Some(commit));
    }
    Ok(())
}

fn read_join(data: &[u8]) -> Result<(), Malformed> {
    let request: v1::JoinGroupRequest = decode(data);
    convert::name::<MemberId>(&request.member)?;
    convert::names::<TopicName>(&request.topics, "topics")?;
    let wanted: v1::ClaimPartitionsRequest = decode(data);
    convert::items::<_, TopicPartition>(wanted.wanted, "partitions")?;
    Ok(())
}

fn read_answers(data: &[u8]) -> Result<(), Malformed> {
    let view: Result<GroupView, _> = decode::<v1::GroupView>(data).try_into();
    if let Ok(view) = view {
        assert_eq!(GroupView::try_from(v1::GroupView::from(view.clone())).ok(), Some(view));
    }
    convert::list::<_, PartitionInfo>(decode::<v1::ListPartitionsResponse>(data).partitions)?;
    convert::list::<_, SegmentRange>(decode::<v1::ListRangesResponse>(data).ranges)?;
    convert::list::<_, GroupOffset>(decode::<v1::GroupOffsets>(data).offsets)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamhouse_abi::Site;
    use streamhouse_abi::page::ARENA_OFFSET;
    use streamhouse_probe::pages::{parse_head, parse_slots};
    use streamhouse_probe::web::config::WebConfig;

    #[test]
    fn targets_accept_their_seeds() {
        for (name, bytes) in seeds::of("batch") {
            assert!(BatchHeader::check(&bytes).is_ok(), "{name}");
        }
        for (name, bytes) in seeds::of("segment") {
            assert!(verify_segment(&bytes.into()).is_ok(), "{name}");
        }
        for (name, bytes) in seeds::of("produce") {
            assert!(!ProduceRequest::decode(&bytes[..]).unwrap().batches.is_empty(), "{name}");
        }
        for (name, bytes) in seeds::of("notes") {
            let found = streamhouse_probe::sites::find(bytes.as_slice()).unwrap();
            assert!(found.len() == Site::ALL.len() && found.iter().all(|site| site.place.is_ok()), "{name}");
        }
        for (name, bytes) in seeds::of("page") {
            let head = parse_head(&bytes, 1 << 20).unwrap().unwrap();
            let slots = parse_slots(&bytes[ARENA_OFFSET..], head.used_bytes - ARENA_OFFSET);
            assert_eq!((slots.values.len(), slots.rejected), (1, 0), "{name}");
        }
        for (name, bytes) in seeds::of("web_config") {
            assert!(WebConfig::parse(&bytes).is_ok(), "{name}");
        }
    }

    #[test]
    fn mending_gets_behind_the_checksums() {
        for (name, bytes) in seeds::of("batch") {
            let mut damaged = bytes.clone();
            damaged[40] ^= 1;
            assert!(BatchHeader::check(&damaged).is_err(), "{name}");
            mend_batch(&mut damaged);
            assert!(BatchHeader::check(&damaged).is_ok(), "{name}");
        }
        for (name, bytes) in seeds::of("segment") {
            let mut damaged = bytes.clone();
            let end = damaged.len();
            // The segment's checksum of its footer.
            damaged[end - 10] ^= 1;
            assert!(verify_segment(&damaged.clone().into()).is_err(), "{name}");
            mend_segment(&mut damaged);
            assert_eq!(damaged, bytes, "{name}");
        }
    }

    #[test]
    fn neighbours_of_the_seeds_do_no_harm() {
        for (target, run) in TARGETS {
            for (_, seed) in seeds::of(target) {
                for at in 0..seed.len() {
                    run(&seed[..at]);
                    for bit in 0..8 {
                        let mut flipped = seed.clone();
                        flipped[at] ^= 1 << bit;
                        run(&flipped);
                    }
                }
            }
        }
    }
}
