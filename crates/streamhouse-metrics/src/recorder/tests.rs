use super::*;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

fn labels(role: Role, partition: Option<u32>) -> Labels {
    Labels { role, instance_id: "web-1".into(), group: "".into(), topic: "orders".into(), partition }
}

fn event(status: u8, records: u64, duration_ns: u64) -> Event<'static> {
    Event { status, records, bytes: 100 * records, duration_ns, bins: None }
}

fn exposed(recorder: &Arc<Recorder>) -> String {
    let mut registry = Registry::default();
    recorder.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn partitions_have_counters_of_their_own_and_share_a_histogram() {
    let recorder = Arc::new(Recorder::default());
    let subjects = [0, 1].map(|partition| recorder.subject(&labels(Role::Producer, Some(partition))));
    for subject in &subjects {
        subject.record(Site::Flush, 0, event(0, 4, 1_000_000_000));
    }
    subjects[1].record(Site::Send, 0, event(6, 3, 5));
    let text = exposed(&recorder);
    let line = |line: &str| assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    line(r#"streamhouse_producer_batch_flush_duration_seconds_sum{instance_id="web-1",topic="orders"} 2.0"#);
    line(r#"streamhouse_producer_batch_flush_duration_seconds_count{instance_id="web-1",topic="orders"} 2"#);
    line(
        r#"streamhouse_producer_batch_flush_duration_seconds_bucket{le="1.0",instance_id="web-1",topic="orders"} 2"#,
    );
    line(r#"streamhouse_producer_batch_size_records_sum{instance_id="web-1",topic="orders"} 8.0"#);
    line(
        r#"streamhouse_producer_send_errors_total{instance_id="web-1",topic="orders",partition="1",status="unavailable"} 3"#,
    );
    assert!(!text.contains("_total_total"), "{text}");
    assert!(
        !text.contains(r#"records_sent_total{instance_id="web-1",topic="orders",partition="0"}"#),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn values_end_with_whoever_sets_them_and_counters_stay() {
    let recorder = Arc::new(Recorder::default());
    let pending = recorder.value(Gauge::ProducerPendingRecords, labels(Role::Producer, Some(0)));
    let renewals = recorder.value(Gauge::AgentLeaseRenewals, labels(Role::Agent, None));
    assert!(!exposed(&recorder).contains("pending"), "it was never set");
    pending.add(7);
    renewals.set(5);
    let text = exposed(&recorder);
    assert!(text.contains("streamhouse_producer_pending_records{") && text.contains("} 7\n"), "{text}");
    drop((pending, renewals));
    let text = exposed(&recorder);
    assert!(!text.contains("pending"), "{text}");
    assert!(text.contains(r#"streamhouse_agent_lease_renewals_total{instance_id="web-1"} 5"#), "{text}");
    recorder.value(Gauge::AgentLeaseRenewals, labels(Role::Agent, None)).set(2);
    assert!(exposed(&recorder).contains(r#"renewals_total{instance_id="web-1"} 7"#));
}

#[test]
fn dropped_values_do_not_pile_up_while_nobody_scrapes() {
    let recorder = Recorder::default();
    for _ in 0..10_000 {
        recorder.value(Gauge::GroupLagRecords, labels(Role::Agent, Some(0))).set(1);
    }
    assert!(recorder.state().values.len() <= 64);
}

#[test]
fn label_sets_end_a_while_after_their_subjects_and_a_histogram_as_a_whole() {
    let recorder = Recorder::default();
    let begin = Instant::now();
    let stays = recorder.subject(&labels(Role::Agent, Some(0)));
    drop(recorder.subject(&labels(Role::Agent, Some(1))));
    drop(recorder.subject(&Labels { topic: "other".into(), ..labels(Role::Agent, Some(0)) }));
    let rows = || recorder.state().rows.len();
    recorder.state().expire(begin);
    recorder.state().expire(begin + KEPT_AFTER_END / 2);
    assert_eq!(rows(), 3);
    recorder.state().expire(begin + KEPT_AFTER_END);
    assert_eq!(rows(), 2, "partition 1 is in the histogram of one that lives");
    drop(stays);
    recorder.state().expire(begin + 2 * KEPT_AFTER_END);
    recorder.state().expire(begin + 3 * KEPT_AFTER_END);
    assert_eq!(rows(), 0);
}

#[test]
fn many_threads_lose_nothing() {
    let recorder = Arc::new(Recorder::default());
    let subject = recorder.subject(&labels(Role::Agent, Some(0)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|ns| subject.record(Site::Write, 0, event(0, 1, ns))));
        }
    });
    let text = exposed(&recorder);
    assert!(
        text.contains("records_written_total{instance_id=\"web-1\",topic=\"orders\",partition=\"0\"} 40000")
    );
    assert!(
        text.contains("write_latency_seconds_count{instance_id=\"web-1\",topic=\"orders\"} 40000"),
        "{text}"
    );
    let sum = 4.0 * (0..10_000u64).sum::<u64>() as f64 / 1e9;
    assert!(
        text.contains(&format!("write_latency_seconds_sum{{instance_id=\"web-1\",topic=\"orders\"}} {sum}")),
        "{text}"
    );
}
