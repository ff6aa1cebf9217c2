//! The memory of a page: a sealed memfd, mapped for good.

use super::layout::{Cell, Header};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use streamhouse_abi::page::{ARENA_OFFSET, CELL, MEMFD_NAME};

/// A mapping that is never undone, and the file behind it, which stays open for the probe to find under
/// `/proc/PID/fd`.
pub(super) struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    pub(super) file: OwnedFd,
}

// SAFETY: the mapping belongs to nobody else, is never undone, and is only used as atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` of zeroes, sparse; at least a header. `None` where the system has none to give.
    pub(super) fn create(bytes: usize) -> Option<Memory> {
        // Growing a file beyond this limit is not an error but a signal that kills the process.
        let most = getrlimit(Resource::Fsize).current;
        if bytes < ARENA_OFFSET || most.is_some_and(|most| most < bytes as u64) {
            return None;
        }
        let file = memfd().ok()?;
        rustix::fs::ftruncate(&file, bytes as u64).ok()?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).ok()?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so no other mapping is touched.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &file, 0).ok()?
        };
        // Else, where the machine wants huge pages everywhere, the first store makes 2 MiB resident. Kernels without
        // huge pages refuse the advice and need none.
        // SAFETY: advice changes no content.
        let _ = unsafe { rustix::mm::madvise(start, bytes, Advice::LinuxNoHugepage) };
        Some(Memory { start: NonNull::new(start.cast())?, bytes, file })
    }

    pub(super) fn header(&self) -> &'static Header {
        // SAFETY: the mapping is page-aligned, at least `ARENA_OFFSET` long (`create`) and never undone; a header is
        // shorter (the treaty asserts it), all atomics, and any bytes are valid for it.
        unsafe { self.start.cast().as_ref() }
    }

    pub(super) fn cells(&self) -> &'static [Cell] {
        let count = (self.bytes - ARENA_OFFSET) / CELL;
        // SAFETY: as for the header, which ends before the arena; `count` whole cells fit behind `ARENA_OFFSET`, a
        // multiple of their alignment.
        unsafe { std::slice::from_raw_parts(self.start.add(ARENA_OFFSET).cast().as_ptr(), count) }
    }

    /// Puts private memory in the place of the page and closes its file: in a forked child, which would otherwise
    /// write its parent's values through the gauges it inherited.
    pub(super) fn disown(&self) {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: replaces exactly the mapping of `create`. What refers to it finds zeroes, valid for atomics. The
        // file is closed once: a `Page` is never dropped, and the child has forgotten it.
        unsafe {
            if rustix::mm::mmap_anonymous(self.start.as_ptr().cast(), self.bytes, protection, flags).is_ok() {
                rustix::io::close(self.file.as_raw_fd());
            }
        }
    }

    #[cfg(test)]
    pub(super) fn start_address(&self) -> usize {
        self.start.addr().get()
    }
}

/// Never executable, where the kernel knows how to say so (6.3): some machines refuse all others.
fn memfd() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(MEMFD_NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(MEMFD_NAME, flags),
        made => made,
    }
}
