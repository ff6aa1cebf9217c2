//! Every count, byte and bucket is exact.

use std::thread;
use std::time::{Duration, Instant};

use streamhouse_abi::map::Counter;
use streamhouse_abi::{Bin, Bins, Method, Operation, Role, Site, Status, UNTIMED, bucket};
use streamhouse_hooks::{self as hooks, Commit, Flush, Instance, Object, Poll, Request, Scope, Send, Write};
use streamhouse_metrics::Label;
use streamhouse_metrics::sources::of_site;
use streamhouse_probe::attach::{self, Kernel};
use streamhouse_probe::collect::{Collector, Detail};
use streamhouse_probe::room::Room;

use crate::observer::{Observer, filled, of, succeeded};
use crate::raw::{Arguments, RawScope};

const THREADS: u64 = 4;
const EVENTS: u64 = 5_000;
/// Latencies of the records of each batch, in ns.
const LATENCIES: [u64; 5] = [900, 1_000_000, 1_000_000, 2_500_000, 70_000_000_000];

/// The bucket of a duration, as floating point has it.
fn reference(ns: u64) -> usize {
    (8.0 * ((ns as f64 / 1e9).log2() + 20.0)).ceil().clamp(0.0, bucket::PAST as f64) as usize
}

/// Fires each hook once; every seventh time the operation failed.
fn fire_all(scope: &Scope, event: u64) {
    let status = if event.is_multiple_of(7) { Status::Unavailable as u8 } else { 0 };
    let (records, bytes) = (1 + event % 3, 100 + event % 11);
    let ended_ns = 100_000_000_000;
    let sent_ns = LATENCIES.map(|latency| ended_ns - latency);
    hooks::send(scope, Send { records: 5, bytes, sent_ns: &sent_ns, ended_ns, status });
    hooks::flush(scope, Flush { records, bytes, started: hooks::flush::start(), status });
    hooks::poll(scope, Poll { records, bytes, started: hooks::poll::start(), status });
    hooks::write(scope, Write { records, bytes, started: hooks::write::start(), status });
    let operation = Operation::Get;
    hooks::object(scope, Object { operation, bytes, started: hooks::object::start(), status });
    hooks::commit(scope, Commit { records, bytes, started: hooks::commit::start(), status });
    let method = Method::Produce;
    hooks::request(scope, Request { method, started: hooks::request::start(), status });
}

pub(crate) fn hooks_from_several_threads() {
    let mut observer = Observer::new();
    let _link = observer.attach_hooks(1);
    let instance = Instance::new(Role::Consumer, "several", "group");
    let scope = instance.scope("threads", Some(5));
    thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| (0..EVENTS).for_each(|event| fire_all(&scope, event)));
        }
    });
    let sums = observer.sums();
    let good = || (0..EVENTS).filter(|event| !event.is_multiple_of(7));
    let failed = EVENTS - good().count() as u64;
    let sum = |of: fn(u64) -> u64| THREADS * good().map(of).sum::<u64>();
    for site in Site::ALL {
        let found = of(&sums, site, "threads");
        let labels = found.key.labels.as_ref().expect("not the overflow series");
        let has = |label| of_site(site).has(label);
        let group = if has(Label::Group) { "group" } else { "" };
        assert_eq!((labels.instance_id.as_str(), labels.group.as_str()), ("several", group));
        let partition = has(Label::Partition).then_some(5);
        assert_eq!((labels.role, labels.partition), (Role::Consumer, partition));
        let counts = &found.counts;
        let records = match site {
            Site::Send => sum(|_| 5),
            Site::Object | Site::Request => 0,
            _ => sum(|event| 1 + event % 3),
        };
        assert_eq!(succeeded(counts), (sum(|_| 1), records), "{site:?}");
        let bytes = if site == Site::Request { 0 } else { sum(|event| 100 + event % 11) };
        assert_eq!(counts.bytes, bytes, "{site:?}");
        assert_eq!(counts.operations_with(Status::Unavailable), THREADS * failed, "{site:?}");
        let timed: u64 = counts.durations.iter().sum();
        assert_eq!(timed, if site == Site::Send { records } else { sum(|_| 1) }, "{site:?}");
        let detail = match site {
            Site::Object => Detail::Operation(Operation::Get),
            Site::Request => Detail::Method(Method::Produce),
            _ => Detail::None,
        };
        assert_eq!(found.key.detail, detail);
    }
    let sizes = of(&sums, Site::Flush, "threads").counts.sizes.as_ref().expect("flush counts sizes");
    let batches = |records: u64| THREADS * good().filter(|event| 1 + event % 3 == records).count() as u64;
    // log2(3) * 8 is 12.7.
    assert_eq!(filled(&sizes.records), [(0, batches(1)), (8, batches(2)), (13, batches(3))]);
}

pub(crate) fn send_bins() {
    let mut observer = Observer::new();
    let _link = observer.attach_hooks(1);
    let scope = Instance::new(Role::Producer, "bins", "").scope("bins", None);
    // One bucket each, and more of them than the program reads at once.
    let spread: Vec<u64> = (0..150).map(|step| (1_000.0 * 1.1f64.powi(step)) as u64).collect();
    let ended_ns = u64::MAX / 2;
    let mut expected = [0; bucket::COUNT];
    for latencies in [&LATENCIES[..], &spread, &spread[..10], &spread[..11]] {
        let sent_ns: Vec<u64> = latencies.iter().map(|latency| ended_ns - latency).collect();
        let records = sent_ns.len() as u64;
        hooks::send(&scope, Send { records, bytes: 1, sent_ns: &sent_ns, ended_ns, status: 0 });
        latencies.iter().for_each(|&latency| expected[reference(latency)] += 1);
    }
    let sums = observer.sums();
    let counts = &of(&sums, Site::Send, "bins").counts;
    assert_eq!(filled(&counts.durations), filled(&expected));
    let total = |latencies: &[u64]| latencies.iter().sum::<u64>();
    let sum = total(&LATENCIES) + total(&spread) + total(&spread[..10]) + total(&spread[..11]);
    assert_eq!(counts.duration_ns, sum);
}

pub(crate) fn every_bucket() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let scope = RawScope::new("buckets");
    let thresholds = || bucket::DURATION_THRESHOLDS_NS.iter().take(bucket::REGULAR + 1);
    let durations: Vec<u64> = thresholds().flat_map(|&ns| [ns, ns + 1]).chain([0, 1 << 42]).collect();
    let mut expected = [0; bucket::COUNT];
    for &duration_ns in &durations {
        expected[reference(duration_ns)] += 1;
        for site in Site::ALL.into_iter().filter(|&site| site != Site::Send) {
            let with = Arguments { records: 1, bytes: 0, duration_ns, status: 0, particular: 0 };
            scope.hit(site, with);
        }
    }
    let size_of = |size: u64| (8.0 * (size as f64).log2()).ceil().clamp(0.0, bucket::PAST as f64) as usize;
    let mut by_records = [0; bucket::COUNT];
    let mut by_bytes = [0; bucket::COUNT];
    let powers = RawScope::new("powers");
    for size in (0..=24).flat_map(|exponent| [(1u64 << exponent) - 1, 1 << exponent]) {
        let with = Arguments { records: size, bytes: size << 8, duration_ns: 5, status: 0, particular: 0 };
        powers.hit(Site::Flush, with);
        by_records[size_of(size)] += 1;
        by_bytes[size_of(size << 8)] += 1;
    }
    let sums = observer.sums();
    for site in Site::ALL.into_iter().filter(|&site| site != Site::Send) {
        let counts = &of(&sums, site, "buckets").counts;
        assert_eq!(filled(&counts.durations), filled(&expected), "{site:?}");
        assert_eq!(counts.duration_ns, durations.iter().sum::<u64>(), "{site:?}");
    }
    let sizes = of(&sums, Site::Flush, "powers").counts.sizes.as_ref().expect("flush counts sizes");
    assert_eq!(filled(&sizes.records), filled(&by_records));
    assert_eq!(filled(&sizes.bytes), filled(&by_bytes));
}

pub(crate) fn untimed() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let scope = RawScope::new("untimed");
    for site in Site::ALL {
        let with = Arguments { records: 3, bytes: 4, duration_ns: UNTIMED, status: 0, particular: 0 };
        scope.hit(site, with);
    }
    let sums = observer.sums();
    for site in Site::ALL {
        let counts = &of(&sums, site, "untimed").counts;
        assert_eq!((succeeded(counts), counts.bytes), ((1, 3), 4), "{site:?}");
        assert_eq!((filled(&counts.durations), counts.duration_ns), (vec![], 0), "{site:?}");
    }
    assert_eq!(sums.counter(Counter::BinsLost), 0);
}

pub(crate) fn failures() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let scope = RawScope::new("failures");
    let mut bins = Bins { len: 1, bins: [Bin::default(); bucket::COUNT] };
    bins.bins[0] = Bin { bucket: 9, records: 2 };
    for status in Status::ALL.into_iter().skip(1) {
        for site in Site::ALL {
            let particular = if site == Site::Send { &raw const bins as u64 } else { 0 };
            let with =
                Arguments { records: 2, bytes: 50, duration_ns: 70, status: status as u64, particular };
            (0..=status as u64).for_each(|_| scope.hit(site, with));
        }
    }
    let sums = observer.sums();
    for site in Site::ALL {
        let counts = &of(&sums, site, "failures").counts;
        for status in Status::ALL.into_iter().skip(1) {
            let times = status as u64 + 1;
            assert_eq!(counts.operations_with(status), times, "{site:?} {status:?}");
            assert_eq!(counts.records_with(status), 2 * times, "{site:?} {status:?}");
        }
        assert_eq!((succeeded(counts), counts.bytes, counts.duration_ns), ((0, 0), 0, 0), "{site:?}");
        assert_eq!(filled(&counts.durations), [], "{site:?}");
    }
}

pub(crate) fn object_operations() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let scope = RawScope::new("operations");
    for operation in Operation::ALL {
        let bytes = 1_000 * (operation as u64 + 1);
        let with =
            Arguments { records: 0, bytes, duration_ns: 5_000, status: 0, particular: operation as u64 };
        scope.hit(Site::Object, with);
    }
    let sums = observer.sums();
    let found: Vec<_> = sums.sites.iter().map(|site| (site.key.detail, site.counts.bytes)).collect();
    let expected: Vec<_> = Operation::ALL
        .iter()
        .map(|&operation| (Detail::Operation(operation), 1_000 * (operation as u64 + 1)))
        .collect();
    assert_eq!(found, expected);
}

pub(crate) fn calibrated() {
    let object = attach::object(None).expect("checked before any trial");
    let Kernel { maps, hit_cost, .. } = Kernel::load_calibrated(&object).expect("the program loads");
    assert!(hit_cost.expect("it could be attached") > Duration::ZERO);
    let sums =
        Collector::new(maps).collect(Instant::now(), &mut Room::default()).expect("the maps can be read");
    assert_eq!((sums.counter(Counter::Hits), sums.sites.len()), (0, 0));
}
