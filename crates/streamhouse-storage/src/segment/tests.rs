use super::*;
use crate::{
    StorageError,
    testing::{batches, object_of, partition, segment},
};
use bytes::Bytes;
use streamhouse_core::{ErrorKind, batch::BatchHeader, limits::SEGMENT_BYTES_MAX};

fn three_partitions() -> Segment {
    let mut builder = SegmentBuilder::new();
    builder.add(partition("orders", 0), 100, batches(100, &[2, 1, 3], 0)).unwrap();
    builder.add(partition("orders", 1), 0, batches(0, &[1], 0)).unwrap();
    builder.add(partition("a-topic", 7), 1 << 50, batches(1 << 50, &[2, 2], 0)).unwrap();
    builder.finish(SegmentId(0xfeed))
}

#[test]
fn a_segment_describes_itself() {
    let segment = three_partitions();
    let object = object_of(&segment);
    assert_eq!(object.len() as u64, segment.bytes);
    assert_eq!(segment.object, "segments/0000000000000000000000000000feed.seg");
    let summary = verify_segment(&object).unwrap();
    assert_eq!(summary.ranges, segment.ranges);
    assert_eq!((summary.id, summary.batches, summary.records), (segment.id, 6, 11));

    let [first, second, third] = &segment.ranges[..] else { panic!("three ranges") };
    assert_eq!((first.base_offset, first.records, first.position), (100, 6, 0));
    assert_eq!((second.base_offset, second.records, second.position), (0, 1, first.bytes));
    assert_eq!((third.base_offset, third.records, third.position), (1 << 50, 4, first.bytes + second.bytes));
}

#[test]
fn batches_get_dense_offsets_and_are_not_copied() {
    let given = batches(0, &[2, 5], 0);
    let addresses: Vec<_> = given.iter().map(|batch| batch[8..].as_ptr()).collect();
    let mut builder = SegmentBuilder::new();
    builder.add(partition("t", 0), 40, given).unwrap();
    let chunks: Vec<Bytes> = builder.finish(SegmentId(1)).payload.into_iter().collect();
    assert_eq!([chunks[1].as_ptr(), chunks[3].as_ptr()], addresses[..]);
    let offset = |head: &Bytes, rest: &Bytes| {
        let batch = [&head[..], &rest[..]].concat();
        BatchHeader::check(&batch).unwrap().base_offset
    };
    assert_eq!([offset(&chunks[0], &chunks[1]), offset(&chunks[2], &chunks[3])], [40, 42]);
}

#[test]
fn what_cannot_be_added_leaves_the_builder_as_it_was() {
    let mut builder = SegmentBuilder::new();
    builder.add(partition("t", 0), 0, batches(0, &[1], 0)).unwrap();
    let bytes = builder.bytes();
    let mut refused = |number, batches| {
        let error = builder.add(partition("t", number), 0, batches).unwrap_err();
        assert_eq!(builder.bytes(), bytes);
        (error.kind(), error.to_string())
    };
    let (kind, message) = refused(1, Vec::new());
    assert!(kind == ErrorKind::Invalid && message.contains("no batch"), "{message}");
    let (kind, message) = refused(0, batches(0, &[1], 0));
    assert!(kind == ErrorKind::Invalid && message.contains("already"), "{message}");
    let good = batches(0, &[1], 0).remove(0);
    let (kind, message) = refused(1, vec![good.clone(), good.slice(..good.len() - 1)]);
    assert!(kind == ErrorKind::Corrupt && message.contains("was cut"), "{message}");
    let large = Bytes::from(vec![0; SEGMENT_BYTES_MAX]);
    let (kind, message) = refused(1, vec![large]);
    assert!(kind == ErrorKind::Invalid && message.contains("larger"), "{message}");

    builder.add(partition("t", 1), 0, vec![good]).unwrap();
    assert_eq!(verify_segment(&object_of(&builder.finish(SegmentId(1)))).unwrap().ranges.len(), 2);
}

#[test]
fn every_cut_is_found() {
    let object = object_of(&three_partitions());
    for len in 0..object.len() {
        let error = verify_segment(&object.slice(..len)).expect_err("a cut segment");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    let longer = Bytes::from([&object[..], &[0]].concat());
    assert!(verify_segment(&longer).is_err());
    let before = Bytes::from([&[0], &object[..]].concat());
    assert!(verify_segment(&before).is_err());
}

/// Invariant 6: every bit of a segment is covered.
#[test]
fn every_flipped_bit_is_found() {
    let object = object_of(&three_partitions());
    for bit in 0..object.len() * 8 {
        let mut flipped = object.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = verify_segment(&flipped.into()).expect_err("a damaged segment");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}");
    }
}

#[test]
fn exchanged_batches_are_found() {
    // Two batches of one length, each right by itself.
    let object = object_of(&segment(1, &partition("t", 0), 1, &[1, 1], 0));
    let summary = verify_segment(&object).unwrap();
    let half = summary.ranges[0].bytes as usize / 2;
    let exchanged = Bytes::from([&object[half..2 * half], &object[..half], &object[2 * half..]].concat());
    let message = verify_segment(&exchanged).unwrap_err().to_string();
    assert!(message.contains("not the one that its index lists"), "{message}");
}

#[test]
fn another_version_is_refused_as_such() {
    let object = object_of(&three_partitions());
    let mut newer = object.to_vec();
    let version = object.len() - 14;
    newer[version + 1] = 2;
    let directory_bytes = u32::from_be_bytes(newer[version - 8..version - 4].try_into().unwrap()) as usize;
    let footer = object.len() - 46 - directory_bytes;
    let checksum = crc32c::crc32c(&newer[footer..version + 2]);
    newer[version + 2..version + 6].copy_from_slice(&checksum.to_be_bytes());
    let error = verify_segment(&newer.into()).unwrap_err();
    assert!(matches!(error, StorageError::Segment { segment: None, .. }));
    assert!(error.to_string().contains("version 2; this build reads version 1"), "{error}");
}

#[test]
fn keys_name_segments() {
    let id = SegmentId(u128::MAX);
    assert_eq!(segment_of(&object_key(id)), Some(id));
    for other in
        ["", "segments/", "segments/x.seg", "other/00000000000000000000000000000001.seg", "segments/1.seg"]
    {
        assert_eq!(segment_of(other), None, "{other}");
    }
}

#[test]
fn an_index_finds_each_offset() {
    let mut index = Index::new(1000, 50);
    for (records, bytes) in [(3, 100), (1, 70), (500, 9000)] {
        index.push(records, bytes, 0);
    }
    for (offset, number) in [(1000, 0), (1002, 0), (1003, 1), (1004, 2), (1503, 2)] {
        assert_eq!(index.find(offset), number, "{offset}");
    }
    // The end of what fits, of the first batch at least.
    for (first, limit, end) in [
        (0, 0, 150),
        (0, 150, 150),
        (0, 219, 150),
        (0, 220, 220),
        (0, 9219, 220),
        (0, 9220, 9220),
        (2, 60, 9220),
    ] {
        assert_eq!(index.batches_end(first, limit), end, "{first} {limit}");
    }
}
