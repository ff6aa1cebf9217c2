//! What there is one of in each process: its nonce, its scope ids and its page.
//!
//! All of it hangs on one pointer that is only ever exchanged, never locked, so that a child forked while another
//! thread was in here finds nothing locked for good.

use crate::page::Page;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// What belongs to this process and not to a child it forks. Never freed.
pub(crate) struct Process {
    pid: u32,
    pub(crate) nonce: u64,
    /// `None` inside: the page could not be made, and gauges go nowhere.
    pub(crate) page: OnceLock<Option<&'static Page>>,
}

static CURRENT: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());
static NEXT_SCOPE_ID: AtomicU64 = AtomicU64::new(1);

/// An id that no other scope of this process, or of those it was forked from, has had.
pub(crate) fn next_scope_id() -> u64 {
    NEXT_SCOPE_ID.fetch_add(1, Ordering::Relaxed)
}

/// This process, if it has used hooks before; a forked child has not.
pub(crate) fn known() -> Option<&'static Process> {
    // SAFETY: null, or made by `Box::into_raw` in `current` and never freed once it was stored here.
    let process = unsafe { CURRENT.load(Ordering::Acquire).as_ref() }?;
    (process.pid == std::process::id()).then_some(process)
}

/// This process; draws the nonce when there is none yet, or when the one there is was drawn before a fork.
pub(crate) fn current() -> &'static Process {
    let mut before = CURRENT.load(Ordering::Acquire);
    loop {
        if let Some(process) = known() {
            return process;
        }
        #[cfg(all(target_os = "linux", not(feature = "disabled")))]
        crate::fork::watch();
        let pid = std::process::id();
        let fresh = Box::into_raw(Box::new(Process { pid, nonce: nonce(pid), page: OnceLock::new() }));
        match CURRENT.compare_exchange(before, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: made above, and from here on never freed.
            Ok(_) => return unsafe { &*fresh },
            Err(other) => {
                // SAFETY: made above and seen by nobody.
                drop(unsafe { Box::from_raw(fresh) });
                before = other;
            }
        }
    }
}

/// Forgets the parent's nonce and page; for the child of a fork.
#[cfg(all(target_os = "linux", not(feature = "disabled")))]
pub(crate) fn forget() -> Option<&'static Process> {
    // SAFETY: as in `known`.
    unsafe { CURRENT.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() }
}

/// 64 random bits. Early at boot, when the kernel has none to give without waiting, bits that merely differ between
/// processes: a nonce is no secret.
fn nonce(pid: u32) -> u64 {
    random().unwrap_or_else(|| mixed(crate::started::monotonic_ns() ^ u64::from(pid).rotate_left(40)))
}

/// What a thread's generator begins with.
pub(crate) fn seed() -> u64 {
    nonce(std::process::id())
}

/// The finaliser of SplitMix64: spreads every bit over all others.
pub(crate) fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(target_os = "linux")]
fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK).ok()?;
    (filled == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

#[cfg(not(target_os = "linux"))]
fn random() -> Option<u64> {
    None
}
