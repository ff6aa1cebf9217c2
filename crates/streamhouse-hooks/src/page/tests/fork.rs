//! A forked child has a page and a nonce of its own, and leaves its parent's alone.

use super::reader::Copy;
use crate::page::Page;
use crate::{GaugeId, Instance, Role, process};

/// What the child found wrong, as its exit status: the child of a threaded process must not unwind into the tests.
fn child(inherited: &crate::Gauge, instance: &Instance, parent_nonce: u64, page: &Page) -> i32 {
    use std::os::fd::AsRawFd;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    // Other tests of this process have pages that are not its own, which nothing disowns.
    let start = format!("{:x}-", page.memory.start_address());
    if maps.lines().any(|line| line.starts_with(&start) && line.contains("memfd:streamhouse")) {
        return 1;
    }
    let link = std::fs::read_link(format!("/proc/self/fd/{}", page.memory.file.as_raw_fd()));
    if link.is_ok_and(|link| link.to_string_lossy().contains("memfd:streamhouse")) {
        return 2;
    }
    inherited.set(666, 666);
    let Some(own) = Instance::new(Role::Producer, "child", "").page() else { return 3 };
    let copy = Copy::of(own);
    if copy.u32(12) != std::process::id() || copy.u32(24) != Role::Producer as u32 {
        return 4;
    }
    if process::current().nonce == parent_nonce || copy.u64(16) != process::current().nonce {
        return 5;
    }
    // An instance from before the fork publishes on the new page.
    let gauge = instance.gauge(GaugeId::AgentReady, "", None);
    gauge.set(1, 1);
    if Copy::of(own).slots().iter().filter(|slot| slot.value == 1).count() != 1 {
        return 6;
    }
    drop(gauge);
    if !Copy::of(own).slots().is_empty() {
        return 7;
    }
    0
}

#[test]
fn a_forked_child_has_its_own_page() {
    let instance = Instance::new(Role::Agent, "parent", "");
    let page = instance.page().unwrap();
    let nonce = process::current().nonce;
    let gauge = instance.gauge(GaugeId::AgentActivePartitions, "", None);
    gauge.set(12, 34);
    let scope = instance.scope("orders", None);

    // SAFETY: the child only calls what a child of a threaded process may: glibc keeps its allocator usable.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let found = child(&gauge, &instance, nonce, page);
        drop((gauge, scope));
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(found) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 0));

    let slots = Copy::of(page).slots();
    let slot = slots.iter().find(|slot| slot.gauge == GaugeId::AgentActivePartitions).unwrap();
    assert_eq!((slot.value, slot.updated_ns), (12, 34), "the child wrote to its parent's page");
    drop(gauge);
    let slots = Copy::of(page).slots();
    assert!(slots.iter().all(|slot| slot.gauge != GaugeId::AgentActivePartitions));
}
