//! One file attached twice, as happens through two overlay mounts of one lower file.

use std::collections::BTreeSet;

use streamhouse_abi::Site;
use streamhouse_abi::limits::TARGETS_MAX;
use streamhouse_abi::map::Counter;
use streamhouse_probe::collect::SameFile;

use crate::observer::{Observer, of, succeeded};
use crate::raw::{Arguments, RawScope};

const HITS: u64 = 1_000;
const SAME: SameFile = SameFile { kept: 1, dropped: 2 };

fn hit(scope: &RawScope, times: u64) {
    let with = Arguments { records: 3, bytes: 5, duration_ns: 7, status: 0, particular: 0 };
    (0..times).for_each(|_| scope.hit(Site::Poll, with));
}

pub(crate) fn two_links() {
    let mut observer = Observer::new();
    let _links = [observer.attach_raw(1), observer.attach_raw(2)];
    let scope = RawScope::new("twice");
    hit(&scope, HITS);
    let sums = observer.sums();
    assert_eq!(sums.counter(Counter::Hits), 2 * HITS);
    assert_eq!(sums.counter(Counter::Foreign), HITS);
    let counts = &of(&sums, Site::Poll, "twice").counts;
    assert_eq!((succeeded(counts), counts.bytes), ((HITS, 3 * HITS), 5 * HITS));
    assert_eq!(sums.same_files, [SAME]);
}

pub(crate) fn merged() {
    let mut observer = Observer::new();
    let first = observer.attach_raw(1);
    let before = RawScope::new("before");
    hit(&before, HITS);
    let second = observer.attach_raw(2);
    let (between, mut expected) = (RawScope::new("between"), HITS);
    hit(&before, HITS);
    hit(&between, HITS);
    expected += HITS;
    drop(second);
    observer.collector.merge_targets(SAME).expect("the map can be written");
    // Whichever of the two had claimed a value, it goes on.
    hit(&before, HITS);
    hit(&between, HITS);
    expected += HITS;
    let sums = observer.sums();
    assert_eq!(succeeded(&of(&sums, Site::Poll, "before").counts).0, expected);
    assert_eq!(succeeded(&of(&sums, Site::Poll, "between").counts).0, 2 * HITS);
    assert_eq!(sums.same_files, []);
    // A third path turns up, with the number of the first two dropped in its favour.
    drop(first);
    let _third = observer.attach_raw(3);
    observer.collector.merge_targets(SameFile { kept: 3, dropped: 1 }).expect("the map can be written");
    hit(&before, HITS);
    hit(&between, HITS);
    let sums = observer.sums();
    assert_eq!(succeeded(&of(&sums, Site::Poll, "before").counts).0, expected + HITS);
    assert_eq!(succeeded(&of(&sums, Site::Poll, "between").counts).0, 3 * HITS);
}

/// Each container of an image is a target of its own, of one file; a node sees more of them than the map has room for.
pub(crate) fn forgotten() {
    let mut observer = Observer::new();
    let link = observer.attach_raw(1);
    let scope = RawScope::new("containers");
    let attached = BTreeSet::from([1]);
    for dropped in 2..TARGETS_MAX + 10 {
        hit(&scope, 1);
        observer.sums();
        observer.collector.forget_merged(&attached).expect("the map can be written");
        observer.collector.merge_targets(SameFile { kept: 1, dropped }).expect("the map has room");
    }
    assert_eq!(
        succeeded(&of(&observer.sums(), Site::Poll, "containers").counts).0,
        u64::from(TARGETS_MAX) + 8
    );
    // What a value is of stays known, whoever is attached by now.
    let second = observer.attach_raw(5_000);
    drop(link);
    let same = SameFile { kept: 1, dropped: 5_000 };
    observer.collector.merge_targets(same).expect("the map has room");
    hit(&scope, 1);
    observer.sums();
    observer.collector.forget_merged(&BTreeSet::from([5_000])).expect("the map can be written");
    assert_eq!(observer.collector.one_file(same), BTreeSet::from([1, 5_000]));
    hit(&scope, 1);
    assert_eq!(observer.sums().counter(Counter::Foreign), 0);
    drop(second);
}
