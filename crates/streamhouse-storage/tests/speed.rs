//! What encoding, storing and reading costs. Not run by default:
//!
//! ```text
//! cargo test --release -p streamhouse-storage --test speed -- --ignored --nocapture
//! ```

use bytes::Bytes;
use std::{
    hint::black_box,
    time::{Duration, Instant},
};
use streamhouse_core::{
    SegmentId, TopicName, TopicPartition,
    batch::{BatchBuilder, BatchHeader, Compression, RecordIter},
};
use streamhouse_hooks::{Instance, Role};
use streamhouse_storage::{PartitionReader, RangeLocation, SegmentBuilder, SegmentStore, create_local};

const VALUE: [u8; 100] = *b"{\"order\":12345678,\"customer\":\"c-0042\",\"total_cents\":129900,\"currency\":\"EUR\",\"state\":\"paid and sent\"}";
const BATCH_BYTES: usize = 128 << 10;
const ROUNDS: usize = 9;

fn build(compression: Compression) -> (Bytes, u32) {
    let mut builder = BatchBuilder::with_capacity(compression, BATCH_BYTES);
    let mut timestamp_ms = 1_700_000_000_000;
    while builder.fits(None, &VALUE, &[], BATCH_BYTES) {
        builder.push(timestamp_ms, None, &VALUE, &[]).expect("the record fits");
        timestamp_ms += i64::from(builder.records().is_multiple_of(64));
    }
    let records = builder.records();
    (builder.finish(None), records)
}

/// The fastest of some rounds: what it costs when nothing else runs.
fn best(mut round: impl FnMut()) -> Duration {
    let time = |_| {
        let started = Instant::now();
        round();
        started.elapsed()
    };
    (0..ROUNDS).map(time).min().expect("there are rounds")
}

#[test]
#[ignore = "a measurement, for release builds"]
fn batches() {
    const BATCHES: u32 = 200;
    for compression in Compression::ALL {
        let (batch, records) = build(compression);
        let ns = |time: Duration| time.as_nanos() as f64 / f64::from(BATCHES * records);
        let encode = best(|| (0..BATCHES).for_each(|_| drop(black_box(build(compression)))));
        let check = best(|| {
            for _ in 0..BATCHES {
                assert!(black_box(BatchHeader::check(black_box(&batch))).is_ok());
            }
        });
        let decode = best(|| {
            for _ in 0..BATCHES {
                let read: usize =
                    RecordIter::new(batch.clone()).unwrap().map(|item| item.unwrap().1.value.len()).sum();
                assert_eq!(read, records as usize * VALUE.len());
            }
        });
        println!(
            "{compression}: {records} records in {} bytes; encode {:.1} ns/record, check {:.2} ns/record ({:.1} GB/s), decode {:.1} ns/record",
            batch.len(),
            ns(encode),
            ns(check),
            BATCHES as f64 * batch.len() as f64 / check.as_nanos() as f64,
            ns(decode),
        );
    }
}

#[tokio::test]
#[ignore = "a measurement, for release builds"]
async fn segments() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        SegmentStore::new(create_local(dir.path()).unwrap(), &Instance::new(Role::Consumer, "speed", ""));
    let partition = TopicPartition { topic: TopicName::new("orders").unwrap(), partition: 0 };
    let (batch, records) = build(Compression::None);
    for batches in [1, 8, 64, 480] {
        let mut builder = SegmentBuilder::new();
        builder.add(partition.clone(), 0, vec![batch.clone(); batches]).unwrap();
        let segment = builder.finish(SegmentId(batches as u128));
        let started = Instant::now();
        store.put(&segment).await.unwrap();
        let put = started.elapsed();
        let range = &segment.ranges[0];
        let location = RangeLocation {
            segment: segment.id,
            object: segment.object.clone(),
            base_offset: 0,
            end_offset: range.records,
            position: range.position,
            bytes: range.bytes,
            index_position: range.index_position,
            index_bytes: range.index_bytes,
        };
        let mut fastest = Duration::MAX;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let mut reader = PartitionReader::new(store.clone(), partition.clone());
            reader.open(location.clone(), 0).unwrap();
            let mut polled = Vec::new();
            let mut read = 0;
            while !reader.is_at_end() {
                polled.clear();
                reader.read(2000, 1 << 20, |offset, record| polled.push((offset, record))).await.unwrap();
                read += black_box(&polled).len();
            }
            assert_eq!(read, records as usize * batches);
            fastest = fastest.min(started.elapsed());
        }
        println!(
            "{} bytes: put {put:?}, read {:.1} ns/record ({:.2} M records/s)",
            segment.bytes,
            fastest.as_nanos() as f64 / range.records as f64,
            range.records as f64 * 1e3 / fastest.as_nanos() as f64,
        );
    }
}
