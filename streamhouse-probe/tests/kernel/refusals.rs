//! What is refused is counted, and spoils no sum.

use streamhouse_abi::limits::{
    HIT_BYTES_MAX, HIT_DURATION_NS_MAX, HIT_RECORDS_MAX, PROCESS_SHARE, SCOPES_MAX, SIZES_MAX, VALUES_MAX,
};
use streamhouse_abi::map::{Counter, SCOPES, SIZES, VALUES};
use streamhouse_abi::{Bin, Bins, Operation, Scope, Site, Status, bucket};
use streamhouse_probe::collect::Sums;

use crate::child::Process;
use crate::log_lines;
use crate::observer::{Observer, filled, of, succeeded};
use crate::raw::{self, Arguments, RawScope};

const PLAIN: Arguments = Arguments { records: 1, bytes: 1, duration_ns: 1, status: 0, particular: 0 };

pub(crate) fn clamped() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let scope = RawScope::new("clamped");
    let absurd = [
        Arguments { records: HIT_RECORDS_MAX + 1, ..PLAIN },
        Arguments { records: u64::MAX, ..PLAIN },
        Arguments { bytes: HIT_BYTES_MAX + 1, ..PLAIN },
        Arguments { duration_ns: HIT_DURATION_NS_MAX + 1, ..PLAIN },
        Arguments { duration_ns: u64::MAX - 1, records: 1_000, ..PLAIN },
        Arguments { status: Status::ALL.len() as u64, ..PLAIN },
        Arguments { status: 1 << 32, ..PLAIN },
        Arguments { status: u64::MAX, ..PLAIN },
    ];
    let mut refused = 0;
    for site in Site::ALL {
        for with in absurd {
            scope.hit(site, with);
            refused += 1;
        }
    }
    for particular in [Operation::ALL.len() as u64, 1 << 16, u64::MAX] {
        scope.hit(Site::Object, Arguments { particular, ..PLAIN });
        refused += 1;
    }
    let mut stranger = RawScope::new("clamped");
    stranger.head().role = 99;
    stranger.hit(Site::Write, PLAIN);
    let mut other_process = RawScope::new("clamped");
    other_process.head().nonce += 1;
    other_process.hit(Site::Write, PLAIN);
    // The head at the address is of another scope than the hit says.
    RawScope::new("clamped").hit_through(Site::Write, scope.topic(), PLAIN);
    refused += 3;
    // At the limits nothing is absurd: of `send` it is the average that is limited.
    let limits = Arguments {
        records: HIT_RECORDS_MAX,
        bytes: HIT_BYTES_MAX,
        duration_ns: HIT_DURATION_NS_MAX,
        ..PLAIN
    };
    scope.hit(Site::Write, limits);
    scope.hit(Site::Send, Arguments { duration_ns: 100 * HIT_DURATION_NS_MAX, records: 100, ..PLAIN });
    let sums = observer.sums();
    assert_eq!(sums.counter(Counter::Clamped), refused);
    assert_eq!(succeeded(&of(&sums, Site::Write, "clamped").counts), (1, HIT_RECORDS_MAX));
    assert_eq!(succeeded(&of(&sums, Site::Send, "clamped").counts), (1, 100));
    assert_eq!(sums.sites.len(), 2);
}

pub(crate) fn bad_pointer() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let kernel = 0xffff_8880_0000_0000;
    let addresses = [0, 1, Scope::TOPIC_OFFSET as u64, 1 << 46, kernel, u64::MAX];
    for site in Site::ALL {
        for topic in addresses {
            raw::hit_at(site, topic, PLAIN);
        }
    }
    let sums = observer.sums();
    assert_eq!(sums.counter(Counter::BadPointer), (Site::ALL.len() * addresses.len()) as u64);
    assert!(sums.sites.is_empty());
}

/// Once a scope is known, its memory may leave for the swap: what counts is in registers.
pub(crate) fn known_scope() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let scope = RawScope::new("known");
    scope.hit(Site::Write, PLAIN);
    for topic in [0, 1 << 46, u64::MAX] {
        scope.hit_through(Site::Write, topic, PLAIN);
    }
    let sums = observer.sums();
    assert_eq!(succeeded(&of(&sums, Site::Write, "known").counts), (4, 4));
    assert_eq!(sums.counter(Counter::BadPointer), 0);
}

pub(crate) fn logged() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(77);
    log_lines::take();
    (0..1_000).for_each(|_| raw::hit_at(Site::Poll, 0, PLAIN));
    observer.sums();
    let lines = log_lines::take();
    // Those that it may run on, whatever share of them it may have.
    let cpus = aya::util::online_cpus().expect("the kernel lists them").len();
    assert!((1..=cpus).contains(&lines.len()), "once on each CPU at most: {lines:?}");
    let pid = std::process::id();
    let said = format!("refused a hit of pid {pid}: site poll, target 77, reason bad_pointer");
    assert!(lines.iter().all(|line| *line == said), "{lines:?}");
    // It says it once; the counter goes on.
    (0..1_000).for_each(|_| raw::hit_at(Site::Poll, 0, PLAIN));
    assert_eq!(observer.sums().counter(Counter::BadPointer), 2_000);
    assert!(lines.len() + log_lines::take().len() <= cpus);
}

/// Bins in this process's memory: the first ones as given, `len` whatever is said.
fn bins(len: u64, given: &[(u32, u32)]) -> Bins {
    let mut bins = Bins { len, bins: [Bin::default(); bucket::COUNT] };
    for (bin, &(bucket, records)) in bins.bins.iter_mut().zip(given) {
        *bin = Bin { bucket, records };
    }
    bins
}

pub(crate) fn bins_lost() {
    const RECORDS: u64 = 10;
    let past = bucket::COUNT as u32;
    // What the bins say, what of them is merged.
    let cases: [(Bins, &[(usize, u64)]); 8] = [
        (bins(past as u64 + 1, &[(1, 10)]), &[]),
        (bins(u64::MAX, &[(1, 10)]), &[]),
        (bins(0, &[(1, 10)]), &[]),
        (bins(1, &[(past, 10)]), &[]),
        (bins(3, &[(1, 4), (u32::MAX, 2), (3, 4)]), &[(1, 4)]),
        (bins(2, &[(1, 4), (2, 5)]), &[(1, 4), (2, 5)]),
        (bins(2, &[(1, 4), (2, 7)]), &[(1, 4)]),
        (bins(1, &[(1, u32::MAX)]), &[]),
    ];
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let mut merged = 0;
    let scopes: Vec<RawScope> = (0..cases.len()).map(|case| RawScope::new(&format!("lost{case}"))).collect();
    for (scope, (bins, expected)) in scopes.iter().zip(&cases) {
        let particular = std::ptr::from_ref(bins) as u64;
        scope.hit(Site::Send, Arguments { records: RECORDS, particular, ..PLAIN });
        merged += expected.iter().map(|(_, records)| records).sum::<u64>();
    }
    let unreadable = RawScope::new("unreadable");
    for particular in [0, 8, 1 << 46, u64::MAX] {
        unreadable.hit(Site::Send, Arguments { records: RECORDS, particular, ..PLAIN });
    }
    let sums = observer.sums();
    for (case, (_, expected)) in cases.iter().enumerate() {
        let counts = &of(&sums, Site::Send, &format!("lost{case}")).counts;
        assert_eq!((succeeded(counts), counts.bytes), ((1, RECORDS), 1), "case {case}");
        assert_eq!(filled(&counts.durations), *expected, "case {case}");
        assert_eq!(counts.duration_ns, 0, "case {case}: the sum cannot be divided");
    }
    let counts = &of(&sums, Site::Send, "unreadable").counts;
    assert_eq!((succeeded(counts), filled(&counts.durations)), ((4, 4 * RECORDS), vec![]));
    let records = RECORDS * (cases.len() as u64 + 4);
    assert_eq!(sums.counter(Counter::BinsLost), records - merged);
}

fn entries(sums: &Sums, map: &str) -> u64 {
    sums.maps.iter().find(|found| found.name == map).expect("a map of the program").entries
}

pub(crate) fn over_share() {
    let scopes_share = u64::from(SCOPES_MAX / PROCESS_SHARE);
    let values_share = u64::from(VALUES_MAX / PROCESS_SHARE);
    let sizes_share = u64::from(SIZES_MAX / PROCESS_SHARE);
    let mut observer = Observer::new();
    let _links = [observer.attach_raw(1), observer.attach_hooks(2)];
    let scopes: Vec<RawScope> = (0..scopes_share + 10).map(|_| RawScope::new("share")).collect();
    scopes.iter().for_each(|scope| scope.hit(Site::Flush, PLAIN));
    let sums = observer.sums();
    assert_eq!(sums.counter(Counter::OverShare), 10);
    assert_eq!(sums.counter(Counter::SizesLost), scopes_share - sizes_share);
    assert_eq!(entries(&sums, SCOPES), scopes_share);
    assert_eq!(entries(&sums, SIZES), sizes_share);
    // A second site fills the process's share of values in part of the scopes, the others find no room.
    let registered = &scopes[..scopes_share as usize];
    let second = values_share - scopes_share;
    assert!(second < scopes_share);
    for site in [Site::Poll, Site::Write, Site::Poll] {
        registered.iter().for_each(|scope| scope.hit(site, PLAIN));
    }
    let sums = observer.sums();
    assert_eq!(sums.counter(Counter::OverShare), 10 + 3 * scopes_share - 2 * second);
    assert_eq!(entries(&sums, VALUES), values_share);
    assert_eq!(succeeded(&of(&sums, Site::Poll, "share").counts), (2 * second, 2 * second));
    // Another process has its own share.
    let mut other = Process::start("writer");
    other.fire(3);
    let sums = observer.sums();
    assert_eq!(succeeded(&of(&sums, Site::Write, "fold").counts), (3, 6));
    assert_eq!(sums.counter(Counter::MapFull), 0);
}

/// A process that makes scopes without end takes no more than its share, and none of what others count.
pub(crate) fn a_million_scopes() {
    let mut observer = Observer::new();
    let _links = [observer.attach_raw(1), observer.attach_hooks(2)];
    let mut other = Process::start("writer");
    other.fire(100);
    let mut flood = Process::start("flood");
    flood.fire(FLOOD / 2);
    other.fire(100);
    flood.fire(FLOOD / 2);
    other.fire(100);
    let sums = observer.sums();
    let share = u64::from(SCOPES_MAX / PROCESS_SHARE);
    assert_eq!(succeeded(&of(&sums, Site::Write, "fold").counts), (300, 600));
    assert_eq!(succeeded(&of(&sums, Site::Write, "flood").counts), (share, share));
    assert_eq!(sums.counter(Counter::OverShare), FLOOD - share);
    assert_eq!(entries(&sums, SCOPES), share + 1);
}

const FLOOD: u64 = 1_000_000;

/// What another process calls itself is no key to its values: the kernel says whose a hit is.
pub(crate) fn anothers_nonce() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let mut own = RawScope::new("own");
    // The child's first scope has the number of ours, and its nonce is the same to begin with.
    own.head().scope_id = raw::FIRST_SCOPE;
    (0..3).for_each(|_| own.hit(Site::Write, PLAIN));
    let mut thief = Process::start("flood");
    thief.fire(1);
    (0..3).for_each(|_| own.hit(Site::Write, PLAIN));
    let sums = observer.sums();
    assert_eq!(succeeded(&of(&sums, Site::Write, "own").counts), (6, 6));
    assert_eq!(succeeded(&of(&sums, Site::Write, "flood").counts), (1, 1));
}

/// A label may hold any byte but NUL.
pub(crate) fn hostile_labels() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let mut scope = RawScope::new("");
    scope.name(b"a\"b\nc\\\xff\x1b");
    scope.hit(Site::Write, PLAIN);
    let sums = observer.sums();
    assert_eq!(succeeded(&of(&sums, Site::Write, "a\"b\nc\\\u{fffd}\u{1b}").counts), (1, 1));
}

pub(crate) fn held_back() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let mut scope = RawScope::new("held");
    let owner = scope.head().owner;
    scope.head().owner = 8;
    scope.hit(Site::Write, PLAIN);
    let sums = observer.sums();
    assert_eq!((sums.held_back, sums.sites.len()), (1, 0));
    scope.head().owner = owner;
    scope.hit(Site::Write, PLAIN);
    let sums = observer.sums();
    assert_eq!((sums.held_back, sums.sites.len()), (0, 1));
    assert_eq!(succeeded(&of(&sums, Site::Write, "held").counts), (2, 2));
}
