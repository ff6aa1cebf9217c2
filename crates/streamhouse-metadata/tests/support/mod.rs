//! What tests of files share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Runs on a thread of its own without the right to ignore permissions, which root has; threads started there have it
/// as little.
pub(crate) fn without_override<T: Send + 'static>(run: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run())
    });
    thread.join().unwrap()
}
