//! Whether anyone looks, and what the kernel needs to see what a site points to.

use streamhouse_abi::UNTIMED;
use tracing::Level;

/// Whether anyone looks: a tracer is attached, the process counts for itself, or `tracing` listens at `level`.
#[inline(always)]
pub(crate) fn at(attached: bool, level: Level) -> bool {
    !cfg!(feature = "disabled") && (attached || crate::record::is_on() || tracing::level_enabled!(level))
}

/// The duration for a `tracing` event: the field is left out when there is none.
pub(crate) fn timed(duration_ns: u64) -> Option<u64> {
    (duration_ns != UNTIMED).then_some(duration_ns)
}

/// The address of a value whose pages are all resident, as far as one may say so of user memory.
///
/// The program at a site cannot fault a page in, it would get an error instead. Nothing here is longer than a page,
/// so the first and the last byte are in all pages there are.
pub(crate) fn touched<T>(value: &T) -> *const T {
    const { assert!(size_of::<T>() > 0 && size_of::<T>() <= 4096) };
    let first: *const u8 = std::ptr::from_ref(value).cast();
    // SAFETY: both addresses are inside `value`, which is borrowed.
    unsafe {
        first.read_volatile();
        first.add(size_of::<T>() - 1).read_volatile();
    }
    value
}
