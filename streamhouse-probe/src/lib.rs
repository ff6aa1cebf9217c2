//! The probe: collects from outside what the hooks give, serves one Prometheus endpoint.
//!
//! Modules stand in the order that data passes them.

pub mod files;
pub mod sites;

pub mod attach;
pub mod collect;
pub mod pages;
