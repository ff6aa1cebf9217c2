//! State pages → values that are true now, by label set.
//!
//! A process keeps values such as lag in a sealed memfd ([`streamhouse_abi::page`]). The probe keeps the file open and
//! copies it at each scrape: nothing is mapped, so no process can make the probe fault, and nothing changes between
//! check and use. When a process goes, its page is read a last time and folded into what is kept for
//! [`KEPT_AFTER_EXIT`], so that memory does not grow with the number of processes that ever ran.

mod layout;
mod source;
#[cfg(test)]
pub(crate) mod tests;

pub use layout::{
    PAGE_SLOTS_MAX, PageHead, PageLabels, Rejection, SlotValue, Slots, parse_head, parse_slots,
};
pub use source::{PageFile, Sought, open};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamhouse_abi::Role;
use streamhouse_abi::limits::{AGENT_SILENCE_MAX, PROCESSES_MAX};
use streamhouse_abi::page::Gauge;
use streamhouse_metrics::sources::{Left, of_gauge};

use crate::collect::KEPT_AFTER_EXIT;
use crate::room::Room;

/// Most bytes copied from all pages together in one scrape.
const SCRAPE_BYTES_MAX: usize = 64 << 20;
/// Most counters of one page. An agent has one.
const PAGE_COUNTERS_MAX: usize = 64;
/// How long a process that served its metrics itself is remembered when it has gone: until the kernel's values of it are
/// read, which is soon.
const SELF_SERVING_KEPT: Duration = Duration::from_secs(60);
/// How long a process may say nothing of a group's place in a partition after another has: then it is the other's to say.
const OUTSPOKEN_AFTER_NS: u64 = 10_000_000_000;
/// A larger buffer is given back after the scrape.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// One series of the state plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GaugeKey {
    /// What it is.
    pub gauge: Gauge,
    /// Whose it is.
    pub labels: PageLabels,
}

/// A process as its page introduces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// What it made first.
    pub role: Role,
    /// Agent or client id.
    pub instance_id: Arc<str>,
}

/// What the pages said at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Values in the gauges' units.
    pub series: BTreeMap<GaugeKey, u64>,
    /// Whether a process with this role and id runs.
    pub processes: BTreeMap<ProcessKey, bool>,
    /// Pages copied since the probe started.
    pub pages_read: u64,
    /// Pages and slots not believed since the probe started.
    pub rejected: BTreeMap<Rejection, u64>,
}

/// The pages of all processes that run, and what is left of those that do not.
#[derive(Debug, Default)]
pub struct Pages {
    live: HashMap<u32, LivePage>,
    kept: BTreeMap<GaugeKey, Kept>,
    /// Series that have their room.
    served: HashSet<GaugeKey>,
    kept_processes: BTreeMap<ProcessKey, Instant>,
    pages_read: u64,
    rejected: BTreeMap<Rejection, u64>,
    buffer: Vec<u8>,
    /// Processes that serve their metrics themselves, by pid and nonce, and when that was last seen. By pid too: a page may
    /// state another's nonce, and hides nobody but its own process.
    self_serving: HashMap<(u32, u64), Instant>,
    /// Their pages are read all the same.
    even_self_serving: bool,
}

#[derive(Debug)]
struct LivePage {
    file: PageFile,
    /// What each counter of the page was when it was last read: what it added outlives its slot.
    counters: HashMap<(GaugeKey, (u32, u64)), u64>,
    /// The newest update of the page, by its own clock, and when that was seen first.
    newest: Option<(u64, Instant)>,
}

/// What is left of processes that have gone, and of counters that were retired.
#[derive(Debug)]
struct Kept {
    value: u64,
    updated_ns: u64,
    since: Instant,
}

/// A group's place in a partition, of which one process tells at a time: a gauge, the group, the topic and the partition.
type Place = (Gauge, Arc<str>, Arc<str>, Option<u32>);

/// Every series being merged.
type AllMerged = BTreeMap<GaugeKey, Merged>;

/// A value being merged from the slots of running processes.
#[derive(Default)]
struct Merged {
    value: u64,
    updated_ns: u64,
}

impl Pages {
    /// Pages that are read also of processes that serve their metrics themselves: to compare the two.
    pub fn even_self_serving() -> Pages {
        Pages { even_self_serving: true, ..Pages::default() }
    }

    /// Pids and nonces of processes that serve their metrics themselves: those that run, and those that went a moment ago.
    pub fn self_serving(&mut self, now: Instant) -> HashSet<(u32, u64)> {
        if self.even_self_serving {
            return HashSet::new();
        }
        let running = self.live.iter().filter_map(|(pid, page)| Some((*pid, page.file.self_serving()?)));
        self.self_serving.extend(running.map(|process| (process, now)));
        self.self_serving.retain(|_, seen| now.saturating_duration_since(*seen) < SELF_SERVING_KEPT);
        self.self_serving.keys().copied().collect()
    }

    /// Takes a process's page in. Discovery tells of no more than [`PROCESSES_MAX`] at one time, and looks for the others
    /// again later.
    pub fn add(&mut self, pid: u32, file: PageFile) {
        self.kept_processes.remove(&file.process());
        self.live.insert(pid, LivePage { file, counters: HashMap::new(), newest: None });
    }

    /// Counts a page that could not be taken in.
    pub fn reject(&mut self, reason: Rejection, count: u64) {
        if count > 0 {
            *self.rejected.entry(reason).or_default() += count;
        }
    }

    /// How the page of a running process introduces it.
    pub fn process(&self, pid: u32) -> Option<ProcessKey> {
        self.live.get(&pid).map(|page| page.file.process())
    }

    /// Reads the page of a process that has gone for the last time and keeps what it said.
    pub fn exited(&mut self, pid: u32, now: Instant, room: &mut Room) {
        let Some(mut page) = self.live.remove(&pid) else { return };
        room.exited(pid);
        self.self_serving.extend(page.file.self_serving().map(|nonce| ((pid, nonce), now)));
        let slots = self.read_page(&page.file, &mut { SCRAPE_BYTES_MAX }).unwrap_or_default();
        for slot in &slots {
            self.note_counter(&mut page, slot);
            self.keep_last(slot, now, room.max());
        }
        for ((key, _), value) in page.counters {
            self.keep_counter(key, value, now, room.max());
        }
        if self.kept_processes.len() < PROCESSES_MAX as usize {
            self.kept_processes.insert(page.file.process(), now);
        }
    }

    /// Copies every page and merges what they say with what is left of processes that have gone.
    pub fn read(&mut self, now: Instant, room: &mut Room) -> State {
        let mut merged = AllMerged::new();
        let mut budget = SCRAPE_BYTES_MAX;
        let mut live = std::mem::take(&mut self.live);
        // Small pages first: what one process says too much of must not take the room of all others.
        let mut pages: Vec<(u32, &mut LivePage)> = live.iter_mut().map(|(pid, page)| (*pid, page)).collect();
        pages.sort_by_cached_key(|(_, page)| page.file.used_bytes());
        for (pid, page) in pages {
            if let Some(slots) = self.read_page(&page.file, &mut budget) {
                self.fold_retired(page, &slots, now, room.max());
                let stands_still = page.stands_still(&slots, now);
                for slot in &slots {
                    self.note_counter(page, slot);
                    if let Some(value) = told(slot, stands_still) {
                        self.merge_gauge(&mut merged, slot, value, pid, room);
                    }
                }
            }
            for ((key, _), value) in &page.counters {
                self.merge_counter(&mut merged, key, *value, pid, room);
            }
        }
        self.live = live;
        self.shrink_buffer();
        let latest = leave_to_latest(&mut merged);
        self.merge_kept(&mut merged, &latest, now, room);
        State {
            series: merged.into_iter().map(|(key, merged)| (key, merged.value)).collect(),
            processes: self.processes(now),
            pages_read: self.pages_read,
            rejected: self.rejected.clone(),
        }
    }

    /// The values of a page, or none when the process serves them itself.
    fn read_page(&mut self, file: &PageFile, budget: &mut usize) -> Option<Vec<SlotValue>> {
        if !self.even_self_serving && file.self_serving().is_some() {
            return None;
        }
        match file.read(&mut self.buffer, budget) {
            Ok(slots) => {
                self.pages_read += 1;
                self.reject(Rejection::BadSlot, slots.rejected);
                Some(slots.values)
            }
            Err(reason) => {
                self.reject(reason, 1);
                None
            }
        }
    }

    /// Remembers how far a counter of a page has come.
    fn note_counter(&mut self, page: &mut LivePage, slot: &SlotValue) {
        if of_gauge(slot.gauge).left != Left::Sum {
            return;
        }
        let at = (slot.key(), slot.publication);
        if page.counters.len() >= PAGE_COUNTERS_MAX && !page.counters.contains_key(&at) {
            return self.reject(Rejection::TooManySeries, 1);
        }
        let last = page.counters.entry(at).or_default();
        *last = slot.value.max(*last);
    }

    /// Invariant 9: what a counter has added stays when its slot is retired.
    fn fold_retired(&mut self, page: &mut LivePage, slots: &[SlotValue], now: Instant, kept_max: usize) {
        let published: HashSet<_> = slots.iter().map(|slot| (slot.gauge, slot.publication)).collect();
        let retired: Vec<_> = page
            .counters
            .extract_if(|(key, publication), _| !published.contains(&(key.gauge, *publication)))
            .collect();
        for ((key, _), value) in retired {
            self.keep_counter(key, value, now, kept_max);
        }
    }

    fn merge_gauge(
        &mut self,
        merged: &mut AllMerged,
        slot: &SlotValue,
        value: u64,
        pid: u32,
        room: &mut Room,
    ) {
        let merge = of_gauge(slot.gauge).merge;
        let Some(into) = self.merged_entry(merged, slot.key(), pid, room) else { return };
        into.value = match slot.updated_ns >= into.updated_ns {
            true => merge.of_two(into.value, value),
            false => merge.of_two(value, into.value),
        };
        into.updated_ns = into.updated_ns.max(slot.updated_ns);
    }

    fn merge_counter(
        &mut self,
        merged: &mut AllMerged,
        key: &GaugeKey,
        value: u64,
        pid: u32,
        room: &mut Room,
    ) {
        if let Some(into) = self.merged_entry(merged, key.clone(), pid, room) {
            into.value = into.value.saturating_add(value);
        }
    }

    /// `None` when there is no room for another series.
    fn merged_entry<'m>(
        &mut self,
        merged: &'m mut AllMerged,
        key: GaugeKey,
        pid: u32,
        room: &mut Room,
    ) -> Option<&'m mut Merged> {
        if !self.serves(&key, Some(pid), room) {
            self.reject(Rejection::TooManySeries, 1);
            return None;
        }
        Some(merged.entry(key).or_default())
    }

    /// Whether a series has its room, or takes it now.
    fn serves(&mut self, key: &GaugeKey, pid: Option<u32>, room: &mut Room) -> bool {
        self.served.contains(key) || room.take(pid, 1) && self.served.insert(key.clone())
    }

    /// Adds what is kept, forgets what no process has continued for long enough, and gives back the room of what is
    /// served no more.
    fn merge_kept(
        &mut self,
        merged: &mut AllMerged,
        latest: &HashMap<Place, u64>,
        now: Instant,
        room: &mut Room,
    ) {
        self.kept.retain(|key, kept| {
            let counter = of_gauge(key.gauge).left == Left::Sum;
            match merged.get_mut(key) {
                Some(live) if counter => {
                    live.value = live.value.saturating_add(kept.value);
                    kept.since = now;
                    true
                }
                Some(_) => false,
                None if key.place().is_some_and(|place| latest.contains_key(&place)) => false,
                None => now.saturating_duration_since(kept.since) < KEPT_AFTER_EXIT,
            }
        });
        let kept = std::mem::take(&mut self.kept);
        self.served.retain(|key| {
            let stays = merged.contains_key(key) || kept.contains_key(key);
            room.give_back(usize::from(!stays));
            stays
        });
        for (key, Kept { value, updated_ns, .. }) in &kept {
            if !merged.contains_key(key) && self.serves(key, None, room) {
                merged.insert(key.clone(), Merged { value: *value, updated_ns: *updated_ns });
            }
        }
        self.kept = kept;
    }

    /// Keeps what is left of a gauge.
    fn keep_last(&mut self, slot: &SlotValue, now: Instant, kept_max: usize) {
        let value = match of_gauge(slot.gauge).left {
            Left::Last => slot.value,
            Left::Zero => 0,
            Left::Nothing | Left::Sum => return,
        };
        if let Some(kept) = self.kept_entry(slot.key(), now, kept_max)
            && slot.updated_ns >= kept.updated_ns
        {
            *kept = Kept { value, updated_ns: slot.updated_ns, since: now };
        }
    }

    fn keep_counter(&mut self, key: GaugeKey, value: u64, now: Instant, kept_max: usize) {
        if let Some(kept) = self.kept_entry(key, now, kept_max) {
            kept.value = kept.value.saturating_add(value);
            kept.since = now;
        }
    }

    /// `None` when there is no room: the series then ends with its process.
    fn kept_entry(&mut self, key: GaugeKey, now: Instant, kept_max: usize) -> Option<&mut Kept> {
        if self.kept.len() >= kept_max && !self.kept.contains_key(&key) {
            self.reject(Rejection::TooManySeries, 1);
            return None;
        }
        Some(self.kept.entry(key).or_insert(Kept { value: 0, updated_ns: 0, since: now }))
    }

    fn processes(&mut self, now: Instant) -> BTreeMap<ProcessKey, bool> {
        self.kept_processes.retain(|_, since| now.saturating_duration_since(*since) < KEPT_AFTER_EXIT);
        let gone = self.kept_processes.keys().map(|key| (key.clone(), false));
        let live = self.live.values().map(|page| (page.file.process(), true));
        gone.chain(live).collect()
    }

    fn shrink_buffer(&mut self) {
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = Vec::new();
        }
    }
}

impl LivePage {
    /// Whether it is of an agent that does nothing any more, though its process is there.
    fn stands_still(&mut self, slots: &[SlotValue], now: Instant) -> bool {
        let newest_ns = slots.iter().map(|slot| slot.updated_ns).max().unwrap_or(0);
        let unmoved = self.newest.filter(|(before_ns, _)| *before_ns == newest_ns);
        let (_, since) = *self.newest.insert(unmoved.unwrap_or((newest_ns, now)));
        self.file.role == Role::Agent && now.saturating_duration_since(since) >= AGENT_SILENCE_MAX
    }
}

/// Leaves out what is said of a place by a process that has stopped, or hangs, while another has taken it. Gives when each
/// place was last spoken of.
fn leave_to_latest(merged: &mut AllMerged) -> HashMap<Place, u64> {
    let mut latest: HashMap<Place, u64> = HashMap::new();
    for (key, said) in &*merged {
        if let Some(place) = key.place() {
            let newest = latest.entry(place).or_default();
            *newest = said.updated_ns.max(*newest);
        }
    }
    merged.retain(|key, said| {
        let newest = key.place().and_then(|place| latest.get(&place)).copied().unwrap_or_default();
        newest.saturating_sub(said.updated_ns) < OUTSPOKEN_AFTER_NS
    });
    latest
}

/// What a slot tells that is no counter. An agent that stands still is not ready and leases nothing, and it is for others to
/// tell of what is not its own.
fn told(slot: &SlotValue, stands_still: bool) -> Option<u64> {
    match of_gauge(slot.gauge).left {
        Left::Sum => None,
        Left::Nothing if stands_still => None,
        _ if stands_still && matches!(slot.gauge, Gauge::AgentReady | Gauge::AgentActivePartitions) => {
            Some(0)
        }
        Left::Nothing | Left::Zero | Left::Last => Some(slot.value),
    }
}

impl GaugeKey {
    /// The place of which it tells; `None` for what only its own process can tell.
    fn place(&self) -> Option<Place> {
        let PageLabels { group, topic, partition, .. } = &self.labels;
        let is_of_a_group = matches!(of_gauge(self.gauge).left, Left::Last | Left::Nothing);
        is_of_a_group.then(|| (self.gauge, group.clone(), topic.clone(), *partition))
    }
}

impl PageFile {
    fn process(&self) -> ProcessKey {
        ProcessKey { role: self.role, instance_id: self.instance_id.clone() }
    }
}

impl SlotValue {
    fn key(&self) -> GaugeKey {
        GaugeKey { gauge: self.gauge, labels: self.labels.clone() }
    }
}
