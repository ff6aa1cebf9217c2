//! When an operation began, if anyone was looking then.

use streamhouse_abi::{Site, UNTIMED};

/// When an operation began: eight bytes that travel with it.
///
/// The clock is read only while somebody looks at the site or its `tracing` event, so an operation that began before
/// anyone looked has no duration; it is counted and put in no bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started(u64);

impl Started {
    /// Nobody looked when it began.
    pub const UNTIMED: Started = Started(UNTIMED);

    /// Now, if anyone looks at `site`; else [`Started::UNTIMED`], without reading a clock. With a constant site this
    /// is the same as the `start()` of the noun's module.
    #[inline]
    pub fn now_if(site: Site) -> Started {
        let looked_at = match site {
            Site::Send => crate::send::looked_at(),
            Site::Flush => crate::flush::looked_at(),
            Site::Poll => crate::poll::looked_at(),
            Site::Write => crate::write::looked_at(),
            Site::Object => crate::object::looked_at(),
            Site::Commit => crate::commit::looked_at(),
            Site::Request => crate::request::looked_at(),
        };
        Started::now_when(looked_at)
    }

    /// At a reading of CLOCK_MONOTONIC, in nanoseconds, that the caller has anyway.
    #[inline]
    pub const fn at_ns(monotonic_ns: u64) -> Started {
        Started(monotonic_ns)
    }

    #[inline]
    pub(crate) fn now_when(looked_at: bool) -> Started {
        if looked_at { Started(monotonic_ns()) } else { Started::UNTIMED }
    }

    /// Nanoseconds since then, or [`UNTIMED`].
    pub(crate) fn elapsed_ns(self) -> u64 {
        if self == Started::UNTIMED { UNTIMED } else { monotonic_ns().saturating_sub(self.0) }
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
