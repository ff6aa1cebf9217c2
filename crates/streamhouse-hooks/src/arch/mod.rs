//! What depends on the processor: the bytes of a site, the registers of its arguments and the look at its semaphore.
//!
//! One file an architecture, each with the macros `emit!(Site, name, [six arguments])`, which adds the last two
//! arguments from the scope itself, and `attached!(Site)`; [`site!`] makes a noun's site of them. Without a file
//! for the target, or with the feature `disabled`, a site is an empty function behind a constant `false`.

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(feature = "disabled")))]
#[macro_use]
mod x86_64;

#[cfg(all(target_os = "linux", target_arch = "aarch64", not(feature = "disabled")))]
#[macro_use]
mod aarch64;

/// How far before the topic the last two arguments of a site lie.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "disabled")
))]
pub(crate) mod head {
    use std::mem::offset_of;
    use streamhouse_abi::{Scope, ScopeHead};

    pub(crate) const FROM_SCOPE_ID: usize = Scope::TOPIC_OFFSET - offset_of!(ScopeHead, scope_id);
    pub(crate) const FROM_NONCE: usize = Scope::TOPIC_OFFSET - offset_of!(ScopeHead, nonce);
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "disabled")
))]
pub(crate) mod semaphores;

/// Declares the site of a noun, which has a function `observe(&Scope, $event)` that calls `fire`.
///
/// - `attached()`: whether a tracer is attached. The kernel keeps count in its semaphore, in the memory of this process.
/// - `fire(...)`: the site. Never inlined, because each copy would be one more place to attach to. Its arguments are
///   the first six of the site in the same order, so they arrive in the very registers that the site promises.
/// - `place()`: where the site and its semaphore are, if there are any.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "disabled")
))]
macro_rules! site {
    ($site:ident, $name:literal, $event:ty) => {
        // Linkers collect functions that nobody calls, but not their notes: without this, the note of a noun that a
        // program does not use would point nowhere, and a probe would have to take it for a damaged site.
        #[used]
        static KEPT: fn(&$crate::Scope, $event) = observe;

        #[inline(always)]
        fn attached() -> bool {
            attached!($site)
        }

        #[cold]
        #[inline(never)]
        extern "C" fn fire(
            topic: *const u8,
            records: u64,
            bytes: u64,
            duration_ns: u64,
            status: u64,
            detail: u64,
        ) -> usize {
            emit!($site, $name, [topic, records, bytes, duration_ns, status, detail])
        }

        pub(crate) fn place() -> Option<$crate::fork::Place> {
            let semaphore = &$crate::arch::semaphores::SEMAPHORES.0[$crate::Site::$site as usize];
            Some($crate::fork::Place { site: fire(std::ptr::null(), 0, 0, 0, 0, 0), semaphore })
        }
    };
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "disabled")
)))]
macro_rules! site {
    ($site:ident, $name:literal, $event:ty) => {
        #[inline(always)]
        fn attached() -> bool {
            false
        }

        fn fire(_: *const u8, _: u64, _: u64, _: u64, _: u64, _: u64) {}

        #[cfg(all(target_os = "linux", not(feature = "disabled")))]
        pub(crate) fn place() -> Option<$crate::fork::Place> {
            None
        }
    };
}
