//! What the child of a fork has to do before anything else of it runs.
//!
//! - It leaves its parent's page, nonce and trace ids alone.
//! - It takes back what the kernel made of its parent's sites. Since Linux 6.18 a site that was hit is a CALL to a page
//!   which a fork does not copy, while it copies the call: a child that came to such a site would jump to nowhere and
//!   die (seen on 6.18; invariant 7). So the child drops its copies of the pages with sites, which brings back the nops
//!   of the file, and has the kernel plant its breakpoints anew.
//!
//! Children made around the C library's `fork` (a bare `clone`) are not reached; they must not call hooks.

use crate::{Site, commit, flush, object, poll, process, request, send, write};
use std::ffi::c_void;
use std::sync::Once;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where a site and its semaphore are in this process.
pub(crate) struct Place {
    /// Address of the nop.
    pub(crate) site: usize,
    /// How many tracers look.
    pub(crate) semaphore: &'static AtomicU16,
}

/// Sees to it that children do what they have to.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    // SAFETY: `child` does what the child of a threaded process may: it exchanges a pointer and makes system calls.
    // Without memory for one more handler, children keep their parent's page, which names its owner.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(child));
    });
}

extern "C" fn child() {
    if let Some(Some(page)) = process::forget().and_then(|process| process.page.get()) {
        page.disown();
    }
    crate::trace::forget_random();
    let places = Site::ALL.map(place);
    if places.iter().flatten().any(Place::is_call) {
        renew(&places);
    }
}

fn place(site: Site) -> Option<Place> {
    match site {
        Site::Send => send::place(),
        Site::Flush => flush::place(),
        Site::Poll => poll::place(),
        Site::Write => write::place(),
        Site::Object => object::place(),
        Site::Commit => commit::place(),
        Site::Request => request::place(),
    }
}

/// Brings the nops of the file back, then has the kernel plant anew where somebody looks. Where it does not (a segment
/// of a single page, or a policy against the calls), nobody looks at this child, and its semaphores say so.
fn renew(places: &[Option<Place>]) {
    for place in places.iter().flatten() {
        place.drop_copy();
    }
    for place in places.iter().flatten() {
        place.semaphore.store(0, Ordering::Relaxed);
    }
    for place in places.iter().flatten() {
        place.plant();
    }
}

impl Place {
    /// Whether the kernel has made a CALL of the nop.
    fn is_call(&self) -> bool {
        const CALL: u8 = 0xe8;
        // SAFETY: code of this process, which stays and can be read.
        cfg!(target_arch = "x86_64") && unsafe { (self.site as *const u8).read_volatile() } == CALL
    }

    /// Forgets what this process has of the page that differs from the file.
    fn drop_copy(&self) {
        let (page, len) = self.page();
        // SAFETY: code is never written but by tracers, so the file's is the same but for what they planted.
        unsafe { libc::madvise(page, len, libc::MADV_DONTNEED) };
    }

    /// Has the kernel look at the mapping as at a new one: changing the rights of a part of it does that.
    fn plant(&self) {
        let (page, len) = self.page();
        // SAFETY: it can be executed all the time, and nothing reads code in between.
        unsafe {
            libc::mprotect(page, len, libc::PROT_EXEC);
            libc::mprotect(page, len, libc::PROT_READ | libc::PROT_EXEC);
        }
    }

    /// The page of the site: one that reaches into the next page is never made a call.
    fn page(&self) -> (*mut c_void, usize) {
        let len = rustix::param::page_size();
        ((self.site & !(len - 1)) as *mut c_void, len)
    }
}
