use super::*;
use std::time::Duration;
use streamhouse_core::batch::{BatchHeader, Compression};
use streamhouse_core::{ManualClock, TopicName};
use streamhouse_hooks::Role;

const TIMEOUT_NS: u64 = 30_000_000_000;
const LINGER_NS: u64 = 1_000_000;

fn config(batch_records: usize) -> Config {
    Config {
        batch_bytes: 4096,
        batch_records,
        linger: Duration::from_nanos(LINGER_NS),
        compression: Compression::None,
        buffer_bytes: 1 << 20,
        delivery_timeout: Duration::from_nanos(TIMEOUT_NS),
        send_timeout: Duration::from_secs(1),
        requests_in_flight: 1,
    }
}

fn lane() -> Arc<Lane> {
    let partition = TopicPartition { topic: TopicName::new("orders").unwrap(), partition: 0 };
    Lane::new(partition, Arc::new(Sticky::new(0, 2)), 7, &Instance::new(Role::Producer, "test", ""))
}

fn push(lane: &Lane, value: &[u8], sent_ns: u64, config: &Config) -> Wake {
    let record = NewRecord { timestamp_ms: None, key: None, value, headers: &[] };
    let pushed = lane.push(&record, (sent_ns, record.cost_bytes()), config, &ManualClock::default());
    pushed.unwrap().wake
}

/// `count` sealed batches of one record each, sent at 0, 1, 2, ...
fn with_batches(count: u64) -> (Arc<Lane>, Config) {
    let (lane, config) = (lane(), config(1));
    for sent_ns in 0..count {
        push(&lane, b"v", sent_ns, &config);
    }
    (lane, config)
}

/// Producer id, epoch and sequence of each batch.
fn stamps(taken: &[Outgoing]) -> Vec<(u64, i16, i32)> {
    let stamp = |outgoing: &Outgoing| BatchHeader::check(&outgoing.bytes).unwrap().producer.unwrap();
    taken.iter().map(stamp).map(|stamp| (stamp.producer_id, stamp.epoch, stamp.base_sequence)).collect()
}

fn errors(failed: &[FailedBatch]) -> Vec<&'static str> {
    let name = |(_, error): &FailedBatch| match error {
        ClientError::DeliveryTimeout { .. } => "timeout",
        ClientError::Abandoned { .. } => "abandoned",
        ClientError::Refused { .. } => "refused",
        _ => "other",
    };
    failed.iter().map(name).collect()
}

#[test]
fn a_lone_record_waits_for_linger_unless_there_is_a_hurry() {
    let (lane, config) = (lane(), config(10));
    assert_eq!(push(&lane, b"v", 100, &config), Wake::Enlist);
    assert_eq!(push(&lane, b"v", 200, &config), Wake::No);
    assert_eq!(lane.step(300, false, &config).0, Step::Wait { until_ns: 100 + LINGER_NS });
    let send = Step::Send { deadline_ns: 100 + TIMEOUT_NS };
    assert_eq!(lane.step(100 + LINGER_NS, false, &config).0, send);
    assert_eq!(lane.take(usize::MAX, usize::MAX).len(), 1);
    // Whoever comes while a request is out waits for its answer.
    assert_eq!(push(&lane, b"v", 300, &config), Wake::No);
    assert_eq!(lane.step(u64::MAX, false, &config).0, Step::InFlight);
    assert_eq!(lane.settle(vec![Answer::Stored(0)]).stored.len(), 1);
    assert_eq!(lane.step(400, true, &config).0, Step::Send { deadline_ns: 300 + TIMEOUT_NS });
    lane.take(usize::MAX, usize::MAX);
    lane.settle(vec![Answer::Stored(2)]);
    assert_eq!(lane.step(500, false, &config).0, Step::Idle);
    assert_eq!(push(&lane, b"v", 600, &config), Wake::Enlist);
}

#[test]
fn a_full_batch_wakes_the_dispatcher_and_moves_records_without_a_key_on() {
    let (lane, config) = (lane(), config(2));
    push(&lane, b"v", 0, &config);
    assert_eq!(lane.sticky.current(), 0);
    assert_eq!(push(&lane, b"v", 0, &config), Wake::Now);
    assert_eq!(lane.sticky.current(), 1);
}

#[test]
fn a_request_takes_a_window_and_a_retry_the_same_bytes() {
    let (lane, _) = with_batches(7);
    let first = lane.take(usize::MAX, usize::MAX);
    assert_eq!(stamps(&first), (0..5).map(|sequence| (7, 0, sequence)).collect::<Vec<_>>());
    let again = Answer::Again("busy".into());
    let mut answers = vec![Answer::Stored(0), again.clone(), again.clone(), again.clone(), again];
    let settled = lane.settle(answers.clone());
    assert_eq!((settled.stored.len(), settled.again), (1, Some(Again { attempt: 1, moved: false })));
    let second = lane.take(usize::MAX, usize::MAX);
    assert_eq!(stamps(&second), (1..6).map(|sequence| (7, 0, sequence)).collect::<Vec<_>>());
    assert!(first[1..].iter().zip(&second).all(|(first, second)| first.bytes == second.bytes));
    // Failures in a row are counted until everything was stored.
    assert_eq!(lane.settle(std::mem::take(&mut answers)).again, Some(Again { attempt: 2, moved: false }));
    let rest = lane.take(usize::MAX, usize::MAX).len();
    assert_eq!(lane.settle(vec![Answer::Stored(2); rest]).again, None);
}

#[test]
fn a_request_without_room_takes_nothing() {
    let (lane, _) = with_batches(2);
    assert!(lane.take(10, usize::MAX).is_empty());
    let bytes = lane.take(usize::MAX, usize::MAX)[0].bytes.len();
    lane.settle(vec![Answer::Again("busy".into()); 2]);
    assert_eq!(lane.take(2 * bytes - 1, usize::MAX).len(), 1);
}

#[test]
fn a_request_takes_no_more_batches_than_it_may_have() {
    let (lane, _) = with_batches(7);
    assert!(lane.take(usize::MAX, 0).is_empty());
    assert_eq!(lane.take(usize::MAX, 3).len(), 3);
}

#[test]
fn a_batch_that_has_left_the_lane_is_waited_for_until_its_promise_is_kept() {
    let (lane, config) = with_batches(2);
    let (_, failed) = lane.step(TIMEOUT_NS, false, &config);
    let expired = &failed[0].0;
    assert_eq!(lane.seal().len(), 2);
    lane.take(usize::MAX, usize::MAX);
    let settled = lane.settle(vec![Answer::Stored(0)]);
    let stored = &settled.stored[0].0;
    assert_eq!(lane.seal().len(), 2, "a flush that comes now would miss how they ended");
    lane.kept(&stored.promise);
    lane.kept(&expired.promise);
    assert!(lane.seal().is_empty());
}

#[test]
fn a_batch_that_was_never_sent_expires_alone() {
    let (lane, config) = with_batches(3);
    let (step, failed) = lane.step(1 + TIMEOUT_NS, false, &config);
    assert_eq!(errors(&failed), ["timeout", "timeout"]);
    assert_eq!(step, Step::Send { deadline_ns: 2 + TIMEOUT_NS });
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(7, 0, 0)], "no gap is left");
}

#[test]
fn with_a_sent_batch_those_behind_it_that_were_sent_expire_and_a_new_epoch_begins() {
    let (lane, config) = with_batches(7);
    lane.take(usize::MAX, usize::MAX);
    lane.settle(vec![Answer::Again("busy".into()); 5]);
    let (step, failed) = lane.step(TIMEOUT_NS, false, &config);
    assert_eq!(errors(&failed), ["timeout", "abandoned", "abandoned", "abandoned", "abandoned"]);
    assert!(failed[1].1.to_string().contains("busy"), "{}", failed[1].1);
    assert_eq!(step, Step::Send { deadline_ns: 5 + TIMEOUT_NS });
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(7, 1, 0), (7, 1, 1)]);
}

#[test]
fn after_the_last_epoch_a_new_id_is_taken() {
    let (lane, config) = with_batches(7);
    lock(&lane.state).stamp = Some(ProducerStamp { epoch: i16::MAX, ..first_stamp(7) });
    lane.take(usize::MAX, usize::MAX);
    lane.settle(vec![Answer::Again("busy".into()); 5]);
    let (step, _) = lane.step(TIMEOUT_NS, false, &config);
    assert_eq!(step, Step::AskId { deadline_ns: 5 + TIMEOUT_NS });
    assert!(lane.take(usize::MAX, usize::MAX).is_empty());
    lane.ask();
    assert_eq!(lane.step(TIMEOUT_NS, false, &config).0, Step::Wait { until_ns: 5 + TIMEOUT_NS });
    lane.set_producer_id(8);
    lane.answered(None);
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(8, 0, 0), (8, 0, 1)]);
}

#[test]
fn what_is_refused_for_good_takes_along_what_was_sent_behind_it() {
    let (lane, _) = with_batches(6);
    lane.take(usize::MAX, usize::MAX);
    let again = Answer::Again("a gap".into());
    let refused = Answer::Refused(ErrorKind::Invalid, "no".into());
    let settled = lane.settle(vec![Answer::Stored(0), refused, again.clone(), again.clone(), again]);
    assert_eq!(errors(&settled.failed), ["refused", "abandoned", "abandoned", "abandoned"]);
    assert_eq!((settled.stored.len(), settled.again), (1, None));
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(7, 1, 0)], "the last was not sent before");
}

#[test]
fn numbers_that_are_used_up_start_over_in_a_new_epoch() {
    let (lane, config) = with_batches(3);
    lock(&lane.state).stamp = Some(ProducerStamp { base_sequence: i32::MAX - 2, ..first_stamp(7) });
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(7, 0, i32::MAX - 2), (7, 0, i32::MAX - 1)]);
    lane.settle(vec![Answer::Stored(0), Answer::Again("busy".into())]);
    // The old number goes out by itself: the agent keeps order within one epoch only.
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(7, 0, i32::MAX - 1)]);
    lane.settle(vec![Answer::Stored(1)]);
    assert!(matches!(lane.step(0, false, &config).0, Step::Send { .. }));
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(7, 1, 0)]);
}

#[test]
fn behind_a_full_window_a_batch_grows_beyond_its_size_and_no_further_than_a_batch_may() {
    let (lane, config) = (lane(), config(BATCH_BYTES_MAX));
    for sent_ns in 0..2_500 {
        push(&lane, &[0; 1000], sent_ns, &config);
    }
    lane.seal();
    let sizes: Vec<_> = lock(&lane.state).sealed.iter().map(SealedBatch::wire_bytes_max).collect();
    let (window, grown) = sizes.split_at(IDEMPOTENCE_WINDOW);
    assert!(window.iter().all(|bytes| *bytes <= config.batch_bytes), "{sizes:?}");
    assert!(grown.iter().all(|bytes| *bytes <= BATCH_BYTES_MAX) && grown.len() == 3, "{sizes:?}");
}

#[test]
fn records_are_dated_by_the_one_reading_of_the_clock() {
    let clock = ManualClock::default();
    clock.advance(Duration::from_millis(5000));
    let (lane, config) = (lane(), config(10));
    let record = NewRecord { timestamp_ms: None, key: None, value: b"v", headers: &[] };
    for sent_ms in [4990, 5000, 5003] {
        lane.push(&record, (sent_ms * 1_000_000, 50), &config, &clock).map(drop).unwrap();
    }
    lane.seal();
    let batch = lane.take(usize::MAX, usize::MAX).remove(0).bytes;
    let records = streamhouse_core::batch::RecordIter::new(batch).unwrap();
    let dates: Vec<_> = records.map(|record| record.unwrap().1.timestamp_ms).collect();
    assert_eq!(dates, [4990, 5000, 5003]);
}

#[test]
fn what_cannot_be_sent_is_given_up_and_what_comes_later_has_an_epoch_of_its_own() {
    let (lane, config) = with_batches(7);
    lane.take(usize::MAX, usize::MAX);
    assert_eq!(
        lane.settle(vec![Answer::Moved("elsewhere".into()); 5]).again.unwrap(),
        Again { attempt: 1, moved: true }
    );
    lane.ask();
    let failed = lane.refuse(ErrorKind::Invalid, &"the token has expired".into());
    assert_eq!(failed.len(), 7);
    assert!(failed.iter().all(|(_, error)| error.to_string().contains("the token has expired")));
    push(&lane, b"v", 10, &config);
    assert_eq!(stamps(&lane.take(usize::MAX, usize::MAX)), [(7, 1, 0)]);
}
