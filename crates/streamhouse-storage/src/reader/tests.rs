use super::{range::RangeReader, *};
use crate::{
    Segment, SegmentBuilder, StorageError,
    testing::{Watched, batches, location, object_of, partition, record_at, segment},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use proptest::prelude::*;
use std::{ops::Range, sync::Arc};
use streamhouse_core::{ErrorKind, batch::BatchHeader};

/// Large batches, as a busy producer makes them: 120 KiB each, uncompressed.
const LARGE_BATCH_RECORDS: u32 = 120;
const LARGE_VALUE_BYTES: usize = 1000;

fn orders() -> TopicPartition {
    partition("orders", 3)
}

async fn put(objects: &Arc<Watched>, segments: &[Segment]) -> Vec<RangeLocation> {
    let mut ranges = Vec::new();
    for segment in segments {
        objects.store().put(segment).await.unwrap();
        ranges.extend(segment.ranges.iter().map(|range| location(segment, range)));
    }
    ranges
}

/// A range of 64 batches, about 7.5 MiB, that compression does not touch.
async fn large(objects: &Arc<Watched>) -> RangeLocation {
    let mut builder = SegmentBuilder::new();
    let mut given = Vec::new();
    for number in 0..64 {
        let mut batch = streamhouse_core::batch::BatchBuilder::new(Default::default());
        for record in 0..LARGE_BATCH_RECORDS {
            let offset = u64::from(number * LARGE_BATCH_RECORDS + record);
            let Record { timestamp_ms, key, value, .. } = record_at(offset, LARGE_VALUE_BYTES);
            batch.push(timestamp_ms, key.as_deref(), &value, &[]).unwrap();
        }
        given.push(batch.finish(None));
    }
    builder.add(partition("other", 0), 0, batches(0, &[7], 100)).unwrap();
    builder.add(orders(), 0, given).unwrap();
    let segment = builder.finish(SegmentId(77));
    put(objects, &[segment]).await.remove(1)
}

async fn read_all(reader: &mut PartitionReader, max_records: usize) -> Result<Vec<(u64, Record)>> {
    let mut read = Vec::new();
    while !reader.is_at_end() {
        let before = read.len();
        let taken =
            reader.read(max_records, usize::MAX, |offset, record| read.push((offset, record))).await?;
        assert_eq!(taken.records as usize, read.len() - before);
        assert!((1..=max_records).contains(&(taken.records as usize)));
    }
    Ok(read)
}

fn expected(offsets: Range<u64>, value_bytes: usize) -> Vec<(u64, Record)> {
    offsets.map(|offset| (offset, record_at(offset, value_bytes))).collect()
}

fn bytes_of(gets: &[Range<u64>]) -> u64 {
    gets.iter().map(|get| get.end - get.start).sum()
}

#[tokio::test]
async fn every_offset_reads_on_across_batches_and_segments() {
    let objects = Arc::new(Watched::default());
    let segments = [segment(1, &orders(), 10, &[3, 1, 4], 0), segment(2, &orders(), 18, &[2, 5], 0)];
    let ranges = put(&objects, &segments).await;
    for start in 10..=25_u64 {
        for max_records in [1, 2, 3, 100] {
            let mut reader = PartitionReader::new(objects.store(), orders());
            let mut read = Vec::new();
            for range in ranges.iter().filter(|range| range.end_offset >= start) {
                reader.open(range.clone(), start.max(range.base_offset)).unwrap();
                read.extend(read_all(&mut reader, max_records).await.unwrap());
            }
            assert_eq!(read, expected(start..25, 0), "from {start}, {max_records} at a time");
            assert_eq!(reader.offset(), Some(25));
        }
    }
}

#[tokio::test]
async fn a_read_stops_at_what_was_asked_for() {
    let objects = Arc::new(Watched::default());
    let range = put(&objects, &[segment(1, &orders(), 0, &[10, 10], 0)]).await.remove(0);
    let mut reader = PartitionReader::new(objects.store(), orders());
    assert!(reader.is_at_end() && reader.offset().is_none());
    reader.open(range, 5).unwrap();
    let mut sizes = Vec::new();
    assert_eq!(reader.read(0, 1000, |_, _| panic!("none asked for")).await.unwrap(), Taken::default());
    let taken = reader.read(100, 25, |_, record| sizes.push(record.bytes() as u64)).await.unwrap();
    assert_eq!((taken.records, taken.bytes), (sizes.len() as u64, sizes.iter().sum()));
    // The record that reaches the limit is the last.
    assert!(taken.bytes >= 25 && taken.bytes - sizes[sizes.len() - 1] < 25);
    assert_eq!(reader.read(100, 0, |_, _| {}).await.unwrap().records, 1);
    assert_eq!(reader.offset(), Some(5 + taken.records + 1));
}

#[tokio::test]
async fn a_small_range_costs_one_get_and_no_index() {
    let objects = Arc::new(Watched::default());
    let range = put(&objects, &[segment(1, &orders(), 0, &[10, 10, 10], 0)]).await.remove(0);
    for start in [0, 7, 29] {
        let mut reader = PartitionReader::new(objects.store(), orders());
        reader.open(range.clone(), start).unwrap();
        assert!(objects.take_gets().is_empty());
        assert_eq!(read_all(&mut reader, 4).await.unwrap(), expected(start..30, 0));
        let batches = range.position..range.position + range.bytes;
        assert_eq!(objects.take_gets(), std::slice::from_ref(&batches));
    }
}

#[tokio::test]
async fn a_seek_costs_the_index_and_the_batch_it_leads_to() {
    let objects = Arc::new(Watched::default());
    let range = large(&objects).await;
    let batch_bytes = range.bytes / 64 + 1000;
    let mut reader = PartitionReader::new(objects.store(), orders());
    for (round, start) in [4000, 7000, 100, 7679].into_iter().enumerate() {
        reader.open(range.clone(), start).unwrap();
        let mut read = Vec::new();
        reader.read(10, usize::MAX, |offset, record| read.push((offset, record))).await.unwrap();
        assert_eq!(read, expected(start..(start + 10).min(7680), LARGE_VALUE_BYTES));
        let gets = objects.take_gets();
        let index = if round == 0 { u64::from(range.index_bytes) } else { 0 };
        assert_eq!(gets.len(), if round == 0 { 2 } else { 1 }, "the index is got once");
        assert!(bytes_of(&gets) <= index + batch_bytes, "{gets:?}");
    }
}

#[tokio::test]
async fn reading_on_gets_everything_once_in_ever_larger_gets() {
    let objects = Arc::new(Watched::default());
    let range = large(&objects).await;
    let mut reader = PartitionReader::new(objects.store(), orders());
    reader.open(range.clone(), 0).unwrap();
    assert_eq!(read_all(&mut reader, 500).await.unwrap(), expected(0..7680, LARGE_VALUE_BYTES));
    let gets = objects.take_gets();
    let (index, batches) = gets.split_first().unwrap();
    assert_eq!(*index, range.index_position..range.index_position + u64::from(range.index_bytes));
    assert_eq!(bytes_of(batches), range.bytes);
    assert!(batches.windows(2).all(|pair| pair[0].end == pair[1].start), "{batches:?}");
    assert!(batches.iter().all(|get| get.end - get.start <= READ_AHEAD_MAX_BYTES));
    assert!(batches.len() <= 12, "{} gets for 7.5 MiB", batches.len());
}

#[tokio::test]
async fn what_is_here_already_is_not_got_again() {
    let objects = Arc::new(Watched::default());
    let range = put(&objects, &[segment(1, &orders(), 0, &[10, 10, 10], 0)]).await.remove(0);
    let mut reader = PartitionReader::new(objects.store(), orders());
    reader.open(range.clone(), 2).unwrap();
    reader.read(1, 1000, |_, _| {}).await.unwrap();
    assert_eq!(objects.take_gets().len(), 1);
    // Within the open batch, in the next, at the end.
    for start in [5, 15, 28] {
        reader.open(range.clone(), start).unwrap();
        let mut read = Vec::new();
        reader.read(1, 1000, |offset, record| read.push((offset, record))).await.unwrap();
        assert_eq!(read, expected(start..start + 1, 0));
    }
    assert!(objects.take_gets().is_empty());
    reader.open(range.clone(), 3).unwrap();
    assert_eq!(read_all(&mut reader, 100).await.unwrap(), expected(3..30, 0));
    assert_eq!(objects.take_gets().len(), 1, "what lies behind is got again");
}

#[tokio::test]
async fn a_read_that_failed_or_was_cancelled_loses_nothing() {
    let objects = Arc::new(Watched::default());
    let range = large(&objects).await;
    let mut reader = PartitionReader::new(objects.store(), orders());
    reader.open(range, 0).unwrap();
    let mut read = Vec::new();
    for round in 0.. {
        match round % 3 {
            0 => objects.hang_once(),
            1 => objects.fail_once(),
            _ => {}
        }
        let before = reader.offset();
        let count = read.len();
        match reader.read(77, usize::MAX, |offset, record| read.push((offset, record))).now_or_never() {
            None => assert_eq!((reader.offset(), read.len()), (before, count)),
            Some(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert_eq!((reader.offset(), read.len()), (before, count));
            }
            Some(Ok(_)) if reader.is_at_end() => break,
            Some(Ok(taken)) => assert!(taken.records > 0),
        }
    }
    assert_eq!(read, expected(0..7680, LARGE_VALUE_BYTES));
}

/// Reads with and without the index.
async fn read_both_ways(
    objects: &Arc<Watched>,
    range: &RangeLocation,
    of: &TopicPartition,
) -> [Result<Vec<(u64, Record)>>; 2] {
    let mut results = Vec::new();
    for read_ahead_bytes in [0, READ_AHEAD_MAX_BYTES] {
        results.push(read_with(objects, range, of, read_ahead_bytes).await);
    }
    results.try_into().unwrap()
}

async fn read_with(
    objects: &Arc<Watched>,
    range: &RangeLocation,
    of: &TopicPartition,
    read_ahead_bytes: u64,
) -> Result<Vec<(u64, Record)>> {
    let store = objects.store();
    let mut reader = RangeReader::new(of, range.clone(), range.base_offset)?;
    let mut read = Vec::new();
    while !reader.is_at_end() {
        reader.fill(&store, of, read_ahead_bytes).await?;
        reader.take(|offset, record| {
            read.push((offset, record));
            ControlFlow::Continue(())
        })?;
    }
    Ok(read)
}

/// Invariant 6: damage gives an error or, where it hits what this range does not need, the right records.
#[tokio::test]
async fn no_flipped_bit_and_no_cut_gives_a_wrong_record() {
    let mut builder = SegmentBuilder::new();
    builder.add(partition("a", 0), 5, batches(5, &[2, 1], 0)).unwrap();
    builder.add(orders(), 100, batches(100, &[1, 2], 0)).unwrap();
    let segment = builder.finish(SegmentId(9));
    let object = object_of(&segment);
    let objects = Arc::new(Watched::default());
    let targets: Vec<_> = segment.ranges.iter().map(|range| (location(&segment, range), range)).collect();

    let mut damaged: Vec<(usize, Bytes)> = (0..object.len()).map(|len| (len, object.slice(..len))).collect();
    damaged.extend((0..object.len() * 8).map(|bit| {
        let mut flipped = object.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit / 8, flipped.into())
    }));
    let mut found = 0;
    for (at, bytes) in damaged {
        let is_cut = bytes.len() < object.len();
        objects.overwrite(&segment.object, bytes).await;
        for (range, layout) in &targets {
            let expected = expected(range.base_offset..range.end_offset, 0);
            let of = &layout.partition;
            let in_batches = (range.position..range.position + range.bytes).contains(&(at as u64));
            let in_index = (range.index_position..range.index_position + u64::from(range.index_bytes))
                .contains(&(at as u64));
            for (result, has_index) in
                read_both_ways(&objects, range, of).await.into_iter().zip([true, false])
            {
                match result {
                    Ok(read) => {
                        assert_eq!(read, expected, "byte {at}");
                        // The leader epoch alone has no checksum but the index's, and no meaning.
                        assert!(!(has_index && (in_index || in_batches)), "byte {at}, with the index");
                        assert!(!(is_cut && in_batches), "cut at {at}");
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
                        found += 1;
                    }
                }
            }
        }
    }
    assert!(found > 1000);
}

#[tokio::test]
async fn a_range_that_the_object_does_not_bear_out_is_corrupt() {
    let objects = Arc::new(Watched::default());
    let range = put(&objects, &[segment(1, &orders(), 10, &[3, 4], 0)]).await.remove(0);
    type Change = fn(&mut RangeLocation);
    let changes: [(&str, Change); 10] = [
        ("gap before", |range| range.base_offset -= 1),
        ("overlap before", |range| range.base_offset += 1),
        ("records missing", |range| range.end_offset += 1),
        ("records over", |range| range.end_offset -= 1),
        ("a batch less", |range| range.end_offset = 13),
        ("cut", |range| range.bytes -= 1),
        ("into the index", |range| range.bytes += 1),
        ("shifted", |range| range.position += 1),
        ("no records", |range| range.end_offset = range.base_offset),
        ("huge", |range| range.bytes = u64::MAX),
    ];
    for (what, change) in changes {
        let mut wrong = range.clone();
        change(&mut wrong);
        for result in read_both_ways(&objects, &wrong, &orders()).await {
            let error = result.map(|read| read.len()).expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        }
    }
    // An index belongs to one segment and one partition.
    let mut other = range.clone();
    other.segment = SegmentId(2);
    let results = [
        read_with(&objects, &other, &orders(), 0).await,
        read_with(&objects, &range, &partition("orders", 4), 0).await,
    ];
    for result in results {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("it is the index of orders/3 in segment 0"), "{message}");
    }
}

#[test]
fn an_offset_outside_the_range_is_refused() {
    let objects = Arc::new(Watched::default());
    let segment = segment(1, &orders(), 10, &[3], 0);
    let range = location(&segment, &segment.ranges[0]);
    let mut reader = PartitionReader::new(objects.store(), orders());
    for offset in [0, 9, 14, u64::MAX] {
        let message = reader.open(range.clone(), offset).unwrap_err().to_string();
        assert!(message.contains("the offset asked for is not in it"), "{message}");
    }
    reader.open(range, 13).unwrap();
    assert!(reader.is_at_end());
}

/// A batch of three records, the second of which a writer with a defect has numbered wrongly under a right checksum.
fn broken_batch() -> Bytes {
    let mut batch = BytesMut::from(&batches(0, &[1], 0)[0][..]);
    assert_eq!(BatchHeader::check(&batch).unwrap().records, 1);
    batch.put_slice(&[12, 0, 0, 8, 1, 0, 0]);
    batch.put_slice(&[12, 0, 0, 4, 1, 0, 0]);
    let length = batch.len() as i32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[23..27].copy_from_slice(&2_i32.to_be_bytes());
    batch[57..61].copy_from_slice(&3_i32.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch.freeze()
}

#[tokio::test]
async fn a_broken_record_stops_the_reader_and_nothing_is_skipped() {
    let objects = Arc::new(Watched::default());
    let mut builder = SegmentBuilder::new();
    let mut given = vec![broken_batch()];
    given.extend(batches(3, &[3], 0));
    builder.add(orders(), 0, given).unwrap();
    let range = put(&objects, &[builder.finish(SegmentId(1))]).await.remove(0);
    let mut reader = PartitionReader::new(objects.store(), orders());
    reader.open(range.clone(), 0).unwrap();
    let mut read = Vec::new();
    reader.read(10, 1000, |offset, record| read.push((offset, record))).await.unwrap();
    assert_eq!(read, expected(0..1, 0));
    for _ in 0..3 {
        let error = reader.read(10, 1000, |_, _| panic!("beyond a broken record")).await.unwrap_err();
        assert!(matches!(&error, StorageError::Malformed { position: 0, end_offset: 3, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let message = error.to_string();
        assert!(message.contains("record 1 of a batch is malformed"), "{message}");
        assert!(message.contains("correct the producer") && !message.contains("restore"), "{message}");
        assert_eq!(reader.offset(), Some(1));
    }
    // Who wants to go on says so, also within the same batch.
    reader.open(range.clone(), 2).unwrap();
    let read = read_all(&mut reader, 10).await.unwrap();
    assert_eq!(read[0].1.key, None);
    assert_eq!(read[0].0, 2);
    assert_eq!(read[1..], expected(3..6, 0));
    // Where the error says that reading can go on.
    let mut reader = PartitionReader::new(objects.store(), orders());
    reader.open(range, 3).unwrap();
    assert_eq!(read_all(&mut reader, 10).await.unwrap(), expected(3..6, 0));
}

#[tokio::test]
async fn a_damaged_object_is_read_on_once_it_is_restored() {
    let objects = Arc::new(Watched::default());
    let segment = segment(1, &orders(), 0, &[3, 3], 0);
    let range = put(&objects, std::slice::from_ref(&segment)).await.remove(0);
    let mut damaged = object_of(&segment).to_vec();
    let last = range.position + range.bytes - 1;
    damaged[last as usize] ^= 1;
    objects.overwrite(&segment.object, damaged.into()).await;
    let mut reader = PartitionReader::new(objects.store(), orders());
    reader.open(range, 0).unwrap();
    let mut read = Vec::new();
    reader.read(10, 1000, |offset, record| read.push((offset, record))).await.unwrap();
    for _ in 0..2 {
        let error = reader.read(10, 1000, |_, _| panic!("damaged")).await.unwrap_err();
        assert!(matches!(&error, StorageError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("restore it from a copy"), "{error}");
    }
    objects.overwrite(&segment.object, object_of(&segment)).await;
    read.extend(read_all(&mut reader, 10).await.unwrap());
    assert_eq!(read, expected(0..6, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is opened and read in whatever order gives the records that belong there.
    #[test]
    fn any_order_of_seeks_and_reads_gives_the_right_records(
        first in proptest::collection::vec(1_u32..40, 1..6),
        second in proptest::collection::vec(1_u32..40, 1..6),
        value_bytes in prop_oneof![Just(0_usize), Just(3000)],
        steps in proptest::collection::vec((any::<prop::sample::Index>(), 1_usize..100, any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let objects = Arc::new(Watched::default());
            let middle: u64 = first.iter().copied().map(u64::from).sum();
            let end = middle + second.iter().copied().map(u64::from).sum::<u64>();
            let segments = [segment(1, &orders(), 0, &first, value_bytes), segment(2, &orders(), middle, &second, value_bytes)];
            let ranges = put(&objects, &segments).await;
            let mut reader = PartitionReader::new(objects.store(), orders());
            let mut offset = 0;
            for (to, max_records, seek) in steps {
                if seek {
                    offset = to.index(end as usize) as u64;
                }
                let Some(range) = ranges.iter().find(|range| (range.base_offset..range.end_offset).contains(&offset)) else {
                    break;
                };
                reader.open(range.clone(), offset).unwrap();
                let mut read = Vec::new();
                reader.read(max_records, usize::MAX, |offset, record| read.push((offset, record))).await.unwrap();
                prop_assert!(!read.is_empty() && read.len() <= max_records);
                let next = offset + read.len() as u64;
                prop_assert_eq!(read, expected(offset..next, value_bytes));
                offset = next;
            }
            Ok(())
        })?;
    }
}
