//! Each metric of the in-process plane moves when what it counts happens, under its exact name.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::time::Duration;
use streamhouse_metrics::{Kind, catalog};
use streamhouse_planes::World;
use streamhouse_tests::Exposition;

/// The series of these labels, of a counter, gauge or a histogram's count; 0 when there is none.
fn value(page: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    let metric = catalog::ALL.iter().find(|metric| metric.name == name).unwrap();
    match metric.kind {
        Kind::Histogram => page.sum(&format!("{name}_count"), labels),
        Kind::Counter | Kind::Gauge => page.sum(name, labels),
    }
}

const PRODUCER: [(&str, &str); 2] = [("instance_id", "web-1"), ("topic", "orders")];
const CONSUMER: [(&str, &str); 3] = [("instance_id", "reader-1"), ("group", "billing"), ("topic", "orders")];
const AGENT: [(&str, &str); 1] = [("instance_id", "agent-1")];

#[tokio::test(flavor = "multi_thread")]
async fn the_producers_metrics_move() {
    let world = World::start().await;
    let producer = world.producer_that_waits(Duration::from_secs(8)).await;
    let mut deliveries = Vec::new();
    for number in 0..100u8 {
        deliveries.push(producer.send("orders", Some(&[number]), &[7; 99], None).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let page = world.page().await.unwrap();
    let of = |name: &str| value(&page, name, &PRODUCER);
    assert_eq!(of("streamhouse_producer_records_sent_total"), 100.0);
    assert_eq!(of("streamhouse_producer_bytes_sent_total"), 10_000.0);
    assert_eq!(of("streamhouse_producer_send_duration_seconds"), 100.0);
    let batches = of("streamhouse_producer_batch_flush_duration_seconds");
    assert!((2.0..=100.0).contains(&batches), "{batches}");
    assert_eq!(of("streamhouse_producer_batch_size_records"), batches);
    assert_eq!(of("streamhouse_producer_batch_size_bytes"), batches);
    assert_eq!(page.sum("streamhouse_producer_batch_size_records_sum", &PRODUCER), 100.0);
    assert_eq!(page.sum("streamhouse_producer_batch_size_bytes_sum", &PRODUCER), 10_000.0);
    assert_eq!(of("streamhouse_producer_pending_records"), 0.0);
    assert_eq!(of("streamhouse_producer_send_errors_total"), 0.0);
    assert_eq!(
        page.select("streamhouse_producer_records_sent_total", &PRODUCER).count(),
        2,
        "one a partition"
    );

    // Without an agent records wait, then fail.
    world.agent.shutdown().await;
    let late = producer.send("orders", None, b"late", Some(1)).await.unwrap();
    let page = world.clients.page();
    assert_eq!(value(&page, "streamhouse_producer_pending_records", &PRODUCER), 1.0);
    late.await.unwrap_err();
    let page = world.clients.page();
    assert_eq!(value(&page, "streamhouse_producer_send_errors_total", &PRODUCER), 1.0);
    assert_eq!(value(&page, "streamhouse_producer_pending_records", &PRODUCER), 0.0);
    drop(producer);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumers_metrics_move() {
    let world = World::start().await;
    let producer = world.producer().await;
    let mut consumer = world.consumer().await;
    for number in 0..60u8 {
        drop(producer.send("orders", None, &[number; 50], Some(0)).await.unwrap());
    }
    producer.flush().await.unwrap();
    let mut records = 0;
    while records < 60 {
        records += consumer.poll(Duration::from_secs(5)).await.unwrap().len();
    }
    consumer.commit_offset("orders", 0, 20).await.unwrap();
    let page = world.page().await.unwrap();
    let of = |name: &str| value(&page, name, &CONSUMER);
    assert_eq!(of("streamhouse_consumer_records_consumed_total"), 60.0);
    assert_eq!(of("streamhouse_consumer_bytes_consumed_total"), 3000.0);
    assert!(of("streamhouse_consumer_poll_duration_seconds") >= 1.0);
    assert_eq!(of("streamhouse_consumer_current_offset"), 60.0);
    assert_eq!(of("streamhouse_consumer_last_committed_offset"), 20.0);
    assert_eq!(of("streamhouse_consumer_lag_records"), 40.0);
    assert_eq!(consumer.lag("orders", 0).await.unwrap(), 40);
    assert!(of("streamhouse_consumer_lag_seconds") > 0.0);
    assert!(
        page.sum(
            "streamhouse_object_store_operations_total",
            &[("instance_id", "reader-1"), ("status", "ok")]
        ) > 0.0
    );

    consumer.commit().await.unwrap();
    let page = world.page().await.unwrap();
    assert_eq!(value(&page, "streamhouse_consumer_lag_records", &CONSUMER), 0.0);
    assert_eq!(value(&page, "streamhouse_consumer_lag_seconds", &CONSUMER), 0.0);
    // Who stops reading a partition does not speak of it any more.
    consumer.close().await.unwrap();
    let page = world.page().await.unwrap();
    assert_eq!(page.select("streamhouse_consumer_lag_records", &CONSUMER).count(), 0);
    assert_eq!(value(&page, "streamhouse_consumer_records_consumed_total", &CONSUMER), 60.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_metrics_move() {
    let world = World::start().await;
    let page =
        world.until("two leases", |page| value(page, "streamhouse_agent_active_partitions", &AGENT) == 2.0);
    assert_eq!(value(&page.await, "streamhouse_agent_records_written_total", &AGENT), 0.0);
    // Through its port, so that requests and connections are counted.
    let address = world.agent.grpc_address().to_string();
    let store = streamhouse_client::RemoteMetadataStore::builder(address).build().await.unwrap();
    let producer = streamhouse_client::Producer::builder()
        .metadata_store(std::sync::Arc::new(store))
        .build()
        .await
        .unwrap();
    producer.send("orders", None, b"one", Some(0)).await.unwrap().await.unwrap();
    producer.send("nowhere", None, b"lost", None).await.unwrap_err();
    let page = world
        .until("renewals", |page| value(page, "streamhouse_agent_lease_renewals_total", &AGENT) >= 2.0)
        .await;
    let of = |name: &str| value(&page, name, &AGENT);
    assert_eq!(of("streamhouse_agent_records_written_total"), 1.0);
    assert_eq!(of("streamhouse_agent_bytes_written_total"), 3.0);
    assert_eq!(of("streamhouse_agent_write_latency_seconds"), 1.0);
    assert!(of("streamhouse_agent_active_connections") >= 1.0);
    let requests = |method, status| {
        page.sum("streamhouse_agent_grpc_requests_total", &[("method", method), ("status", status)])
    };
    assert_eq!(requests("Produce", "ok"), 1.0);
    assert_eq!(requests("GetTopic", "not_found"), 1.0);
    assert_eq!(
        page.sum("streamhouse_agent_grpc_request_duration_seconds_count", &[("method", "Produce")]),
        1.0
    );
    assert_eq!(of("streamhouse_agent_commit_duration_seconds"), 1.0);
    assert_eq!(of("streamhouse_agent_ready"), 1.0);
    assert_eq!(of("streamhouse_agent_unflushed_bytes"), 0.0);
    assert_eq!(of("streamhouse_agent_unflushed_age_seconds"), 0.0);
    assert!(
        page.select("streamhouse_agent_lease_losses_total", &AGENT).next().is_some(),
        "there from the start"
    );
    assert!(page.select("streamhouse_agent_lease_fencings_total", &AGENT).next().is_some());
    for host in ["streamhouse_host_cpus", "streamhouse_host_memory_total_bytes"] {
        assert!(page.sum(host, &[]) >= 1.0, "{host}");
    }
    drop(producer);
    world.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_exactly_those_of_the_catalog() {
    let world = World::start().await;
    let producer = world.producer().await;
    let mut consumer = world.consumer().await;
    producer.send("orders", None, b"one", Some(0)).await.unwrap().await.unwrap();
    while consumer.poll(Duration::from_secs(5)).await.unwrap().is_empty() {}
    consumer.commit().await.unwrap();
    let text = world.text().await.unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let known = catalog::ALL.iter().any(|metric| match metric.kind {
            Kind::Histogram => {
                ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{}{end}", metric.name))
            }
            Kind::Counter | Kind::Gauge => name == metric.name,
        });
        assert!(known, "{line}");
    }
    let text = world.clients.text();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for family in families {
        assert!(!family.ends_with("_total"), "OpenMetrics appends it to the samples: {family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_has_native_histograms_beside_the_classic_ones() {
    let world = World::start().await;
    let producer = world.producer().await;
    for length in [1, 2, 3, 700, 70_000] {
        producer.send("orders", None, &vec![7; length], Some(0)).await.unwrap().await.unwrap();
    }
    let families = world.clients.protobuf();
    let histograms: Vec<_> = families
        .iter()
        .flat_map(|family| &family.metric)
        .filter_map(|metric| metric.histogram.as_ref())
        .collect();
    assert_eq!(histograms.len(), 4, "what a producer observes");
    for histogram in histograms {
        assert_eq!((histogram.schema, histogram.sample_count), (3, 5));
        // Buckets by index, each ending at 2^(index/8).
        let mut native = Vec::new();
        let (mut next, mut count) = (0, 0);
        let mut deltas = histogram.positive_delta.iter();
        for span in &histogram.positive_span {
            next += span.offset;
            for _ in 0..span.length {
                count += deltas.next().unwrap();
                native.push((next, count as u64));
                next += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        for classic in &histogram.bucket {
            let within = native.iter().filter(|(index, _)| {
                2f64.powf(f64::from(*index) / 8.0) <= classic.upper_bound * (1.0 + 1e-9)
            });
            let below: u64 = within.map(|(_, count)| count).sum();
            assert_eq!(below + histogram.zero_count, classic.cumulative_count, "{}", classic.upper_bound);
        }
    }
}
