//! The producer against a stub agent.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::future::join_all;
use std::collections::HashMap;
use std::time::Duration;
use streamhouse_client::{ClientError, Compression, DeliveryReport};
use streamhouse_core::limits::{RECORD_BYTES_MAX, REQUEST_BATCHES_MAX};
use streamhouse_core::{AgentId, ErrorKind, Header, Record};
use streamhouse_metadata::Agents;
use support::{Fault, Log, number, read};

/// Sends the numbers `range` to one partition; their deliveries.
async fn send(
    producer: &streamhouse_client::Producer,
    range: std::ops::Range<u64>,
) -> Vec<streamhouse_client::Delivery> {
    let mut deliveries = Vec::new();
    for value in range {
        deliveries.push(producer.send("orders", None, value.to_string().as_bytes(), Some(0)).await.unwrap());
    }
    deliveries
}

async fn values(log: &Log, records: usize) -> Vec<u64> {
    let mut consumer = log.consumer("check", &["orders"]).build().await.unwrap();
    let values = read(&mut consumer, records).await.iter().map(|record| number(&record.value)).collect();
    assert!(consumer.poll(Duration::ZERO).await.unwrap().is_empty(), "more than was sent is stored");
    values
}

#[tokio::test]
async fn every_record_is_acknowledged_with_its_own_offset() {
    let log = Log::start(&[("orders", 3)]).await;
    let producer = log.producer().batch_bytes(2000).build().await.unwrap();
    let mut deliveries = Vec::new();
    for value in 0..3000_u64 {
        deliveries.push(producer.send("orders", None, value.to_string().as_bytes(), None).await.unwrap());
    }
    producer.flush().await.unwrap();
    let reports: Vec<DeliveryReport> =
        join_all(deliveries).await.into_iter().map(|report| report.unwrap()).collect();
    assert!(reports.iter().all(|report| report.latency > Duration::ZERO));

    let mut consumer = log.consumer("check", &["orders"]).build().await.unwrap();
    let stored: HashMap<_, _> = read(&mut consumer, 3000)
        .await
        .into_iter()
        .map(|record| ((record.partition, record.offset), number(&record.value)))
        .collect();
    for (value, report) in reports.iter().enumerate() {
        assert_eq!(stored[&(report.partition, report.offset)], value as u64);
    }
    // Without a key every partition gets its share.
    for partition in 0..3 {
        let share = reports.iter().filter(|report| report.partition == partition).count();
        assert!(share > 500, "partition {partition} got {share}");
    }
    let stats = producer.stats();
    assert_eq!((stats.acknowledged, stats.failed, stats.pending, stats.buffered_bytes), (3000, 0, 0, 0));
}

#[tokio::test]
async fn a_lone_record_goes_out_by_itself() {
    let log = Log::start(&[("orders", 1)]).await;
    let producer = log.producer().build().await.unwrap();
    for offset in 0..5 {
        let delivery = producer.send("orders", Some(b"k"), b"v", None).await.unwrap();
        assert_eq!(delivery.await.unwrap().offset, offset);
    }
}

#[tokio::test]
async fn keys_headers_timestamps_and_compression_arrive_as_sent() {
    let log = Log::start(&[("orders", 4)]).await;
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let producer = log.producer().compression(compression).build().await.unwrap();
        let sent = Record {
            timestamp_ms: 1_700_000_000_123,
            key: Some("customer".into()),
            value: "v".repeat(5000).into(),
            headers: vec![Header { name: "trace".into(), value: "abc".into() }],
        };
        let report = producer.send_record("orders", None, sent.clone()).await.unwrap().await.unwrap();
        let by_key = producer.send("orders", Some(b"customer"), b"x", None).await.unwrap().await.unwrap();
        assert_eq!(by_key.partition, report.partition, "one key, one partition");
        let mut consumer = log.consumer("check", &["orders"]).build().await.unwrap();
        let got = read(&mut consumer, 2).await;
        assert_eq!(
            (got[0].timestamp_ms, &got[0].key, &got[0].value, &got[0].headers),
            (sent.timestamp_ms, &sent.key, &sent.value, &sent.headers)
        );
        consumer.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_stored_twice() {
    let log = Log::start(&[("orders", 1)]).await;
    let producer = log.producer().batch_records(10).build().await.unwrap();
    *log.writer.faults.lock().unwrap() =
        vec![Fault::DropResponse, Fault::FailRequest, Fault::DropResponse, Fault::DropResponse];
    let deliveries = send(&producer, 0..200).await;
    for (offset, report) in join_all(deliveries).await.into_iter().enumerate() {
        assert_eq!(report.unwrap().offset, offset as u64);
    }
    assert_eq!(values(&log, 200).await, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn order_holds_when_a_batch_in_the_middle_is_put_off() {
    let log = Log::start(&[("orders", 1)]).await;
    let producer = log.producer().batch_records(10).build().await.unwrap();
    *log.writer.faults.lock().unwrap() = vec![
        Fault::RefuseBatch(0, ErrorKind::Fenced),
        Fault::RefuseBatch(2, ErrorKind::Retry),
        Fault::RefuseBatch(1, ErrorKind::Unavailable),
    ];
    let deliveries = send(&producer, 0..300).await;
    for (offset, report) in join_all(deliveries).await.into_iter().enumerate() {
        assert_eq!(report.unwrap().offset, offset as u64);
    }
    assert_eq!(values(&log, 300).await, (0..300).collect::<Vec<_>>());
    // No more in one request than the agent's duplicate check remembers.
    assert!(log.writer.request_batches().await.iter().all(|batches| *batches <= 5));
}

#[tokio::test]
async fn after_a_batch_is_refused_for_good_the_partition_goes_on() {
    let log = Log::start(&[("orders", 1)]).await;
    let producer = log.producer().batch_records(10).linger(Duration::from_secs(5)).build().await.unwrap();
    let mut deliveries = send(&producer, 0..10).await;
    deliveries.pop().unwrap().await.unwrap();
    log.writer.stalled.send_replace(true);
    *log.writer.faults.lock().unwrap() = vec![Fault::RefuseBatch(1, ErrorKind::Invalid)];
    let deliveries = send(&producer, 10..110).await;
    log.writer.stalled.send_replace(false);

    let mut failed = Vec::new();
    let mut stored = Vec::new();
    for (value, delivery) in (10..110).zip(deliveries) {
        match delivery.await {
            Ok(report) => stored.push((report.offset, value)),
            Err(error) => {
                assert!(
                    matches!(error, ClientError::Refused { .. } | ClientError::Abandoned { .. }),
                    "{error}"
                );
                failed.push(value);
            }
        }
    }
    assert!(!failed.is_empty() && failed.len() <= 40, "{failed:?}");
    let expected: Vec<_> = (0..10).chain(stored.iter().map(|(_, value)| *value)).collect();
    assert_eq!(values(&log, expected.len()).await, expected, "in order, each once");
    assert!(stored.iter().all(|(offset, value)| expected[*offset as usize] == *value));
    let stats = producer.stats();
    assert_eq!((stats.failed, stats.acknowledged), (failed.len() as u64, 10 + stored.len() as u64));
}

#[tokio::test]
async fn a_takeover_by_another_address_is_followed() {
    let mut log = Log::start(&[("orders", 1)]).await;
    let producer = log.producer().batch_records(10).build().await.unwrap();
    join_all(send(&producer, 0..50).await).await.into_iter().for_each(|report| drop(report.unwrap()));
    log.stop().await;
    let deliveries = send(&producer, 50..100).await;
    log.serve().await;
    for (offset, report) in (50..).zip(join_all(deliveries).await) {
        assert_eq!(report.unwrap().offset, offset);
    }
    assert_eq!(values(&log, 100).await, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_agent_that_hangs_is_left_when_another_has_its_leases() {
    let mut log = Log::without_agent(&[("orders", 4)]).await;
    // Connections to a process that is stopped are taken, and nothing comes back.
    let stopped = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    log.writer.lease(&stopped.local_addr().unwrap().to_string()).await;
    let timeout = Duration::from_secs(3600);
    let producer = log.producer().delivery_timeout(timeout).build().await.unwrap();
    let mut deliveries = Vec::new();
    for value in 0..40_u32 {
        deliveries.push(producer.send("orders", None, b"0", Some(value % 4)).await.unwrap());
    }
    let (_silent, _) = stopped.accept().await.unwrap();
    log.serve().await;
    for report in join_all(deliveries).await {
        report.unwrap();
    }
    assert_eq!(values(&log, 40).await.len(), 40, "each is stored once");
    producer.close().await.unwrap();
}

#[tokio::test]
async fn an_address_that_no_partition_points_to_is_disconnected() {
    let mut log = Log::without_agent(&[("orders", 1)]).await;
    let agent = log.serve().await;
    // The agent's old address is a way to it that ends when the producer closes its connection.
    let old = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stub = AgentId::new("stub").unwrap();
    log.store.register_agent(&stub, &old.local_addr().unwrap().to_string()).await.unwrap();
    let way = tokio::spawn(async move {
        let (mut producer, _) = old.accept().await.unwrap();
        let mut agent = tokio::net::TcpStream::connect(agent).await.unwrap();
        tokio::io::copy_bidirectional(&mut producer, &mut agent).await
    });

    let producer = log.producer().build().await.unwrap();
    assert_eq!(producer.send("orders", None, b"0", None).await.unwrap().await.unwrap().offset, 0);
    assert!(!way.is_finished(), "the producer keeps its connection");
    log.store.register_agent(&stub, &agent.to_string()).await.unwrap();
    log.writer.faults.lock().unwrap().push(Fault::FailRequest);
    assert_eq!(producer.send("orders", None, b"1", None).await.unwrap().await.unwrap().offset, 1);
    let ended = tokio::time::timeout(Duration::from_secs(30), way).await;
    assert!(ended.is_ok(), "the connection to the old address stays open");
    producer.close().await.unwrap();
}

#[tokio::test]
async fn without_an_agent_records_wait_then_fail_by_their_timeout_and_say_why() {
    let log = Log::without_agent(&[("orders", 1)]).await;
    let timeout = Duration::from_secs(3);
    let producer = log.producer().delivery_timeout(timeout).send_timeout(timeout).build().await.unwrap();
    let deliveries = send(&producer, 0..3).await;
    for delivery in deliveries {
        let error = delivery.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("no agent holds the partition's lease"), "{error}");
    }
    assert_eq!((producer.stats().failed, producer.stats().errors()), (3, 3));
    assert!(producer.flush().await.is_ok(), "nothing is left to fail");
}

#[tokio::test]
async fn what_can_never_be_stored_is_refused_at_once() {
    let log = Log::start(&[("orders", 2)]).await;
    let producer = log.producer().build().await.unwrap();
    let large = vec![0; RECORD_BYTES_MAX + 1];
    for (topic, value, partition, kind, says) in [
        ("orders", &large[..], None, ErrorKind::Invalid, "too large"),
        ("no/topic", b"v", None, ErrorKind::Invalid, "invalid topic name"),
        ("unknown", b"v", None, ErrorKind::NotFound, "streamhouse topic create unknown"),
        ("orders", b"v", Some(2), ErrorKind::NotFound, "has 2 partitions"),
    ] {
        let error = producer.send(topic, None, value, partition).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(producer.stats().refused, 4);
    assert_eq!(producer.stats().buffered_bytes, 0);
    // The largest record that may be is stored.
    let report = producer.send("orders", None, &large[1..], Some(1)).await.unwrap().await.unwrap();
    assert_eq!(report.offset, 0);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_the_reason() {
    let log = Log::without_agent(&[]).await;
    for (builder, says) in [
        (log.producer().batch_bytes(usize::MAX), "batch_bytes"),
        (log.producer().batch_records(0), "batch_records"),
        (log.producer().buffer_bytes(0), "buffer_bytes"),
        (log.producer().client_id(""), "client id"),
        (log.producer().linger(Duration::from_secs(60)), "delivery_timeout"),
        (log.producer().send_timeout(Duration::from_secs(60)), "send_timeout"),
    ] {
        let error = builder.build().await.err().expect("it is refused");
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(says), "{error}");
    }
    let error = streamhouse_client::Producer::builder().build().await.err().unwrap();
    assert!(error.to_string().contains("metadata_store"), "{error}");
}

#[tokio::test]
async fn a_record_after_a_pause_does_not_linger() {
    let log = Log::start(&[("orders", 1)]).await;
    let producer =
        log.producer().linger(Duration::from_secs(600)).delivery_timeout(Duration::from_secs(1200));
    let producer = producer.build().await.unwrap();
    let delivery = producer.send("orders", None, b"alone", None).await.unwrap();
    let report = tokio::time::timeout(Duration::from_secs(60), delivery).await.expect("it lingers").unwrap();
    assert_eq!(report.offset, 0);
}

#[tokio::test]
async fn closing_stores_everything_and_refuses_what_comes_later() {
    let log = Log::start(&[("orders", 1)]).await;
    let producer = log.producer().linger(Duration::from_secs(5)).build().await.unwrap();
    let deliveries = send(&producer, 0..100).await;
    producer.close().await.unwrap();
    assert_eq!(producer.stats().acknowledged, 100);
    join_all(deliveries).await.into_iter().for_each(|report| drop(report.unwrap()));
    assert!(matches!(producer.send("orders", None, b"v", None).await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn dropping_a_producer_loses_nothing() {
    let log = Log::start(&[("orders", 1)]).await;
    let producer = log.producer().linger(Duration::from_secs(5)).build().await.unwrap();
    let deliveries = send(&producer, 0..100).await;
    drop(producer);
    join_all(deliveries).await.into_iter().for_each(|report| drop(report.unwrap()));
    assert_eq!(values(&log, 100).await.len(), 100);
}

#[test]
fn a_runtime_that_shuts_down_fails_what_is_left() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (log_runtime, producer_runtime) = (runtime(), runtime());
    let log = log_runtime.block_on(Log::start(&[("orders", 1)]));
    log.writer.stalled.send_replace(true);
    let (producer, deliveries) = producer_runtime.block_on(async {
        let producer = log.producer().build().await.unwrap();
        let deliveries = send(&producer, 0..100).await;
        (producer, deliveries)
    });
    producer_runtime.shutdown_timeout(Duration::from_secs(5));
    log_runtime.block_on(async {
        for report in join_all(deliveries).await {
            assert!(matches!(report, Err(ClientError::Closed)), "{report:?}");
        }
        assert_eq!((producer.stats().failed, producer.stats().buffered_bytes), (100, 0));
        assert!(matches!(producer.send("orders", None, b"v", None).await, Err(ClientError::Closed)));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_producer() {
    let log = Log::start(&[("orders", 4)]).await;
    let producer = std::sync::Arc::new(log.producer().batch_bytes(4096).build().await.unwrap());
    let tasks = (0..8_u64).map(|task| {
        let producer = producer.clone();
        tokio::spawn(async move {
            let partition = (task % 4) as u32;
            let mut deliveries = Vec::new();
            for number in 0..1000 {
                let value = (task * 1000 + number).to_string();
                let sent = producer.send("orders", None, value.as_bytes(), Some(partition));
                deliveries.push(sent.await.unwrap());
            }
            let offsets: Vec<_> =
                join_all(deliveries).await.into_iter().map(|report| report.unwrap().offset).collect();
            assert!(offsets.is_sorted_by(|a, b| a < b), "a task's records are stored in its order");
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let mut all = values(&log, 8000).await;
    all.sort_unstable();
    assert_eq!(all, (0..8000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_has_no_more_batches_than_an_agent_takes() {
    const PARTITIONS: u32 = 1000;
    // Even when the request that stalls takes as many as it may, more than another may take are left.
    const BATCHES: u32 = 5 * PARTITIONS;
    let log = Log::start(&[("orders", PARTITIONS)]).await;
    let producer = log.producer().batch_records(1).requests_in_flight(1).build().await.unwrap();
    log.writer.stalled.send_replace(true);
    for value in 0..BATCHES {
        let partition = Some(value % PARTITIONS);
        drop(producer.send("orders", None, value.to_string().as_bytes(), partition).await.unwrap());
    }
    log.writer.stalled.send_replace(false);
    producer.flush().await.unwrap();
    let requests = log.writer.request_batches().await;
    assert!(requests.iter().all(|batches| *batches <= REQUEST_BATCHES_MAX), "{requests:?}");
    assert_eq!(requests.iter().sum::<usize>(), BATCHES as usize);
    assert_eq!(requests.iter().max(), Some(&REQUEST_BATCHES_MAX), "what waits goes out together");
}
