//! A loop that sends faster than the agent takes: it is slowed down, then told, and nothing accepted is lost. Memory is
//! counted by this binary's allocator, so it has one test only.

mod support;

use futures::future::join_all;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use streamhouse_client::ClientError;
use streamhouse_core::ErrorKind;
use support::{Log, number, read};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BUFFER_BYTES: usize = 8 << 20;
/// What the test itself and the runtime may take beside the buffer; deliveries are counted apart.
const BESIDE_BYTES: usize = 4 << 20;

#[tokio::test]
async fn a_loop_that_never_awaits_is_slowed_then_told_and_loses_nothing() {
    let log = Log::start(&[("orders", 4)]).await;
    let producer =
        log.producer().buffer_bytes(BUFFER_BYTES).send_timeout(Duration::from_secs(8)).build().await.unwrap();
    // Warm up, so that connections and caches are not counted.
    producer.send("orders", None, b"0", None).await.unwrap().await.unwrap();
    log.writer.stalled.send_replace(true);
    let mut deliveries = Vec::with_capacity(200_000);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);

    let mut value = 1_u64;
    let error = loop {
        let text = format!("{value:0>60}");
        match producer.send("orders", None, text.as_bytes(), None).await {
            Ok(delivery) => deliveries.push(delivery),
            Err(error) => break error,
        }
        value += 1;
    };
    assert!(matches!(error, ClientError::BufferFull { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for advice in ["Send more slowly", "raise `buffer_bytes`", "look at the agent"] {
        assert!(error.to_string().contains(advice), "{error}");
    }
    let accepted = deliveries.len();
    assert!(accepted > BUFFER_BYTES / 200, "the buffer holds what it says: {accepted} records");
    let grown = PEAK.load(Ordering::Relaxed) - before;
    assert!(grown < BUFFER_BYTES + BESIDE_BYTES, "{grown} bytes for a buffer of {BUFFER_BYTES}");
    let stats = producer.stats();
    assert!(stats.buffered_bytes <= BUFFER_BYTES as u64);
    assert_eq!((stats.pending, stats.refused), (accepted as u64, 1));

    // The agent comes back: the loop goes on, and everything that was accepted is stored once.
    log.writer.stalled.send_replace(false);
    for _ in 0..1000 {
        let text = format!("{value:0>60}");
        deliveries.push(producer.send("orders", None, text.as_bytes(), None).await.unwrap());
        value += 1;
    }
    for report in join_all(deliveries).await {
        report.unwrap();
    }
    let stats = producer.stats();
    assert_eq!((stats.failed, stats.pending, stats.buffered_bytes), (0, 0, 0));
    assert_eq!(stats.acknowledged, value);
    let mut consumer = log.consumer("check", &["orders"]).build().await.unwrap();
    let records = read(&mut consumer, value as usize).await;
    let mut values: Vec<_> = records.iter().map(|record| number(&record.value)).collect();
    values.sort_unstable();
    assert_eq!(values, (0..value).collect::<Vec<_>>());
}
