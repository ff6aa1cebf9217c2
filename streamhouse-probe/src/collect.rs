//! Kernel maps → sums at scrape, kept per label set.

mod exposed;
mod labels;
mod ledger;
mod liveness;
mod sums;

pub use streamhouse_metrics::{Buckets, Counts, Detail, SizeCounts};
pub use sums::{Labels, MapUse, SameFile, SeriesKey, SiteSum, Statuses, Sums};

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use aya::maps::MapError;
use streamhouse_abi::Site;
use streamhouse_abi::limits::{PROCESSES_MAX, SCOPES_MAX, SIZES_MAX, VALUES_MAX};
use streamhouse_abi::map::{
    COUNTERS, Counter, Key, PROCESSES, Process, SCOPES, SIZES, TARGETS, VALUES, Value,
};

use crate::attach::Maps;
use crate::room::Room;
use ledger::{Ledger, Reading};
use liveness::{Fate, Processes};

/// How long a label set is served after its last process has exited; less when room for series gets scarce.
pub const KEPT_AFTER_EXIT: Duration = Duration::from_secs(15 * 60);

/// The maps could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the kernel map {map}: {source}; restart the probe if this persists")]
pub struct CollectError {
    /// The map's name.
    pub map: &'static str,
    /// What the kernel said.
    pub source: MapError,
}

/// Reads the kernel maps and keeps totals by label set.
#[derive(Debug)]
pub struct Collector {
    maps: Maps,
    ledger: Ledger,
    processes: Processes,
    unlabelled_operations: u64,
    /// Targets that are another one: dropped → kept. No kept one is itself dropped.
    merged: HashMap<u32, u32>,
    /// Targets that values named at the last collection.
    named: HashSet<u32>,
    /// Processes that are left out, by pid and nonce.
    left_out: HashSet<(u32, u64)>,
}

impl Collector {
    /// A collector of a kernel program's maps.
    pub fn new(maps: Maps) -> Collector {
        Collector {
            maps,
            ledger: Ledger::default(),
            processes: Processes::default(),
            unlabelled_operations: 0,
            merged: HashMap::new(),
            named: HashSet::new(),
            left_out: HashSet::new(),
        }
    }

    /// From now on leaves out what these processes, by pid and nonce, count: they serve it themselves. What was served of
    /// them stays as it is.
    pub fn leave_out(&mut self, processes: HashSet<(u32, u64)>) {
        self.left_out = processes;
    }

    /// Sums up what the kernel has counted until now; values of processes that have exited are kept here and leave the
    /// kernel's maps. `now` must not go backwards from call to call; what has no room counts in overflow series.
    ///
    /// # Errors
    ///
    /// When a map cannot be read or written; the next call tries again, and nothing is lost.
    pub fn collect(&mut self, now: Instant, room: &mut Room) -> Result<Sums, CollectError> {
        self.maps.flush_log();
        let mut counters = [0; Counter::ALL.len()];
        for (sum, counter) in counters.iter_mut().zip(Counter::ALL) {
            *sum = self.maps.counter(counter).map_err(in_map(COUNTERS))?;
        }
        let held: HashMap<u32, Process> =
            self.maps.processes().collect::<Result<_, _>>().map_err(in_map(PROCESSES))?;
        // First who has exited, then what was counted: what is read of an exited process is final.
        let fates: HashMap<u32, Fate> = held.keys().map(|&tgid| (tgid, self.processes.fate(tgid))).collect();
        let pass = self.read_values(&fates, now, room)?;
        self.named = pass.named;
        self.forget(&fates, room)?;
        Ok(Sums {
            sites: self.ledger.finish(now, room),
            counters,
            maps: map_uses(&held),
            held_back: pass.held_back,
            unlabelled_operations: self.unlabelled_operations,
            same_files: pass.same_files.into_iter().collect(),
        })
    }

    /// From now on hits of `same.dropped` and of `same.kept` count as one target's. Call it after the link of
    /// `same.dropped` is gone: with both attached every hit would count twice.
    ///
    /// # Errors
    ///
    /// When the map of targets cannot be written.
    pub fn merge_targets(&mut self, same: SameFile) -> Result<(), CollectError> {
        let kept = self.canonical(same.kept);
        let dropped = self.canonical(same.dropped);
        if kept == dropped {
            return Ok(());
        }
        // The program follows one step only, so whatever led to the dropped one leads on.
        let leading: Vec<u32> =
            self.merged.iter().filter(|&(_, &to)| to == dropped).map(|(&from, _)| from).collect();
        for from in leading.into_iter().chain([dropped]) {
            self.maps.set_target(from, kept).map_err(in_map(TARGETS))?;
            self.merged.insert(from, kept);
        }
        Ok(())
    }

    /// Every target that is the file of `same`, as far as known: a hit arrives through each of them that is attached.
    pub fn one_file(&self, same: SameFile) -> BTreeSet<u32> {
        let ends = [self.canonical(same.kept), self.canonical(same.dropped)];
        let leading = self.merged.iter().filter(|(_, to)| ends.contains(to)).map(|(from, _)| *from);
        leading.chain(ends).collect()
    }

    /// Forgets what targets are one file with where nothing depends on it any more: they are not among those `attached`
    /// since before the last collection, and no value named them there. Every container of one image is a new target
    /// of the same file, so without this the map would fill.
    ///
    /// # Errors
    ///
    /// When the map of targets cannot be written.
    pub fn forget_merged(&mut self, attached: &BTreeSet<u32>) -> Result<(), CollectError> {
        let gone = |target: &u32| !attached.contains(target) && !self.named.contains(target);
        let gone: Vec<u32> = self.merged.keys().copied().filter(gone).collect();
        for target in gone {
            self.maps.remove_target(target).map_err(in_map(TARGETS))?;
            self.merged.remove(&target);
        }
        Ok(())
    }

    fn canonical(&self, target: u32) -> u32 {
        self.merged.get(&target).copied().unwrap_or(target)
    }

    /// Adds every value to its series; folds and removes those of exited processes.
    fn read_values(
        &mut self,
        fates: &HashMap<u32, Fate>,
        now: Instant,
        room: &mut Room,
    ) -> Result<Pass, CollectError> {
        let mut pass = Pass::default();
        let (mut exited, mut left_out) = (Vec::new(), Vec::new());
        self.ledger.begin();
        for entry in self.maps.values() {
            let (key, value) = entry.map_err(in_map(VALUES))?;
            pass.named.extend([value.target, value.foreign_target].into_iter().filter_map(target_of));
            if let Some((first, other)) = foreign(&value) {
                pass.same_file(self.canonical(first), self.canonical(other));
            }
            let has_exited = fates.get(&key.tgid).is_some_and(|fate| fate.is_exit_of(key.nonce));
            let reading = Reading { key, value, sizes: self.sizes(key)? };
            if self.left_out.contains(&(key.tgid, key.nonce)) {
                if self.ledger.serves(&key) {
                    self.ledger.fold(&reading, now, room, || None);
                }
                match has_exited {
                    true => left_out.push(key),
                    false => self.processes.saw(key.tgid, key.nonce),
                }
                continue;
            }
            if has_exited {
                exited.push(reading);
                continue;
            }
            self.processes.saw(key.tgid, key.nonce);
            if !self.ledger.add(&reading, now, room, || labels_of(&self.maps, key)) {
                pass.held_back += 1;
            }
        }
        for key in left_out {
            self.maps.remove_value(key).map_err(in_map(VALUES))?;
        }
        for reading in exited {
            let labels = labels_of(&self.maps, reading.key);
            // Removed before it is folded: a removal that fails must not leave it to be counted twice.
            self.maps.remove_value(reading.key).map_err(in_map(VALUES))?;
            if !self.ledger.fold(&reading, now, room, || labels) {
                self.unlabelled_operations += reading.value.operations.iter().sum::<u64>();
            }
        }
        Ok(pass)
    }

    fn sizes(&self, key: Key) -> Result<Option<streamhouse_abi::map::Sizes>, CollectError> {
        if key.site != Site::Flush as u16 {
            return Ok(None);
        }
        self.maps.sizes(key).map_err(in_map(SIZES))
    }

    /// Gives the room of exited processes back.
    fn forget(&mut self, fates: &HashMap<u32, Fate>, room: &mut Room) -> Result<(), CollectError> {
        if fates.values().all(|fate| *fate == Fate::Lives) {
            return Ok(());
        }
        let scopes: Vec<_> = self.maps.scopes().collect::<Result<_, _>>().map_err(in_map(SCOPES))?;
        for scope in scopes {
            if fates.get(&scope.tgid).is_some_and(|fate| fate.is_exit_of(scope.nonce)) {
                self.maps.remove_scope(scope).map_err(in_map(SCOPES))?;
            }
        }
        for (&tgid, fate) in fates {
            if *fate != Fate::Lives {
                room.exited(tgid);
            }
            match fate {
                Fate::Lives => {}
                Fate::Exited => self.maps.remove_process(tgid).map_err(in_map(PROCESSES))?,
                Fate::Replaced(_) => self.recount(tgid)?,
            }
        }
        Ok(())
    }

    /// Counts anew what the process that now has the id holds. An entry that it makes meanwhile may go uncounted: it
    /// then has one more than its share.
    fn recount(&mut self, tgid: u32) -> Result<(), CollectError> {
        let mut process = Process::default();
        for entry in self.maps.values() {
            let (key, _) = entry.map_err(in_map(VALUES))?;
            if key.tgid == tgid {
                process.values += 1;
                process.sizes += u64::from(self.sizes(key)?.is_some());
            }
        }
        for scope in self.maps.scopes() {
            process.scopes += u64::from(scope.map_err(in_map(SCOPES))?.tgid == tgid);
        }
        self.maps.set_process(tgid, process).map_err(in_map(PROCESSES))
    }
}

/// What one reading of the values found besides sums.
#[derive(Debug, Default)]
struct Pass {
    held_back: u64,
    same_files: BTreeSet<SameFile>,
    /// Targets that values are of, or were hit through.
    named: HashSet<u32>,
}

impl Pass {
    fn same_file(&mut self, one: u32, other: u32) {
        if one != other {
            self.same_files.insert(SameFile { kept: one.min(other), dropped: one.max(other) });
        }
    }
}

/// The first target of a value and the other one it was hit through, if there is one.
fn foreign(value: &Value) -> Option<(u32, u32)> {
    Some((target_of(value.target)?, target_of(value.foreign_target)?))
}

/// The target in a field of a value, which has it plus 1.
fn target_of(plus_one: u64) -> Option<u32> {
    u32::try_from(plus_one.checked_sub(1)?).ok()
}

/// The labels of a value's scope, if they are ready.
fn labels_of(maps: &Maps, key: Key) -> Option<Labels> {
    // A scope that cannot be read is like one that is not ready: the next collection tries again.
    maps.labels(key.scope()).ok().flatten().as_ref().and_then(labels::decode)
}

fn map_uses(held: &HashMap<u32, Process>) -> Vec<MapUse> {
    let entries = |of: fn(&Process) -> u64| held.values().map(of).sum();
    let map = |name, entries, capacity: u32| MapUse { name, entries, capacity: u64::from(capacity) };
    vec![
        map(VALUES, entries(|process| process.values), VALUES_MAX),
        map(SIZES, entries(|process| process.sizes), SIZES_MAX),
        map(SCOPES, entries(|process| process.scopes), SCOPES_MAX),
        map(PROCESSES, held.len() as u64, PROCESSES_MAX),
    ]
}

fn in_map(map: &'static str) -> impl FnOnce(MapError) -> CollectError {
    move |source| CollectError { map, source }
}
