//! The maps of the loaded program, typed.

use std::fmt;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use aya_log::EbpfLogger;
use streamhouse_abi::map::{
    COUNTERS, Counter, Key, PROCESSES, Process, SCOPES, SIZES, ScopeKey, ScopeLabels, Sizes, TARGETS, VALUES,
    Value,
};

use super::LoadError;
use super::said::Named;

/// Makes a type of the treaty one that aya copies in and out of the kernel.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: both are `repr(C)` without padding (their sizes are asserted in the treaty) and made of integers, of which
// any bytes are valid.
unsafe impl Pod for Plain<Key> {}
// SAFETY: as above.
unsafe impl Pod for Plain<ScopeKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Value> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Sizes> {}
// SAFETY: as above.
unsafe impl Pod for Plain<ScopeLabels> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Process> {}

/// The maps of the loaded program.
pub struct Maps {
    values: HashMap<MapData, Plain<Key>, Plain<Value>>,
    sizes: HashMap<MapData, Plain<Key>, Plain<Sizes>>,
    scopes: HashMap<MapData, Plain<ScopeKey>, Plain<ScopeLabels>>,
    processes: HashMap<MapData, u32, Plain<Process>>,
    targets: HashMap<MapData, u32, u32>,
    counters: PerCpuArray<MapData, u64>,
    log: Option<Logger>,
}

/// Writes what the program says to the process's logger.
type Logger = EbpfLogger<Named>;

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl Maps {
    /// Takes the maps out of what aya loaded.
    pub(super) fn take(ebpf: &mut Ebpf, log: Option<Logger>) -> Result<Maps, LoadError> {
        Ok(Maps {
            values: take(ebpf, VALUES)?,
            sizes: take(ebpf, SIZES)?,
            scopes: take(ebpf, SCOPES)?,
            processes: take(ebpf, PROCESSES)?,
            targets: take(ebpf, TARGETS)?,
            counters: take(ebpf, COUNTERS)?,
            log,
        })
    }

    /// Passes on what the program has said since the last time.
    pub(crate) fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Every value, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = Result<(Key, Value), MapError>> {
        self.values.iter().map(|entry| entry.map(|(key, value)| (key.0, value.0)))
    }

    /// The sizes of a `flush` key, when there are any.
    pub(crate) fn sizes(&self, key: Key) -> Result<Option<Sizes>, MapError> {
        found(self.sizes.get(&Plain(key), 0)).map(|sizes| sizes.map(|sizes| sizes.0))
    }

    /// The labels of a scope, ready or not.
    pub(crate) fn labels(&self, key: ScopeKey) -> Result<Option<ScopeLabels>, MapError> {
        found(self.scopes.get(&Plain(key), 0)).map(|labels| labels.map(|labels| labels.0))
    }

    /// Every scope, in no order.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Result<ScopeKey, MapError>> {
        self.scopes.keys().map(|key| key.map(|key| key.0))
    }

    /// Every process and what it holds, in no order.
    pub(crate) fn processes(&self) -> impl Iterator<Item = Result<(u32, Process), MapError>> {
        self.processes.iter().map(|entry| entry.map(|(tgid, process)| (tgid, process.0)))
    }

    /// A counter, summed over the CPUs.
    pub(crate) fn counter(&self, counter: Counter) -> Result<u64, MapError> {
        Ok(self.counters.get(&(counter as u32), 0)?.iter().sum())
    }

    /// Removes a value, and its sizes when it has some.
    pub(crate) fn remove_value(&mut self, key: Key) -> Result<(), MapError> {
        found(self.sizes.remove(&Plain(key)))?;
        found(self.values.remove(&Plain(key))).map(|_| ())
    }

    /// Removes a scope.
    pub(crate) fn remove_scope(&mut self, key: ScopeKey) -> Result<(), MapError> {
        found(self.scopes.remove(&Plain(key))).map(|_| ())
    }

    /// Removes a process.
    pub(crate) fn remove_process(&mut self, tgid: u32) -> Result<(), MapError> {
        found(self.processes.remove(&tgid)).map(|_| ())
    }

    /// Sets what a process holds.
    pub(crate) fn set_process(&mut self, tgid: u32, process: Process) -> Result<(), MapError> {
        self.processes.insert(tgid, Plain(process), 0)
    }

    /// Undoes [`Maps::set_target`].
    pub(crate) fn remove_target(&mut self, target: u32) -> Result<(), MapError> {
        found(self.targets.remove(&target)).map(|_| ())
    }

    /// Makes hits of the target `target` count as those of `canonical`.
    pub(crate) fn set_target(&mut self, target: u32, canonical: u32) -> Result<(), MapError> {
        self.targets.insert(target, canonical, 0)
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::Foreign(format!("it has no map {name}")))?;
    M::try_from(map).map_err(|error| LoadError::Foreign(format!("its map {name} is another one: {error}")))
}

/// Turns "no such key" into `None`.
fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
