//! Who and where: the scope's head and its strings, once.

use core::mem::offset_of;

use aya_ebpf::helpers::{bpf_probe_read_user, generated};
use aya_ebpf::{macros::map, maps::Array, maps::HashMap};
use streamhouse_abi::limits::{PROCESS_SHARE, SCOPES_MAX};
use streamhouse_abi::map::{Counter, Key, Process, ScopeKey, ScopeLabels};
use streamhouse_abi::{Owner, Role, Scope, ScopeHead};

use crate::hit::Hit;
use crate::{atomic, process};

#[map]
static SCOPES: HashMap<ScopeKey, ScopeLabels> = HashMap::with_max_entries(SCOPES_MAX, 0);
#[map]
static ZERO_SCOPE: Array<ScopeLabels> = Array::with_max_entries(1, 0);

/// Reads the head, which lies before the topic; it has to be of the scope that the hit is of.
#[inline(always)]
fn head(hit: &Hit) -> Result<ScopeHead, Counter> {
    let address = hit.topic.wrapping_sub(Scope::TOPIC_OFFSET as u64);
    // SAFETY: the helper checks the address; any bytes are a valid head.
    let head =
        unsafe { bpf_probe_read_user(address as *const ScopeHead) }.map_err(|_| Counter::BadPointer)?;
    if Role::from_number(head.role).is_none() || head.nonce != hit.nonce || head.scope_id != hit.scope_id {
        return Err(Counter::Clamped);
    }
    Ok(head)
}

/// Makes the scope's entry, so that no value is without one, if the scope is one. The strings are for [`label`].
#[inline(always)]
pub fn register(key: &Key, hit: &Hit) -> Result<(), Counter> {
    head(hit)?;
    // SAFETY: projects a pointer to a value of `PROCESSES`.
    let held = |process: *mut Process| unsafe { &raw mut (*process).scopes };
    process::entry(&SCOPES, &ZERO_SCOPE, &key.scope(), key.tgid, held, SCOPES_MAX / PROCESS_SHARE).map(|_| ())
}

/// Copies the strings, if nobody has; gives whether they are there.
///
/// One hit claims the copy and the others leave it alone: a reader of the map that sees `READY` sees strings that
/// never change again. A string that is not in memory is left to a later hit.
#[inline(always)]
pub fn label(key: &Key, hit: &Hit) -> bool {
    let Ok(head) = head(hit) else { return false };
    let Some(labels) = SCOPES.get_ptr_mut(key.scope()) else { return false };
    // SAFETY: `labels` is a value of the map; `ready` changes by atomic exchanges only, and the rest of the value
    // belongs to the hit that changed it to `COPYING`.
    unsafe {
        let ready = &raw mut (*labels).ready;
        match atomic::compare_exchange(ready, ScopeLabels::EMPTY, ScopeLabels::COPYING) {
            ScopeLabels::EMPTY => {}
            state => return state == ScopeLabels::READY,
        }
        let owner = head.owner;
        let copied = copy_string(&raw mut (*labels).topic, hit.topic)
            && copy_string(&raw mut (*labels).instance_id, owner + offset_of!(Owner, instance_id) as u64)
            && copy_string(&raw mut (*labels).group, owner + offset_of!(Owner, group) as u64);
        (*labels).head = head;
        let state = if copied { ScopeLabels::READY } else { ScopeLabels::EMPTY };
        // An exchange orders the strings before the state.
        atomic::compare_exchange(ready, ScopeLabels::COPYING, state);
        copied
    }
}

/// Copies a string of the process with its NUL, cut to the space there is.
///
/// # Safety
///
/// `to` must point into a map value.
#[inline(always)]
unsafe fn copy_string<const SPACE: usize>(to: *mut [u8; SPACE], from: u64) -> bool {
    // SAFETY: the helper writes at most `SPACE` bytes and checks the address it reads from.
    unsafe { generated::bpf_probe_read_user_str(to.cast(), SPACE as u32, from as *const _) >= 0 }
}
