//! The probe: collects from outside what the hooks give, serves one Prometheus endpoint.

pub mod attach;
pub mod collect;
