//! The semaphores of all sites, which begin a memory page.
//!
//! Linkers may put the end of one writable segment (the data that is read-only after relocation) and the beginning of
//! the next (this data) on the same page of the file, and the loader then maps that page twice. For a process that starts while a tracer is attached, the kernel counts in whichever writable mapping of
//! the page comes first (`valid_ref_ctr_vma` in `kernel/events/uprobes.c`): a semaphore on such a page stays 0, and
//! nothing of the process is seen. Nothing but this segment lies on a page that begins within it. See ADR 0009.

use std::sync::atomic::AtomicU16;
use streamhouse_abi::Site;

/// Alone on their page but for what follows in their segment.
#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(align(4096)))]
// The largest page that kernels for this processor are built with.
#[cfg_attr(target_arch = "aarch64", repr(align(65536)))]
pub(crate) struct Semaphores([AtomicU16; Site::ALL.len()]);

#[unsafe(link_section = ".probes")]
#[used]
pub(crate) static SEMAPHORES: Semaphores = Semaphores([const { AtomicU16::new(0) }; Site::ALL.len()]);

impl Semaphores {
    /// How far from the beginning the semaphore of a site is, in bytes.
    pub(crate) const fn offset(name: &str) -> usize {
        size_of::<AtomicU16>() * Semaphores::index(name)
    }

    pub(crate) const fn of(&self, name: &str) -> &AtomicU16 {
        &self.0[Semaphores::index(name)]
    }

    const fn index(name: &str) -> usize {
        Site::from_name(name).expect("the site is in the treaty") as usize
    }
}
