//! What a process that serves its metrics itself counts in.
//!
//! Hooks count in [`Subject`]s and set [`Value`]s, which are atomics: no lock is taken and nothing allocated when an event
//! is counted. A [`Recorder`] knows all of them and makes [`Families`] of them, as the probe does of what the kernel counted, so
//! that both planes serve the same series. With the feature `collector` it is a `Collector` of prometheus-client.
//!
//! Histograms have no partition label, so the partitions of a topic share one: a partition costs its counters only.

#[cfg(feature = "collector")]
mod collector;
mod row;

pub use row::{Event, Subject};

use crate::sources::{Left, of_gauge, of_site};
use crate::{Families, Label, LabelValues};
use row::{Durations, Row, SiteRows};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use streamhouse_abi::page::Gauge;
use streamhouse_abi::{Method, Operation, Role, Site, Status};

/// How long a label set is served after what it described has gone, as the probe does.
pub const KEPT_AFTER_END: Duration = Duration::from_secs(15 * 60);

/// Who and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels {
    /// What kind of thing it is.
    pub role: Role,
    /// Agent or client id.
    pub instance_id: Box<str>,
    /// Consumer group, or empty.
    pub group: Box<str>,
    /// Topic, or empty.
    pub topic: Box<str>,
    /// Partition, if it is one's.
    pub partition: Option<u32>,
}

/// Counts and values of the agents, producers or consumers that were given it.
#[derive(Default)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By what its metrics tell apart. Rows with one [`Durations`] stand behind each other.
    rows: BTreeMap<RowKey, Kept>,
    values: Vec<Arc<Value>>,
    /// Above so many values, those that were dropped are looked for.
    prune_at: usize,
    /// What counters had come to that were dropped.
    ended: HashMap<(Gauge, Labels), u64>,
}

/// Site, detail and labels, the partition last.
type RowKey = (Site, u16, Labels);

struct Kept {
    row: Arc<Row>,
    /// Since when nothing counts in it any more.
    ended: Option<Instant>,
}

/// A value that is true now. Dropped by whoever sets it, it ends; a counter stays.
#[derive(Debug)]
pub struct Value {
    gauge: Gauge,
    labels: Labels,
    value: AtomicU64,
    is_set: AtomicBool,
}

impl Value {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.value.store(value, Relaxed);
        self.is_set.store(true, Relaxed);
    }

    /// Adds to it. Wraps around.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.value.fetch_add(amount, Relaxed);
        self.is_set.store(true, Relaxed);
    }

    /// Subtracts from it. Wraps around.
    #[inline]
    pub fn sub(&self, amount: u64) {
        self.value.fetch_sub(amount, Relaxed);
        self.is_set.store(true, Relaxed);
    }

    fn get(&self) -> Option<u64> {
        self.is_set.load(Relaxed).then(|| self.value.load(Relaxed))
    }
}

impl Recorder {
    /// What events about these labels are counted in: every site that the role has there.
    pub fn subject(&self, labels: &Labels) -> Subject {
        let mut state = self.state();
        let sites = sites_of(labels.role, labels.topic.is_empty());
        Subject::new(sites.iter().map(|&site| {
            let rows = (0..details(site)).map(|detail| state.row(site, detail, labels)).collect();
            SiteRows { site, rows }
        }))
    }

    /// A value of these labels, until what is returned is dropped.
    pub fn value(&self, gauge: Gauge, labels: Labels) -> Arc<Value> {
        let value =
            Arc::new(Value { gauge, labels, value: AtomicU64::new(0), is_set: AtomicBool::new(false) });
        let mut state = self.state();
        if state.values.len() >= state.prune_at {
            state.prune_values();
            state.prune_at = 64.max(2 * state.values.len());
        }
        state.values.push(Arc::clone(&value));
        value
    }

    /// All that was counted until now.
    pub fn families(&self) -> Families {
        let mut families = Families::default();
        let mut state = self.state();
        state.prune_values();
        state.expire(Instant::now());
        state.add_rows(&mut families);
        state.add_values(&mut families);
        families
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics, and what it guards is whole between any two of its steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Recorder")
            .field("rows", &state.rows.len())
            .field("values", &state.values.len())
            .finish()
    }
}

impl State {
    fn row(&mut self, site: Site, detail: u16, labels: &Labels) -> Arc<Row> {
        let metrics = of_site(site);
        let mut labels = labels.clone();
        if !metrics.has(Label::Group) {
            labels.group = "".into();
        }
        if !metrics.has(Label::Topic) {
            labels.topic = "".into();
        }
        if !metrics.has(Label::Partition) {
            labels.partition = None;
        }
        let key = (site, detail, labels);
        if let Some(kept) = self.rows.get_mut(&key) {
            kept.ended = None;
            return Arc::clone(&kept.row);
        }
        let durations =
            self.durations(&key).unwrap_or_else(|| Arc::new(Durations::new(metrics.sizes.is_some())));
        let row = Arc::new(Row::new(durations));
        self.rows.insert(key, Kept { row: Arc::clone(&row), ended: None });
        row
    }

    /// The histogram that rows which differ in their partition share.
    fn durations(&self, (site, detail, labels): &RowKey) -> Option<Arc<Durations>> {
        let first = (*site, *detail, Labels { partition: None, ..labels.clone() });
        let (key, kept) = self.rows.range(first..).next()?;
        is_same_histogram(key, &(*site, *detail, labels.clone())).then(|| Arc::clone(&kept.row.durations))
    }

    fn add_rows(&self, families: &mut Families) {
        let mut before: Option<&RowKey> = None;
        for (key, Kept { row, .. }) in &self.rows {
            let first = !before.is_some_and(|before| is_same_histogram(before, key));
            let Some(counts) = row.counts(first) else { continue };
            before = Some(key);
            let (site, detail, labels) = key;
            let values = label_values(labels);
            let Some(detail) = crate::Detail::of(*site, *detail) else { continue };
            families.site(*site, &counts, None, |_: Status| values.with_detail(detail));
        }
    }

    fn add_values(&self, families: &mut Families) {
        let mut merged: BTreeMap<(Gauge, &Labels), u64> = BTreeMap::new();
        for ((gauge, labels), value) in &self.ended {
            merged.insert((*gauge, labels), *value);
        }
        for value in &self.values {
            let Some(now) = value.get() else { continue };
            let merge = of_gauge(value.gauge).merge;
            merged
                .entry((value.gauge, &value.labels))
                .and_modify(|before| *before = merge.of_two(*before, now))
                .or_insert(now);
        }
        for ((gauge, labels), value) in merged {
            families.gauge(gauge, &label_values(labels), value, monotonic_ns());
        }
    }

    /// Lets go of values that nobody can set any more.
    fn prune_values(&mut self) {
        let ended = &mut self.ended;
        self.values.retain(|value| {
            let lives = Arc::strong_count(value) > 1;
            if !lives && of_gauge(value.gauge).left == Left::Sum {
                *ended.entry((value.gauge, value.labels.clone())).or_default() += value.get().unwrap_or(0);
            }
            lives
        });
    }

    /// Lets go of label sets whose subjects ended long ago: those that share a histogram together, for it would go
    /// backwards without one of them.
    fn expire(&mut self, now: Instant) {
        for kept in self.rows.values_mut() {
            // The lock is held, so nobody takes another share meanwhile.
            match Arc::strong_count(&kept.row) > 1 {
                true => kept.ended = None,
                false => kept.ended = kept.ended.or(Some(now)),
            }
        }
        let lives = |kept: &Kept| kept.ended.is_none_or(|ended| now.duration_since(ended) < KEPT_AFTER_END);
        if self.rows.values().all(lives) {
            return;
        }
        let living = self.rows.iter().filter(|(_, kept)| lives(kept));
        let living: Vec<RowKey> = living
            .map(|((site, detail, labels), _)| (*site, *detail, Labels { partition: None, ..labels.clone() }))
            .collect();
        self.rows.retain(|(site, detail, labels), _| {
            living.binary_search(&(*site, *detail, Labels { partition: None, ..labels.clone() })).is_ok()
        });
    }
}

fn is_same_histogram((site, detail, labels): &RowKey, other: &RowKey) -> bool {
    let Labels { role, instance_id, group, topic, .. } = &other.2;
    (site, detail) == (&other.0, &other.1)
        && (&labels.role, &labels.instance_id, &labels.group, &labels.topic)
            == (role, instance_id, group, topic)
}

fn label_values(labels: &Labels) -> LabelValues<'_> {
    LabelValues {
        role: labels.role.name(),
        instance_id: &labels.instance_id,
        group: &labels.group,
        topic: &labels.topic,
        partition: labels.partition,
        ..LabelValues::default()
    }
}

/// The sites at which a role fires events about a topic, or about itself as a whole.
fn sites_of(role: Role, as_a_whole: bool) -> &'static [Site] {
    match (role, as_a_whole) {
        (Role::Producer, false) => &[Site::Send, Site::Flush],
        (Role::Producer, true) => &[],
        (Role::Consumer, false) => &[Site::Poll],
        (Role::Consumer, true) => &[Site::Object],
        (Role::Agent, false) => &[Site::Write],
        (Role::Agent, true) => &[Site::Write, Site::Object, Site::Commit, Site::Request],
    }
}

/// How many things a site tells apart itself.
fn details(site: Site) -> u16 {
    match site {
        Site::Object => Operation::ALL.len() as u16,
        Site::Request => Method::ALL.len() as u16,
        Site::Send | Site::Flush | Site::Poll | Site::Write | Site::Commit => 1,
    }
}

fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(feature = "collector")]
#[cfg(test)]
mod tests;
