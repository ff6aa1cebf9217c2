//! What each process holds in the maps: no process may hold more than its share, whatever it does.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::{macros::map, maps::Array, maps::HashMap};
use streamhouse_abi::limits::PROCESSES_MAX;
use streamhouse_abi::map::{Counter, Process};

use crate::atomic;

#[map]
static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(PROCESSES_MAX, 0);

/// "File exists", as the kernel returns it.
const EEXIST: i32 = -17;

/// The entry of `key`, made from zeroes if there is none and the process has room left in its share.
///
/// `held` picks the process's count of entries in this map, `share` is how many it may hold. The zeroes come from
/// `zero`: a value is larger than a program's stack.
#[inline(always)]
pub fn entry<K, V>(
    map: &HashMap<K, V>,
    zero: &Array<V>,
    key: &K,
    tgid: u32,
    held: impl FnOnce(*mut Process) -> *mut u64,
    share: u32,
) -> Result<*mut V, Counter> {
    if let Some(value) = map.get_ptr_mut(key) {
        return Ok(value);
    }
    let zero = zero.get(0).ok_or(Counter::MapFull)?;
    let held = held(process(tgid)?);
    // SAFETY: `held` points into a value of `PROCESSES`, here and below.
    if unsafe { atomic::fetch_add(held, 1) } >= u64::from(share) {
        // SAFETY: see above.
        unsafe { atomic::add(held, MINUS_ONE) };
        return Err(Counter::OverShare);
    }
    if let Err(error) = map.insert(key, zero, u64::from(BPF_NOEXIST)) {
        // SAFETY: see above.
        unsafe { atomic::add(held, MINUS_ONE) };
        // Another CPU may have made it in the meantime.
        if error != EEXIST {
            return Err(Counter::MapFull);
        }
    }
    map.get_ptr_mut(key).ok_or(Counter::MapFull)
}

const MINUS_ONE: u64 = u64::MAX;

/// What a process holds, made on its first hit.
#[inline(always)]
fn process(tgid: u32) -> Result<*mut Process, Counter> {
    if let Some(process) = PROCESSES.get_ptr_mut(tgid) {
        return Ok(process);
    }
    let nothing = Process { values: 0, sizes: 0, scopes: 0 };
    // Whoever is second finds the first one's entry below.
    let _ = PROCESSES.insert(tgid, nothing, u64::from(BPF_NOEXIST));
    PROCESSES.get_ptr_mut(tgid).ok_or(Counter::MapFull)
}
