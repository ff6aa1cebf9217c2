//! What is asked of the kernel: to load the program, to attach it to the sites of a file, to tell of mappings. The only
//! unsafe code of the probe.

mod calibrate;
mod error;
mod features;
mod mappings;
mod maps;
mod object;
mod said;
mod sys;

pub use error::{AttachError, LoadError, ObjectError};
pub use features::{Feature, probe_features};
pub use mappings::{Mapping, Mappings};
pub use maps::Maps;

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use streamhouse_abi::Site;
use streamhouse_abi::map::Cookie;

/// A loaded kernel program with its maps.
#[derive(Debug)]
pub struct Kernel {
    /// What attaches.
    pub program: Program,
    /// What it counts in; for [`crate::collect::Collector::new`].
    pub maps: Maps,
    /// What a hit costs the observed process; `None` when it was not measured.
    pub hit_cost: Option<Duration>,
}

/// The loaded program. Attaches through `&self`, so that it can be shared.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// Where one site is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteOffsets {
    /// What it observes.
    pub site: Site,
    /// File offset of the nop.
    pub offset: u64,
    /// File offset of the 16-bit semaphore; 0 when there is none, which no observed process's site is let pass with.
    pub semaphore_offset: u64,
}

/// The program is attached to a file while this lives; dropping it detaches and the semaphores read 0 again.
///
/// The kernel does the same when the process that holds it ends, however it ends.
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

/// The kernel program's object: the file at `path` when there is one, else what was built into this binary.
///
/// # Errors
///
/// [`ObjectError`] says how to build it or that the file cannot be read.
pub fn object(path: Option<&Path>) -> Result<Cow<'static, [u8]>, ObjectError> {
    match path {
        Some(path) => std::fs::read(path)
            .map(Cow::Owned)
            .map_err(|source| ObjectError::Unreadable { path: path.to_owned(), source }),
        None => embedded().map(Cow::Borrowed).ok_or(ObjectError::NotBuilt),
    }
}

#[cfg(embedded_bpf)]
fn embedded() -> Option<&'static [u8]> {
    Some(aya::include_bytes_aligned!(env!("STREAMHOUSE_BPF_OBJECT")))
}

#[cfg(not(embedded_bpf))]
fn embedded() -> Option<&'static [u8]> {
    None
}

impl Kernel {
    /// Creates the maps and loads the program.
    ///
    /// # Errors
    ///
    /// [`LoadError`] names the capability or kernel feature that is missing and what to do.
    pub fn load(object: &[u8]) -> Result<Kernel, LoadError> {
        object::load(object)
    }

    /// The same, and finds out what a hit costs on this machine: loads the program twice and takes about 20 ms more.
    ///
    /// # Errors
    ///
    /// As for [`Kernel::load`].
    pub fn load_calibrated(object: &[u8]) -> Result<Kernel, LoadError> {
        let hit_cost = calibrate::hit_cost(&Kernel::load(object)?);
        Ok(Kernel { hit_cost, ..Kernel::load(object)? })
    }
}

impl Program {
    /// Attaches every site of an already opened file at once, in every process that maps it now or later.
    ///
    /// `target` is the probe's number of the file. The kernel reaches the file through the descriptor, so that what the
    /// caller has checked is what is attached to, wherever its path leads by now.
    ///
    /// # Errors
    ///
    /// [`AttachError`] names the capability or kernel feature that is missing and what to do.
    pub fn attach(&self, file: &File, target: u32, sites: &[SiteOffsets]) -> Result<Link, AttachError> {
        if sites.is_empty() {
            return Err(AttachError::NoSites);
        }
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("digits hold no NUL");
        let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
        let semaphores: Vec<u64> = sites.iter().map(|site| site.semaphore_offset).collect();
        let cookies: Vec<u64> =
            sites.iter().map(|site| Cookie { target, site: site.site as u16 }.to_bits()).collect();
        sys::link_uprobes(self.fd.as_fd(), &path, &offsets, &semaphores, &cookies)
            .map(|fd| Link { _fd: fd })
            .map_err(|error| self.refused(error))
    }

    fn refused(&self, error: std::io::Error) -> AttachError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => AttachError::Denied(error::missing_capabilities()),
            Some(libc::EINVAL | libc::EOPNOTSUPP) if !self.can_link() => AttachError::Unsupported,
            _ => AttachError::File(error),
        }
    }

    /// Whether the kernel knows uprobe_multi links: one that does looks at the path before it gives up
    /// (`bpf_uprobe_multi_link_attach` gives EBADF for what is no regular file), one that does not refuses with EINVAL.
    fn can_link(&self) -> bool {
        let refusal = sys::link_uprobes(self.fd.as_fd(), c"/", &[1], &[0], &[0]).err();
        refusal.and_then(|error| error.raw_os_error()) == Some(libc::EBADF)
    }
}
