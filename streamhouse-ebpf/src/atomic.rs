//! The atomic instructions that `core::sync::atomic` does not have for this target.
//!
//! Instruction set: Linux `Documentation/bpf/standardization/instruction-set.rst`, "Atomic operations". Fetching and
//! comparing forms need Linux 5.12.

use core::arch::asm;

/// Adds `more`.
///
/// # Safety
///
/// `sum` must point to eight aligned bytes of map memory.
#[inline(always)]
pub unsafe fn add(sum: *mut u64, more: u64) {
    // SAFETY: the caller vouches for the address; the verifier checks it too.
    unsafe { asm!("lock *(u64 *)({sum} + 0) += {more}", sum = in(reg) sum, more = in(reg) more) }
}

/// Adds `more` and gives what was there before.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn fetch_add(sum: *mut u64, more: u64) -> u64 {
    let before;
    // SAFETY: as in `add`.
    unsafe {
        asm!(
            "{more} = atomic_fetch_add((u64 *)({sum} + 0), {more})",
            sum = in(reg) sum,
            more = inout(reg) more => before,
        );
    }
    before
}

/// Stores `new` if `expected` is there, and gives what was there before.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn compare_exchange(cell: *mut u64, expected: u64, new: u64) -> u64 {
    let before;
    // SAFETY: as in `add`.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({cell} + 0, r0, {new})",
            cell = in(reg) cell,
            new = in(reg) new,
            inout("r0") expected => before,
        );
    }
    before
}
