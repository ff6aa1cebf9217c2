//! The probe: collects from outside what the hooks give, serves one Prometheus endpoint.

pub mod sites;

pub mod attach;
pub mod collect;
