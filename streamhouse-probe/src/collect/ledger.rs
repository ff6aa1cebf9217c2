//! Totals by label set: what exited processes counted is kept, what live ones count is added at each collection.
//!
//! Invariant 9: a total never goes backwards while its series is served. A value of the kernel only grows; when its
//! process has exited its last reading moves into `folded` in the same step as it leaves the kernel's map.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use streamhouse_abi::map::{Key, Sizes, Value};
use streamhouse_abi::{Site, Status};
use streamhouse_metrics::Label;
use streamhouse_metrics::sources::of_site;

use super::exposed::{self, Exposed};
use super::sums::Statuses;
use super::{Counts, Detail, KEPT_AFTER_EXIT, Labels, SeriesKey, SiteSum};
use crate::room::Room;

/// Number of a series; not reused.
type SeriesId = u64;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In the order they are given out: a key is placed once, not at each collection.
    ids: BTreeMap<SeriesKey, SeriesId>,
    series: HashMap<SeriesId, Series>,
    /// The series of each value in the kernel. A value stays with its series, also with an overflow series whose
    /// label set would find room later: it would take its past with it.
    assigned: HashMap<Key, SeriesId>,
    exposed: Exposed,
    next: SeriesId,
}

#[derive(Debug)]
struct Series {
    created: Instant,
    /// The last process that counted in it.
    pid: u32,
    /// How operations ended whose series have room.
    exposed: Statuses,
    /// And those whose have none, for good.
    overflowed: Statuses,
    /// When a live process last counted in it.
    live: Instant,
    /// What exited processes counted.
    folded: Option<Box<Counts>>,
    /// What exited and live processes have counted, as of this collection.
    total: Box<Counts>,
}

impl Ledger {
    /// Starts a collection: totals are what exited processes counted.
    pub(super) fn begin(&mut self) {
        for series in self.series.values_mut() {
            match &series.folded {
                Some(folded) => series.total.clone_from(folded),
                None => *series.total = Counts::default(),
            }
        }
    }

    /// Whether the value is part of a series.
    pub(super) fn serves(&self, key: &Key) -> bool {
        self.assigned.contains_key(key)
    }

    /// Adds a value to its series' total; `labels` is asked only for a value not seen before. False when there are no
    /// labels yet.
    pub(super) fn add(
        &mut self,
        reading: &Reading,
        now: Instant,
        room: &mut Room,
        labels: impl FnOnce() -> Option<Labels>,
    ) -> bool {
        let Some(id) = self.assign(&reading.key, now, room, labels) else { return false };
        let Some(series) = self.series.get_mut(&id) else { return false };
        reading.add_to(&mut series.total);
        (series.live, series.pid) = (now, reading.key.tgid);
        true
    }

    /// Keeps what a value had counted when its process exited; the value is gone from the kernel. False when there
    /// never were labels.
    pub(super) fn fold(
        &mut self,
        reading: &Reading,
        now: Instant,
        room: &mut Room,
        labels: impl FnOnce() -> Option<Labels>,
    ) -> bool {
        let Some(id) = self.assign(&reading.key, now, room, labels) else { return false };
        self.assigned.remove(&reading.key);
        let Some(series) = self.series.get_mut(&id) else { return false };
        reading.add_to(series.folded.get_or_insert_default());
        reading.add_to(&mut series.total);
        (series.live, series.pid) = (now, reading.key.tgid);
        true
    }

    /// Ends a collection: drops what no live process has counted in for long, and gives the rest, sorted.
    pub(super) fn finish(&mut self, now: Instant, room: &mut Room) -> Vec<SiteSum> {
        self.expire(now, room);
        let mut sums = Vec::with_capacity(self.ids.len());
        for (key, id) in &self.ids {
            let Some(series) = self.series.get_mut(id) else { continue };
            series.expose(key, &mut self.exposed, room);
            let Series { created, overflowed, .. } = *series;
            sums.push(SiteSum {
                key: key.clone(),
                created,
                overflowed,
                counts: Counts::clone(&series.total),
            });
        }
        sums
    }

    /// Drops label sets that no process has counted in for long, and when room for series gets scarce the ones longest
    /// without a process: one that starts again and again with new labels must not leave none for others. A histogram
    /// leaves the partition out, so the label sets that are one histogram go together: without one of them it would go
    /// backwards. The overflow series stays: which label sets are in it is not known.
    fn expire(&mut self, now: Instant, room: &mut Room) {
        let expired = |live: Instant| now.duration_since(live) >= KEPT_AFTER_EXIT;
        if !room.is_scarce() && !self.series.values().any(|series| expired(series.live)) {
            return;
        }
        let mut last_live: HashMap<_, Instant> = HashMap::new();
        for (key, id) in &self.ids {
            if let Some(series) = self.series.get(id) {
                let live = last_live.entry(histogram(key)).or_insert(series.live);
                *live = series.live.max(*live);
            }
        }
        let named = self.ids.keys().filter(|key| key.labels.is_some());
        let since = named.filter_map(|key| Some((*last_live.get(&histogram(key))?, key.clone())));
        let mut idle: Vec<(Instant, SeriesKey)> = since.filter(|(live, _)| *live < now).collect();
        idle.sort_unstable();
        let mut previous = None;
        for (live, key) in idle {
            // Whatever was last live at one moment goes as a whole, and with it every histogram.
            if !expired(live) && !room.is_scarce() && previous != Some(live) {
                break;
            }
            previous = Some(live);
            self.remove(&key, room);
        }
    }

    fn remove(&mut self, key: &SeriesKey, room: &mut Room) {
        let Some(series) = self.ids.remove(key).and_then(|id| self.series.remove(&id)) else { return };
        for status in series.exposed.iter() {
            self.exposed.remove(key, status, room);
        }
    }

    fn assign(
        &mut self,
        key: &Key,
        now: Instant,
        room: &mut Room,
        labels: impl FnOnce() -> Option<Labels>,
    ) -> Option<SeriesId> {
        if let Some(&id) = self.assigned.get(key) {
            return Some(id);
        }
        let site = Site::from_number(key.site)?;
        let detail = Detail::of(site, key.detail)?;
        let id = self.series_of(SeriesKey { site, detail, labels: Some(labels()?) }, key.tgid, now, room);
        self.assigned.insert(*key, id);
        Some(id)
    }

    fn series_of(&mut self, mut key: SeriesKey, pid: u32, now: Instant, room: &mut Room) -> SeriesId {
        exposed::shorten(&mut key);
        if !self.ids.contains_key(&key) && !self.exposed.add(pid, &key, Status::Ok, room) {
            key.labels = None;
        }
        *self.ids.entry(key).or_insert_with(|| {
            let id = self.next;
            self.next += 1;
            self.series.insert(id, Series::new(pid, now));
            id
        })
    }
}

impl Series {
    fn new(pid: u32, now: Instant) -> Series {
        let mut exposed = Statuses::default();
        exposed.insert(Status::Ok);
        Series {
            created: now,
            pid,
            exposed,
            overflowed: Statuses::default(),
            live: now,
            folded: None,
            total: Box::default(),
        }
    }

    /// Takes room for the series of failures that were not seen before.
    fn expose(&mut self, key: &SeriesKey, all: &mut Exposed, room: &mut Room) {
        for status in Status::ALL {
            if self.total.operations_with(status) == 0
                || self.exposed.has(status)
                || self.overflowed.has(status)
            {
                continue;
            }
            let has_room = all.add(self.pid, key, status, room);
            if has_room { &mut self.exposed } else { &mut self.overflowed }.insert(status);
        }
    }
}

/// The labels that the histogram of durations of a series has; those of every other metric of the site include them.
fn histogram(key: &SeriesKey) -> (Site, Detail, Option<[&str; 3]>) {
    let has = |label| of_site(key.site).duration.labels.contains(&label);
    let labels = key.labels.as_ref().map(|labels| {
        let group = if has(Label::Group) { labels.group.as_str() } else { "" };
        let topic = if has(Label::Topic) { labels.topic.as_str() } else { "" };
        [labels.instance_id.as_str(), group, topic]
    });
    (key.site, key.detail, labels)
}

/// One value of the kernel as it was read.
pub(super) struct Reading {
    pub(super) key: Key,
    pub(super) value: Value,
    /// For `flush`, when there are any.
    pub(super) sizes: Option<Sizes>,
}

impl Reading {
    fn add_to(&self, counts: &mut Counts) {
        counts.add_value(&self.value);
        if let Some(sizes) = &self.sizes {
            counts.add_sizes(sizes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::ClassicBuckets;
    use std::time::Duration;
    use streamhouse_abi::map::STATUS_SLOTS;
    use streamhouse_abi::{Role, bucket};

    fn key(tgid: u32, scope_id: u64) -> Key {
        Key { nonce: 1, scope_id, tgid, site: Site::Write as u16, detail: 0 }
    }

    fn reading(key: Key, operations: u64) -> Reading {
        let mut value = Value {
            target: 1,
            foreign_target: 0,
            foreign_hits: 0,
            labelled: 1,
            operations: [0; STATUS_SLOTS],
            records: [0; STATUS_SLOTS],
            bytes: 10 * operations,
            duration_ns: 0,
            buckets: [0; bucket::COUNT],
        };
        value.operations[0] = operations;
        Reading { key, value, sizes: None }
    }

    fn labels(topic: &str) -> Option<Labels> {
        Some(Labels {
            role: Role::Agent,
            instance_id: "a".into(),
            group: String::new(),
            topic: topic.into(),
            partition: Some(0),
        })
    }

    /// One collection of live values; the sums of operations by topic.
    fn collect(
        ledger: &mut Ledger,
        room: &mut Room,
        now: Instant,
        live: &[(Key, u64, &str)],
    ) -> Vec<(String, u64)> {
        ledger.begin();
        for (key, operations, topic) in live {
            assert!(ledger.add(&reading(*key, *operations), now, room, || labels(topic)));
        }
        totals(&ledger.finish(now, room))
    }

    fn totals(sites: &[SiteSum]) -> Vec<(String, u64)> {
        let topic = |site: &SiteSum| site.key.labels.as_ref().map_or("overflow", |l| &l.topic).to_owned();
        sites.iter().map(|site| (topic(site), site.counts.operations[0])).collect()
    }

    #[test]
    fn invariant_9_a_total_outlives_its_process_and_goes_on_with_the_next() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let mut room = Room::default();
        assert_eq!(collect(&mut ledger, &mut room, start, &[(key(1, 1), 5, "t")]), [("t".to_owned(), 5)]);
        ledger.begin();
        assert!(
            ledger.fold(&reading(key(1, 1), 7), start, &mut room, || unreachable!("the labels are known"))
        );
        assert_eq!(totals(&ledger.finish(start, &mut room)), [("t".to_owned(), 7)]);
        assert_eq!(collect(&mut ledger, &mut room, start, &[]), [("t".to_owned(), 7)]);
        // The next process has the same labels, and two of its scopes are equal.
        let live = [(key(2, 1), 1, "t"), (key(2, 2), 2, "t")];
        assert_eq!(collect(&mut ledger, &mut room, start, &live), [("t".to_owned(), 10)]);
    }

    #[test]
    fn a_label_set_is_dropped_fifteen_minutes_after_its_last_process() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let mut room = Room::default();
        ledger.begin();
        assert!(ledger.fold(&reading(key(1, 1), 7), start, &mut room, || labels("t")));
        ledger.finish(start, &mut room);
        let almost = start + KEPT_AFTER_EXIT - Duration::from_secs(1);
        assert_eq!(collect(&mut ledger, &mut room, almost, &[]).len(), 1);
        assert_eq!(collect(&mut ledger, &mut room, start + KEPT_AFTER_EXIT, &[]).len(), 0);
        assert_eq!(
            collect(&mut ledger, &mut room, start + KEPT_AFTER_EXIT, &[(key(2, 1), 3, "t")]),
            [("t".to_owned(), 3)]
        );
    }

    #[test]
    fn invariant_9_a_partition_is_kept_while_another_one_of_its_histogram_is_live() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let mut room = Room::default();
        let of = |partition| labels("t").map(|labels| Labels { partition: Some(partition), ..labels });
        ledger.begin();
        assert!(ledger.fold(&reading(key(1, 1), 7), start, &mut room, || of(0)));
        assert!(ledger.add(&reading(key(2, 1), 3), start, &mut room, || of(1)));
        ledger.finish(start, &mut room);
        let later = start + KEPT_AFTER_EXIT;
        ledger.begin();
        assert!(
            ledger.add(&reading(key(2, 1), 4), later, &mut room, || unreachable!("the labels are known"))
        );
        let total: u64 = ledger.finish(later, &mut room).iter().map(|site| site.counts.operations[0]).sum();
        assert_eq!(total, 7 + 4);
        ledger.begin();
        assert!(ledger.finish(later + KEPT_AFTER_EXIT, &mut room).is_empty());
    }

    #[test]
    fn values_without_labels_are_not_served() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let mut room = Room::default();
        ledger.begin();
        assert!(!ledger.add(&reading(key(1, 1), 7), now, &mut room, || None));
        assert!(!ledger.fold(&reading(key(1, 1), 7), now, &mut room, || None));
        assert!(ledger.finish(now, &mut room).is_empty());
    }

    #[test]
    fn processes_that_come_and_go_leave_room_for_others() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let mut room = Room::new(4096 * series_each(), ClassicBuckets::default());
        for round in 0..10 {
            let now = start + Duration::from_secs(round);
            room.exited(2);
            ledger.begin();
            assert!(ledger.add(&reading(key(1, 1), round), now, &mut room, || labels("stays")));
            for scope in 0..500 {
                let topic = format!("{round} {scope}");
                assert!(
                    ledger.fold(&reading(key(2, 500 * round + scope), 1), now, &mut room, || labels(&topic))
                );
            }
            let sums = ledger.finish(now, &mut room);
            assert!(
                sums.iter().all(|site| site.key.labels.is_some()),
                "round {round}: one is in the overflow series"
            );
            assert!(totals(&sums).contains(&("stays".to_owned(), round)));
            assert!(
                totals(&sums).contains(&(format!("{} 7", round.saturating_sub(5)), 1)),
                "only the oldest go"
            );
        }
    }

    /// Series of one label set of `write` with a topic of its own.
    fn series_each() -> usize {
        2 + ClassicBuckets::default().count() + 2
    }

    #[test]
    fn label_sets_without_room_share_one_series_for_good() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let mut room = Room::new(10 * series_each(), ClassicBuckets::default());
        let topics: Vec<String> = (0..12).map(|i| format!("t{i:05}")).collect();
        let scopes = topics.iter().zip(1u64..);
        let live: Vec<(Key, u64, &str)> =
            scopes.map(|(topic, scope)| (key(1 + scope as u32 % 2, scope), 1, topic.as_str())).collect();
        let sums = collect(&mut ledger, &mut room, now, &live);
        assert_eq!(sums.len(), 10 + 1);
        assert!(sums.contains(&("overflow".to_owned(), 2)));
        assert_eq!((room.used(), room.refused()), (room.max(), 2 * series_each() as u64));
        // Once there is room again, who is in the overflow series stays there.
        let later = now + KEPT_AFTER_EXIT;
        let sums = collect(&mut ledger, &mut room, later, &live[10..]);
        assert_eq!(sums, [("overflow".to_owned(), 2)]);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn partitions_of_a_topic_share_a_histogram() {
        let (mut ledger, now, mut room) = (Ledger::default(), Instant::now(), Room::default());
        ledger.begin();
        for partition in 0..3 {
            let of = || labels("t").map(|labels| Labels { partition: Some(partition), ..labels });
            assert!(ledger.add(&reading(key(1, partition.into()), 1), now, &mut room, of));
        }
        ledger.finish(now, &mut room);
        assert_eq!(room.used(), series_each() + 2 * 2);
    }

    #[test]
    fn failures_that_find_no_room_overflow_for_good() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let mut room = Room::new(2 * series_each(), ClassicBuckets::default());
        let failing = |status: Status| {
            let mut reading = reading(key(1, 1), 1);
            reading.value.operations[status as usize] = 3;
            reading
        };
        let mut overflowed = |reading| {
            ledger.begin();
            assert!(ledger.add(&reading, now, &mut room, || labels("t")));
            ledger.finish(now, &mut room)[0].overflowed
        };
        assert!(!overflowed(reading(key(1, 1), 1)).has(Status::Fenced));
        let fenced = overflowed(failing(Status::Fenced));
        assert!(fenced.has(Status::Fenced) && !fenced.has(Status::Ok) && !fenced.has(Status::Retry));
        assert_eq!(room.refused(), 1);
        room.exited(1);
        let mut again = |status| {
            ledger.begin();
            assert!(ledger.add(&failing(status), now, &mut room, || labels("t")));
            ledger.finish(now, &mut room)[0].overflowed
        };
        assert!(again(Status::Fenced).has(Status::Fenced), "for good");
        assert!(!again(Status::Retry).has(Status::Retry), "there is room now");
    }
}
