//! One file, two targets: whose hits count.

use aya_ebpf::{macros::map, maps::HashMap};
use streamhouse_abi::limits::TARGETS_MAX;
use streamhouse_abi::map::{Counter, Value};

use crate::atomic;

#[map]
static TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(TARGETS_MAX, 0);

/// Refuses a hit that came through another target than the value's first one.
///
/// A file attached through two paths (two overlay mounts of one lower file) sends every hit twice, and only the target
/// tells the two apart. The first hit to arrive claims the value. Once the probe has dropped one of the links it
/// writes to [`TARGETS`] that the two are one, and values of either side go on.
#[inline(always)]
pub fn claim(value: *mut Value, target: u32) -> Result<(), Counter> {
    let mine = u64::from(target) + 1;
    // SAFETY: `value` is a value of `VALUES`; these fields change by atomic operations and single aligned stores.
    unsafe {
        let owner = &raw mut (*value).target;
        let mut first = owner.read_volatile();
        if first == 0 {
            first = atomic::compare_exchange(owner, 0, mine);
        }
        if first == 0 || first == mine || canonical((first - 1) as u32) == canonical(target) {
            return Ok(());
        }
        (&raw mut (*value).foreign_target).write_volatile(mine);
        atomic::add(&raw mut (*value).foreign_hits, 1);
    }
    Err(Counter::Foreign)
}

#[inline(always)]
fn canonical(target: u32) -> u32 {
    match TARGETS.get_ptr(target) {
        // SAFETY: a value of the map, which the probe replaces as a whole.
        Some(other) => unsafe { *other },
        None => target,
    }
}
