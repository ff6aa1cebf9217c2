//! The program's own counters: how often it ran, and what it refused.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use streamhouse_abi::map::Counter;

use crate::atomic;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Adds to a counter; gives whether it was 0 on this CPU.
#[inline(always)]
pub fn add(counter: Counter, more: u64) -> bool {
    let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) else { return false };
    // SAFETY: `slot` is a u64 of the map. The add is atomic, so that it holds when the program is preempted by
    // another one that adds to the same slot.
    unsafe { atomic::fetch_add(slot, more) == 0 }
}
