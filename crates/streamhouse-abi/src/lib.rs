//! The treaty between an observed process, the kernel program and the probe.
//!
//! Everything two of the three must agree on is here and nowhere else: site names and their arguments, the [`Scope`]
//! a site points to, keys and values of the kernel maps, the histogram's bounds and bucket function, the layout of the
//! state page, and every limit. No dependencies, no allocation, no I/O; sizes and offsets are asserted at compile time.
//!
//! An incompatible change of a site's arguments gets a new site name; one of the page gets a new
//! [`page::VERSION`].

#![no_std]

pub mod bucket;
pub mod limits;
pub mod map;
mod method;
pub mod page;
mod scope;
mod site;

pub use method::Method;
pub use scope::{Bin, Bins, Owner, Role, Scope, ScopeHead};
pub use site::{
    Operation, OwnPage, PROVIDER, SITE_ARGUMENTS, SITE_NONCE_WORD, SITE_NOP, SITE_SCOPE_ID_WORD, Site,
    Status, UNTIMED,
};
