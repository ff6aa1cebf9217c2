//! What the hooks are told, seen through their `tracing` events: the test has one subscriber for the whole process, so it
//! is alone in its binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::future::join_all;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamhouse_core::ErrorKind;
use support::{Fault, Log};
use tracing::field::{Field, Visit};
use tracing::span;

/// An event's numbers, by name.
type Fields = HashMap<String, u64>;

/// Every event of the log: its target and its numbers.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(String, Fields)>>>);

impl Events {
    fn of(&self, noun: &str) -> Vec<Fields> {
        let target = format!("streamhouse::{noun}");
        let events = self.0.lock().unwrap();
        events.iter().filter(|(name, _)| *name == target).map(|(_, fields)| fields.clone()).collect()
    }

    fn sum(&self, noun: &str, field: &str) -> u64 {
        self.of(noun).iter().map(|fields| fields[field]).sum()
    }
}

struct Numbers(Fields);

impl Visit for Numbers {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("streamhouse::")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut numbers = Numbers(Fields::new());
        event.record(&mut numbers);
        self.0.lock().unwrap().push((event.metadata().target().to_owned(), numbers.0));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn events_agree_with_what_the_caller_sees() {
    let events = Events::default();
    tracing::subscriber::set_global_default(events.clone()).unwrap();
    let log = Log::start(&[("orders", 3)]).await;
    let producer = log.producer().batch_records(50).build().await.unwrap();
    *log.writer.faults.lock().unwrap() =
        vec![Fault::RefuseBatch(0, ErrorKind::Invalid), Fault::DropResponse, Fault::FailRequest];

    let mut deliveries = Vec::new();
    let mut sent_bytes = 0;
    for value in 0..2000_u64 {
        let value = value.to_string();
        sent_bytes += value.len() as u64 + 3;
        deliveries.push(producer.send("orders", Some(b"key"), value.as_bytes(), None).await.unwrap());
    }
    let reports = join_all(deliveries).await;
    let latency_ns: u64 = reports.iter().flatten().map(|report| report.latency.as_nanos() as u64).sum();
    let failed = reports.iter().filter(|report| report.is_err()).count() as u64;
    assert!(failed > 0);

    // Once a batch, and to the nanosecond what the reports say.
    for noun in ["send", "flush"] {
        assert_eq!(events.sum(noun, "records"), 2000, "{noun}");
        assert_eq!(events.sum(noun, "bytes"), sent_bytes, "{noun}");
        assert!(events.of(noun).iter().all(|event| event["records"] <= 50), "{noun}");
    }
    let (stored, refused): (Vec<_>, Vec<_>) =
        events.of("send").into_iter().partition(|event| event["status"] == 0);
    assert_eq!(stored.iter().map(|event| event["duration"]).sum::<u64>(), latency_ns);
    assert_eq!(refused.iter().map(|event| event["records"]).sum::<u64>(), failed);
    assert_eq!(producer.stats().failed, failed);

    // Once a partition and poll.
    let mut consumer = log.consumer("g", &["orders"]).max_poll_records(300).build().await.unwrap();
    let (mut records, mut bytes, mut visits) = (0, 0, 0);
    while records < 2000 - failed {
        let polled = consumer.poll(Duration::from_secs(30)).await.unwrap();
        assert!(!polled.is_empty());
        records += polled.len() as u64;
        bytes += polled.iter().map(|record| (record.value.len() + 3) as u64).sum::<u64>();
        let mut partitions: Vec<_> = polled.iter().map(|record| record.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        visits += partitions.len();
    }
    assert_eq!((events.sum("poll", "records"), events.sum("poll", "bytes")), (records, bytes));
    assert_eq!(events.of("poll").len(), visits);
}
