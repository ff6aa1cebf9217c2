//! The sites of the running test, as a tracer finds them, and a stand-in for the tracer.

#![expect(clippy::unwrap_used, reason = "what surprises it fails the test")]
#![allow(dead_code, reason = "each test uses what it needs")]

use object::{Object, ObjectSection};
use std::ffi::CStr;
use std::sync::atomic::{AtomicU16, Ordering};
use streamhouse_abi::{PROVIDER, SITE_NOP};

/// One note of `.note.stapsdt`.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) name: String,
    pub(crate) arguments: String,
    site: usize,
    semaphore: usize,
}

/// What the kernel does to a semaphore when a tracer attaches, and undoes when it goes.
pub(crate) struct Attached(&'static AtomicU16);

impl Note {
    /// The bytes of the site in memory.
    pub(crate) fn nop(&self) -> &[u8] {
        // SAFETY: the note says that a site is there, and code is readable.
        unsafe { std::slice::from_raw_parts((load_bias() + self.site) as *const u8, SITE_NOP.len()) }
    }

    /// The address of the semaphore in the file.
    pub(crate) fn semaphore(&self) -> usize {
        self.semaphore
    }

    pub(crate) fn attach(&self) -> Attached {
        // SAFETY: the note says that two aligned writable bytes are there, and the hooks use them as an atomic too.
        let semaphore = unsafe { AtomicU16::from_ptr((load_bias() + self.semaphore) as *mut u16) };
        semaphore.fetch_add(1, Ordering::SeqCst);
        Attached(semaphore)
    }
}

impl Attached {
    pub(crate) fn count(&self) -> u16 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The notes of our provider in the running executable.
pub(crate) fn notes() -> Vec<Note> {
    let bytes = std::fs::read("/proc/self/exe").unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let mut rest = file.section_by_name(".note.stapsdt").expect("notes").data().unwrap();
    let mut notes = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let (name_len, desc_len, kind) = (word(0).next_multiple_of(4), word(4), word(8));
        assert_eq!((&rest[12..20], kind), (&b"stapsdt\0"[..], 3));
        let desc = &rest[12 + name_len..][..desc_len];
        let address = |index: usize| u64::from_ne_bytes(desc[8 * index..][..8].try_into().unwrap()) as usize;
        let mut strings = desc[24..].split_inclusive(|byte| *byte == 0);
        let mut string =
            || CStr::from_bytes_with_nul(strings.next().unwrap()).unwrap().to_str().unwrap().to_owned();
        let (provider, name, arguments) = (string(), string(), string());
        if provider == PROVIDER {
            assert_ne!(address(1), 0, "the base is there");
            notes.push(Note { name, arguments, site: address(0), semaphore: address(2) });
        }
        rest = &rest[(12 + name_len + desc_len).next_multiple_of(4)..];
    }
    notes
}

/// How far from its linked addresses the executable was loaded.
fn load_bias() -> usize {
    extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, bias: *mut libc::c_void) -> libc::c_int {
        // SAFETY: both are valid while `dl_iterate_phdr` calls; the first object it names is the executable.
        unsafe { *bias.cast::<usize>() = (*info).dlpi_addr as usize };
        1
    }
    let mut bias = 0usize;
    // SAFETY: `first` expects a usize.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut bias).cast()) };
    bias
}
