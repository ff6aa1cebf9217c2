//! The codec as a whole.

use super::{header::*, *};
use crate::{
    ErrorKind, Header, Record,
    limits::{
        BATCH_BYTES_MAX, BATCH_DECOMPRESSED_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX,
        RECORD_HEADERS_MAX,
    },
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

const STAMP: ProducerStamp = ProducerStamp { producer_id: 7, epoch: 1, base_sequence: 42 };

fn build(compression: Compression, records: &[Record], producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder.push(record.timestamp_ms, record.key.as_deref(), &record.value, &record.headers).unwrap();
    }
    builder.finish(producer)
}

fn decode(batch: &Bytes) -> Result<Vec<Record>, BatchError> {
    BatchHeader::check(batch)?;
    RecordIter::new(batch.clone())?.map(|item| item.map(|(_, record)| record)).collect()
}

/// Makes length and checksum right again after something was changed.
fn reseal(batch: &mut [u8]) {
    let length = (batch.len() - LENGTH_BASE) as i32;
    batch[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_be_bytes());
}

/// A batch with this content behind a header that claims `records` records packed in this way.
fn with_content(compression: Compression, records: i32, content: &[u8]) -> Bytes {
    let mut batch = build(Compression::None, &[Record::default()], None)[..BATCH_HEADER_BYTES].to_vec();
    batch[ATTRIBUTES_AT + 1] = compression.number();
    batch[LAST_OFFSET_DELTA_AT..LAST_OFFSET_DELTA_AT + 4].copy_from_slice(&(records - 1).to_be_bytes());
    batch[RECORDS_AT..RECORDS_AT + 4].copy_from_slice(&records.to_be_bytes());
    batch.extend_from_slice(content);
    reseal(&mut batch);
    batch.into()
}

fn is_length_error(batch: &[u8]) -> bool {
    matches!(BatchHeader::check(batch), Err(BatchError::Length { .. }))
}

fn record() -> impl Strategy<Value = Record> {
    let bytes = |most| vec(any::<u8>(), 0..most).prop_map(Bytes::from);
    let value = prop_oneof![8 => bytes(100), 1 => bytes(3000)];
    let header =
        ("[a-zä]{0,8}", bytes(10)).prop_map(|(name, value)| Header { name: name.to_string(), value });
    let timestamp_ms = prop_oneof![8 => 1_700_000_000_000_i64..1_700_000_100_000, 1 => any::<i64>()];
    (timestamp_ms, proptest::option::of(bytes(70)), value, vec(header, 0..3))
        .prop_map(|(timestamp_ms, key, value, headers)| Record { timestamp_ms, key, value, headers })
}

fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.as_slice())
}

/// The bytes are those that another encoder, written from the format's description alone, gives.
#[test]
fn the_bytes_are_those_of_the_format() {
    let header = Header { name: "h".to_owned(), value: Bytes::from_static(b"x") };
    let records = [
        Record {
            timestamp_ms: 1_700_000_000_000,
            key: Some("k".into()),
            value: "value".into(),
            headers: vec![header],
        },
        Record { timestamp_ms: 1_699_999_999_997, ..Record::default() },
    ];
    let batch = build(Compression::None, &records, Some(STAMP));
    let hex: String = batch.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(decode(&batch).unwrap(), records);
}

const GOLDEN: &str = "000000000000000000000049ffffffff027479e25c0000000000010000018bcfe568000000018bcfe56800000000000000000700010000002a0000000220000000026b0a76616c756502026802780c000502010000";

#[test]
fn compressed_content_is_a_frame_that_other_tools_know() {
    let records = vec![Record { value: vec![b'a'; 500].into(), ..Record::default() }; 10];
    let plain = build(Compression::None, &records, None);
    for (compression, magic) in
        [(Compression::Lz4, [0x04, 0x22, 0x4d, 0x18]), (Compression::Zstd, [0x28, 0xb5, 0x2f, 0xfd])]
    {
        let batch = build(compression, &records, None);
        assert_eq!(batch[ATTRIBUTES_AT + 1], compression.number());
        assert_eq!(batch[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + 4], magic);
        assert!(batch.len() < plain.len() / 4, "{compression}: {} bytes", batch.len());
        assert_eq!(decode(&batch).unwrap(), records);
    }
}

#[test]
fn content_that_does_not_shrink_is_not_compressed() {
    let records = [Record { value: "x".into(), ..Record::default() }];
    for compression in Compression::ALL {
        let batch = build(compression, &records, None);
        assert_eq!(BatchHeader::check(&batch).unwrap().compression, Compression::None);
    }
}

#[test]
fn a_base_offset_changes_eight_bytes_and_copies_nothing() {
    let batch = build(Compression::None, &vec![Record::default(); 3], Some(STAMP));
    let [head, rest] = with_base_offset(batch.clone(), 1 << 40);
    assert_eq!(rest.as_ptr(), batch[8..].as_ptr());
    let placed = Bytes::from([head, rest].concat());
    let header = BatchHeader::check(&placed).unwrap();
    assert_eq!((header.base_offset, header.end_offset()), (1 << 40, (1 << 40) + 3));
    assert_eq!(header.producer, Some(STAMP));
    let offsets: Vec<_> = RecordIter::new(placed).unwrap().map(|item| item.unwrap().0 - (1 << 40)).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn the_largest_record_fits_a_batch_of_its_own() {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![7; RECORD_BYTES_MAX];
    assert!(builder.fits(None, &value, &[], 100));
    builder.push(0, None, &value, &[]).unwrap();
    assert_eq!(decode(&builder.finish(Some(STAMP))).unwrap()[0].value, value);
}

#[test]
fn what_does_not_fit_leaves_the_builder_as_it_was() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(5, Some(b"k"), &[1; 5000], &[]).unwrap();
    let before = (builder.records(), builder.record_bytes(), builder.encoded_len());

    let value = vec![0; RECORD_BYTES_MAX];
    assert_eq!(
        builder.push(6, Some(b"k"), &value, &[]),
        Err(BatchError::RecordTooLarge { bytes: value.len() + 1 })
    );
    assert_eq!(builder.push(6, None, &value, &[]), Err(BatchError::BatchFull));
    assert!(!builder.fits(None, &value, &[], BATCH_BYTES_MAX));
    let header = Header { name: String::new(), value: Bytes::new() };
    let headers = vec![header; RECORD_HEADERS_MAX + 1];
    let refused = builder.push(6, None, b"", &headers);
    assert_eq!(refused, Err(BatchError::TooManyHeaders { headers: headers.len() }));

    assert_eq!((builder.records(), builder.record_bytes(), builder.encoded_len()), before);
    assert_eq!(decode(&builder.finish(None)).unwrap().len(), 1);
}

#[test]
fn framing_counts_too() {
    // User bytes within the limit, and header framing that takes the batch over its own.
    let header = Header { name: "n".to_owned(), value: Bytes::new() };
    let headers = vec![header; RECORD_HEADERS_MAX];
    let value = vec![0; RECORD_BYTES_MAX - RECORD_HEADERS_MAX];
    let refused = BatchBuilder::new(Compression::None).push(0, None, &value, &headers);
    assert_eq!(refused, Err(BatchError::RecordTooLarge { bytes: RECORD_BYTES_MAX }));
}

#[test]
fn a_batch_takes_so_many_records_and_no_more() {
    let mut builder = BatchBuilder::with_capacity(Compression::None, BATCH_BYTES_MAX);
    for _ in 0..BATCH_RECORDS_MAX {
        assert!(builder.fits(None, b"", &[], BATCH_BYTES_MAX));
        builder.push(0, None, b"", &[]).unwrap();
    }
    assert!(!builder.fits(None, b"", &[], BATCH_BYTES_MAX));
    assert_eq!(builder.push(0, None, b"", &[]), Err(BatchError::BatchFull));
    let batch = builder.finish(None);
    assert_eq!(decode(&batch).unwrap().len(), BATCH_RECORDS_MAX);
}

#[test]
fn nothing_gives_nothing() {
    assert!(BatchBuilder::new(Compression::Zstd).finish(None).is_empty());
    assert_eq!(BatchHeader::check(&[]), Err(BatchError::Length { expected: 61, actual: 0 }));
}

#[test]
fn wrong_headers_are_refused_by_name() {
    let batch = build(Compression::None, &vec![Record::default(); 2], Some(STAMP));
    let refused = |at: usize, bytes: &[u8]| {
        let mut batch = batch.to_vec();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        let checksum = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_be_bytes());
        let error = BatchHeader::check(&batch).unwrap_err();
        (error.kind(), error.to_string())
    };
    for (at, bytes, kind, says) in [
        (MAGIC_AT, &[1][..], ErrorKind::Invalid, "format version 1"),
        (LENGTH_AT, &[0xff; 4], ErrorKind::Corrupt, "length of 11 bytes"),
        (LENGTH_AT, &[0x7f, 0xff, 0xff, 0xff], ErrorKind::Corrupt, "length of 2147483659 bytes"),
        (LENGTH_AT, &[0, 0, 0, 60], ErrorKind::Corrupt, "says it has 72 bytes"),
        (ATTRIBUTES_AT, &[0, 1], ErrorKind::Invalid, "compression 1 (gzip)"),
        (ATTRIBUTES_AT, &[0, 2], ErrorKind::Invalid, "compression 2 (snappy)"),
        (ATTRIBUTES_AT, &[0, 7], ErrorKind::Invalid, "compression 7 (unknown)"),
        (ATTRIBUTES_AT, &[0, 0x10], ErrorKind::Invalid, "transactional"),
        (ATTRIBUTES_AT, &[0x80, 0], ErrorKind::Invalid, "0x8000"),
        (LAST_OFFSET_DELTA_AT, &[0, 0, 0, 2], ErrorKind::Invalid, "last offset delta"),
        (RECORDS_AT, &[0, 0, 0, 0], ErrorKind::Invalid, "states 0 records"),
        (RECORDS_AT, &[0x7f, 0xff, 0xff, 0xff], ErrorKind::Invalid, "states 2147483647 records"),
        (RECORDS_AT, &[0x80, 0, 0, 0], ErrorKind::Invalid, "states -2147483648 records"),
        (0, &[0xff; 8], ErrorKind::Invalid, "base offset"),
        (0, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ErrorKind::Invalid, "base offset"),
        (PRODUCER_ID_AT, &[0xff; 8], ErrorKind::Invalid, "producer id"),
        (PRODUCER_EPOCH_AT, &[0xff; 2], ErrorKind::Invalid, "producer id"),
        (BASE_SEQUENCE_AT, &[0x80], ErrorKind::Invalid, "producer id"),
    ] {
        let (found, message) = refused(at, bytes);
        assert!(found == kind && message.contains(says), "{says}: {found:?} {message}");
    }
}

#[test]
fn wrong_records_are_refused_by_name() {
    let refused = |records, content: &[u8]| {
        let batch = with_content(Compression::None, records, content);
        decode(&batch).unwrap_err().to_string()
    };
    let good = [12, 0, 0, 0, 1, 0, 0];
    assert!(decode(&with_content(Compression::None, 1, &good)).is_ok());
    for (records, content, says) in [
        (1, &[][..], "length is cut off"),
        (2, &good, "record 1 of a batch is malformed: its length is cut off"),
        (1, &[12, 0, 0, 0, 1, 0, 0, 0], "bytes follow the last record"),
        (1, &[1, 0, 0, 0, 1, 0, 0], "length goes beyond"),
        (1, &[14, 0, 0, 0, 1, 0, 0], "length goes beyond"),
        (1, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "length goes beyond"),
        (1, &[14, 0, 0, 0, 1, 0, 0, 0], "bytes follow its last header"),
        (1, &[12, 0, 0, 2, 1, 0, 0], "offset delta"),
        (1, &[12, 0, 0, 0, 3, 0, 0], "negative"),
        (1, &[12, 0, 0, 0, 1, 8, 0], "goes beyond its end"),
        (1, &[12, 0, 0, 0, 1, 0, 8], "number of headers"),
        (1, &[12, 0, 0, 0, 1, 0, 1], "number of headers"),
        (1, &[16, 0, 0, 0, 1, 0, 2, 1, 0], "no name"),
        (1, &[18, 0, 0, 0, 1, 0, 2, 2, 0xff, 0], "not UTF-8"),
        (1, &[0], "goes beyond its end"),
    ] {
        let message = refused(records, content);
        assert!(message.contains(says), "{content:?}: {message}");
    }
}

#[test]
fn a_null_value_reads_as_an_empty_one() {
    let batch = with_content(Compression::None, 1, &[12, 0, 0, 0, 1, 1, 0]);
    assert_eq!(decode(&batch).unwrap(), [Record { key: None, ..Record::default() }]);
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let zeros = vec![0; BATCH_DECOMPRESSED_BYTES_MAX + 1];
    for compression in [Compression::Lz4, Compression::Zstd] {
        let mut batch = vec![0; BATCH_HEADER_BYTES];
        batch.extend_from_slice(&zeros);
        let packed = compression::pack(compression, &batch).unwrap();
        let batch = with_content(compression, 1, &packed[BATCH_HEADER_BYTES..]);
        assert!(batch.len() < 100_000, "{compression} takes {} bytes", batch.len());
        assert_eq!(decode(&batch), Err(BatchError::ContentTooLarge), "{compression}");
    }
}

#[test]
fn damaged_frames_are_refused() {
    let records = vec![Record { value: vec![b'a'; 500].into(), ..Record::default() }; 10];
    for compression in [Compression::Lz4, Compression::Zstd] {
        let content = build(compression, &records, None).slice(BATCH_HEADER_BYTES..);
        let refused = |content: &[u8], what: &str| {
            let kind = decode(&with_content(compression, 10, content)).err().map(|error| error.kind());
            assert_eq!(kind, Some(ErrorKind::Corrupt), "{compression} {what}");
        };
        refused(&[&content[..], &[0]].concat(), "and a byte");
        refused(&[&content[..], &content[..]].concat(), "twice");
        refused(&[&content[..], &content[..4]].concat(), "and a second one's beginning");
        // The end mark alone may be missing: everything is there then.
        for len in 0..content.len() {
            let read = decode(&with_content(compression, 10, &content[..len]));
            let whole = len >= content.len() - 4 && read.as_ref() == Ok(&records);
            assert!(whole || read.is_err(), "{compression} cut to {len} of {}", content.len());
        }
    }
}

#[test]
fn names_of_compressions_round_trip() {
    for compression in Compression::ALL {
        assert_eq!(compression.to_string().parse(), Ok(compression));
    }
    let message = "gzip".parse::<Compression>().unwrap_err().to_string();
    assert_eq!(message, "unknown compression \"gzip\"; use none, lz4 or zstd");
}

proptest! {
    #[test]
    fn records_round_trip(records in vec(record(), 1..60), compression in compression(), stamped: bool) {
        let producer = stamped.then_some(STAMP);
        let mut builder = BatchBuilder::new(compression);
        for record in &records {
            let fits = builder.fits(record.key.as_deref(), &record.value, &record.headers, BATCH_BYTES_MAX);
            prop_assert!(fits);
            builder.push(record.timestamp_ms, record.key.as_deref(), &record.value, &record.headers).unwrap();
        }
        let bytes: usize = records.iter().map(Record::bytes).sum();
        prop_assert_eq!((builder.records() as usize, builder.record_bytes() as usize), (records.len(), bytes));
        let encoded_len = builder.encoded_len();
        let batch = builder.finish(producer);
        let header = BatchHeader::check(&batch).unwrap();
        prop_assert!(batch.len() <= encoded_len);
        prop_assert_eq!((header.len, header.records as usize), (batch.len(), records.len()));
        prop_assert_eq!(header.producer, producer);
        prop_assert_eq!(header.base_timestamp_ms, records[0].timestamp_ms);
        prop_assert_eq!(Some(header.max_timestamp_ms), records.iter().map(|record| record.timestamp_ms).max());
        prop_assert_eq!(decode(&batch).unwrap(), records);
    }

    #[test]
    fn what_fits_can_be_pushed_and_stays_within(
        records in vec(record(), 1..60),
        batch_bytes in 100_usize..4000,
    ) {
        let mut builder = BatchBuilder::new(Compression::None);
        for record in &records {
            let Record { timestamp_ms, key, value, headers } = record;
            if builder.fits(key.as_deref(), value, headers, batch_bytes) {
                let was_empty = builder.is_empty();
                builder.push(*timestamp_ms, key.as_deref(), value, headers).unwrap();
                prop_assert!(was_empty || builder.encoded_len() <= batch_bytes);
            }
        }
        let encoded_len = builder.encoded_len();
        prop_assert_eq!(builder.finish(None).len(), encoded_len);
    }

    #[test]
    fn skipping_goes_where_reading_goes(
        records in vec(record(), 1..40),
        compression in compression(),
        to in 0_u64..50,
        read_first in 0_usize..5,
    ) {
        let batch = build(compression, &records, None);
        let mut iter = RecordIter::new(batch).unwrap();
        let read = iter.by_ref().take(read_first).count();
        iter.skip_to(to).unwrap();
        let at = (to as usize).max(read).min(records.len());
        prop_assert_eq!((iter.offset() as usize, iter.remaining() as usize), (at, records.len() - at));
        let rest: Vec<_> = iter.map(|item| item.unwrap()).collect();
        let expected: Vec<_> = (at as u64..).zip(records[at..].iter().cloned()).collect();
        prop_assert_eq!(rest, expected);
    }

    #[test]
    fn a_flipped_bit_is_found(records in vec(record(), 1..8), compression in compression(), bit: prop::sample::Index) {
        let batch = build(compression, &records, Some(STAMP));
        let mut flipped = batch.to_vec();
        // Base offset and leader epoch are outside the checksum: nothing of a record depends on them.
        let bit = bit.index((batch.len() - MAGIC_AT) * 8) + MAGIC_AT * 8;
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(BatchHeader::check(&flipped).is_err());
    }

    #[test]
    fn a_cut_is_found(records in vec(record(), 1..8), compression in compression(), at: prop::sample::Index, grow: bool) {
        let batch = build(compression, &records, Some(STAMP));
        let cut = &batch[..at.index(batch.len())];
        prop_assert!(is_length_error(cut));
        if grow {
            let longer = [&batch[..], &batch[..1]].concat();
            prop_assert!(is_length_error(&longer));
        }
    }

    /// Content that a writer with a defect sealed: an error or records with dense offsets, never a panic, never more
    /// records than there is content for.
    #[test]
    fn wrong_content_with_a_right_checksum_never_panics(
        records in vec(record(), 1..8),
        compression in compression(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut batch = build(compression, &records, Some(STAMP)).to_vec();
        for (at, byte) in changes {
            let at = at.index(batch.len() - ATTRIBUTES_AT) + ATTRIBUTES_AT;
            batch[at] = byte;
        }
        reseal(&mut batch);
        let batch = Bytes::from(batch);
        if let Ok(header) = BatchHeader::check(&batch)
            && let Ok(iter) = RecordIter::new(batch)
        {
            let offsets: Vec<_> = iter.map_while(Result::ok).map(|(offset, _)| offset).collect();
            prop_assert!(offsets.len() <= header.records as usize);
            prop_assert!(offsets.iter().copied().eq(header.base_offset..header.base_offset + offsets.len() as u64));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300), compression in compression(), count in any::<i32>(), to: u64) {
        prop_assert!(BatchHeader::check(&bytes).is_err());
        let batch = with_content(compression, count.max(i32::MIN + 1), &bytes);
        if let Ok(mut iter) = RecordIter::new(batch) {
            let skipped = iter.skip_to(to);
            prop_assert!(skipped.is_ok() || iter.remaining() == 0);
            prop_assert!(iter.count() <= 1 + bytes.len());
        }
    }
}
