//! The state page: values that are true now, in shared memory that the probe copies.
//!
//! A value is two relaxed stores into a sealed memfd: no system call, no port, no thread. Making a gauge locks and may
//! allocate, setting it never does. The layout and the order in which things are published are those of
//! [`streamhouse_abi::page`].
//!
//! - `memory`: the memfd and its mapping, or `no_memory`;
//! - `layout`: the treaty's structures as atomics;
//! - `arena`: interns strings and label sets, hands out slots;
//! - `gauge`: what callers hold.

mod arena;
mod gauge;
mod layout;
#[cfg_attr(any(not(target_os = "linux"), feature = "disabled"), path = "no_memory.rs")]
mod memory;

pub use gauge::Gauge;

use crate::{GaugeId, Role, process, text};
use arena::Arena;
use layout::{Header, Slot};
use memory::Memory;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use streamhouse_abi::limits::{AGENT_PAGE_BYTES, CLIENT_PAGE_BYTES};
use streamhouse_abi::page::{ARENA_OFFSET, CELL, MAGIC, VERSION};

/// What tells a gauge from others of its kind; empty strings and `None` where it has no such label.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'a> {
    pub(crate) instance_id: &'a str,
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<u32>,
}

/// A state page. It lives as long as the process, so that its last values can be read after an exit.
pub(crate) struct Page {
    memory: Memory,
    arena: Mutex<Arena>,
}

/// This process's page, made by the first call and named after what that call is for; `None` where it cannot be made.
pub(crate) fn current(role: Role, instance_id: &str) -> Option<&'static Page> {
    let process = process::current();
    *process.page.get_or_init(|| {
        let bytes = match role {
            Role::Agent => AGENT_PAGE_BYTES,
            Role::Producer | Role::Consumer => CLIENT_PAGE_BYTES,
        };
        Page::create(bytes, process.nonce, role, instance_id)
    })
}

/// Takes a slot from the page it is on. Leaves the parent's page alone in a forked child.
fn retire(slot: &'static Slot) {
    if let Some(page) = process::known().and_then(|process| *process.page.get()?) {
        page.arena().retire(slot);
    }
}

impl Page {
    fn create(bytes: usize, nonce: u64, role: Role, instance_id: &str) -> Option<&'static Page> {
        let memory = Memory::create(bytes)?;
        let cells = memory.cells();
        memory.header().publish(nonce, role, instance_id, cells.len());
        let arena = Mutex::new(Arena::new(memory.header(), cells));
        Some(Box::leak(Box::new(Page { memory, arena })))
    }

    /// Publishes a gauge; one that does nothing when there is no room for it.
    pub(crate) fn gauge(&self, gauge: GaugeId, labels: Labels<'_>) -> Gauge {
        let slot = self.arena().publish(gauge, labels);
        if slot.is_none() {
            self.memory.header().refused.fetch_add(1, Ordering::Relaxed);
        }
        Gauge::new(slot)
    }

    /// Tells the probe to leave out what this process does, from now on.
    #[cfg(feature = "metrics")]
    pub(crate) fn serves_metrics(&self) {
        self.memory.header().serves_metrics.store(1, Ordering::Relaxed);
    }

    /// For the child of a fork: what it inherited of the page becomes memory of its own.
    #[cfg(all(target_os = "linux", not(feature = "disabled")))]
    pub(crate) fn disown(&self) {
        self.memory.disown();
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        // Nothing under the lock panics, and what it guards is whole between any two of its steps.
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Header {
    /// Fills the header of a fresh page; the magic, last, says that it is there.
    fn publish(&self, nonce: u64, role: Role, instance_id: &str, cells: usize) {
        self.version.store(VERSION, Ordering::Relaxed);
        self.pid.store(std::process::id(), Ordering::Relaxed);
        self.nonce.store(nonce, Ordering::Relaxed);
        self.role.store(role as u32, Ordering::Relaxed);
        self.cells_capacity.store(cells as u32, Ordering::Relaxed);
        let id = text::cut(instance_id, self.instance_id.len() - 1);
        for (to, byte) in self.instance_id.iter().zip(id.bytes()) {
            to.store(byte, Ordering::Relaxed);
        }
        self.magic.store(MAGIC, Ordering::Release);
    }
}

const _: () = {
    assert!((AGENT_PAGE_BYTES - ARENA_OFFSET) / CELL <= u32::MAX as usize);
    assert!(CLIENT_PAGE_BYTES <= AGENT_PAGE_BYTES);
};

#[cfg(test)]
#[cfg(all(target_os = "linux", not(feature = "disabled")))]
mod tests;
