//! stub
use crate::{GaugeId, Role};

pub(crate) struct Page;
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'a> {
    pub(crate) instance_id: &'a str,
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<u32>,
}
pub(crate) fn current(_role: Role, _instance_id: &str) -> Option<&'static Page> {
    None
}
impl Page {
    pub(crate) fn gauge(&'static self, _gauge: GaugeId, _labels: Labels<'_>) -> Gauge {
        Gauge::default()
    }
}

/// A value that is true now, on the process's state page until it is dropped.
#[derive(Debug, Default)]
pub struct Gauge;
impl Gauge {
    /// Sets the value, as of `now_ns` (CLOCK_MONOTONIC).
    #[inline]
    pub fn set(&self, _value: u64, _now_ns: u64) {}
    /// Sets the value as of now; reads the clock.
    pub fn set_now(&self, _value: u64) {}
    /// Adds to the value, as of `now_ns`.
    pub fn add(&self, _value: u64, _now_ns: u64) {}
    /// Subtracts from the value, as of `now_ns`.
    pub fn sub(&self, _value: u64, _now_ns: u64) {}
}
