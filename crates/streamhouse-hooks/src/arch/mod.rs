//! What depends on the processor: the bytes of a site and the registers of its arguments, one file each.
//!
//! Each file defines one macro, `emit!(name, semaphore, [six arguments])`; this one wraps it into `site!`. Without a
//! file for the target, or with the feature `disabled`, a site is an empty function behind a constant `false`.

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(feature = "disabled")))]
#[macro_use]
mod x86_64;

#[cfg(all(target_os = "linux", target_arch = "aarch64", not(feature = "disabled")))]
#[macro_use]
mod aarch64;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "disabled")
))]
#[macro_use]
mod site {
    use std::sync::atomic::{AtomicU16, Ordering};

    /// Counts the tracers attached to a site: the kernel adds one for each in the memory of this process.
    #[repr(transparent)]
    pub(crate) struct Semaphore(AtomicU16);

    impl Semaphore {
        pub(crate) const fn new() -> Semaphore {
            Semaphore(AtomicU16::new(0))
        }

        /// Whether anyone is attached: one load.
        #[inline(always)]
        pub(crate) fn is_on(&self) -> bool {
            self.0.load(Ordering::Relaxed) != 0
        }
    }

    /// Declares a noun's `SEMAPHORE` and the function `fire` that holds its one site.
    ///
    /// `fire` is never inlined, because each copy would be one more place to attach to. Its arguments are those of the
    /// site in the same order, so they arrive in the very registers that the site promises.
    macro_rules! site {
        ($name:literal) => {
            #[unsafe(link_section = ".probes")]
            #[used]
            static SEMAPHORE: $crate::arch::Semaphore = $crate::arch::Semaphore::new();

            #[cold]
            #[inline(never)]
            extern "C" fn fire(
                topic: *const u8,
                records: u64,
                bytes: u64,
                duration_ns: u64,
                status: u64,
                detail: u64,
            ) {
                emit!($name, SEMAPHORE, [topic, records, bytes, duration_ns, status, detail]);
            }
        };
    }
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "disabled")
)))]
#[macro_use]
mod site {
    /// Nobody can attach to what is not there.
    pub(crate) struct Semaphore;

    impl Semaphore {
        #[inline(always)]
        pub(crate) fn is_on(&self) -> bool {
            false
        }
    }

    macro_rules! site {
        ($name:literal) => {
            static SEMAPHORE: $crate::arch::Semaphore = $crate::arch::Semaphore;

            fn fire(_: *const u8, _: u64, _: u64, _: u64, _: u64, _: u64) {}
        };
    }
}

pub(crate) use site::Semaphore;
