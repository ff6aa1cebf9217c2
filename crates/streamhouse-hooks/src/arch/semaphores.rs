//! The semaphores of all sites.

use std::sync::atomic::AtomicU16;
use streamhouse_abi::{OwnPage, Site};

/// By the number of the site.
#[unsafe(link_section = ".probes")]
#[used]
pub(crate) static SEMAPHORES: OwnPage<[AtomicU16; Site::ALL.len()]> =
    OwnPage([const { AtomicU16::new(0) }; Site::ALL.len()]);

/// How far from the beginning of [`SEMAPHORES`] the one of a site is, in bytes.
pub(crate) const fn offset(site: Site) -> usize {
    size_of::<AtomicU16>() * site as usize
}
