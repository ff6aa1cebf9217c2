//! What was received and is neither committed nor refused: how much, and since when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use streamhouse_core::{Clock, SystemClock};
use streamhouse_hooks::{Gauge, GaugeId, Instance};

/// The requests with batches that are not answered yet.
pub(crate) struct Unflushed {
    requests: Mutex<Requests>,
    bytes: Gauge,
    since: Gauge,
}

#[derive(Default)]
struct Requests {
    next: u64,
    bytes: u64,
    /// When each was received (CLOCK_MONOTONIC, in nanoseconds), in that order.
    since_ns: BTreeMap<u64, u64>,
}

/// A request's batches, until the last of them is answered.
pub(crate) struct Ticket {
    of: Arc<Unflushed>,
    number: u64,
    bytes: u64,
}

impl Unflushed {
    pub(crate) fn new(instance: &Instance) -> Arc<Unflushed> {
        let gauge = |id| instance.gauge(id, "", None);
        let unflushed = Unflushed {
            requests: Mutex::default(),
            bytes: gauge(GaugeId::AgentUnflushedBytes),
            since: gauge(GaugeId::AgentUnflushedSince),
        };
        unflushed.publish(&Requests::default(), SystemClock.monotonic_ns());
        Arc::new(unflushed)
    }

    /// Counts a request with batches of so many bytes.
    pub(crate) fn begin(self: &Arc<Self>, bytes: usize) -> Ticket {
        let now_ns = SystemClock.monotonic_ns();
        let bytes = bytes as u64;
        let mut requests = self.requests();
        let number = requests.next;
        requests.next += 1;
        requests.bytes += bytes;
        requests.since_ns.insert(number, now_ns);
        self.publish(&requests, now_ns);
        Ticket { of: Arc::clone(self), number, bytes }
    }

    fn publish(&self, requests: &Requests, now_ns: u64) {
        self.bytes.set(requests.bytes, now_ns);
        self.since.set(requests.since_ns.first_key_value().map_or(0, |(_, since_ns)| *since_ns), now_ns);
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now_ns = SystemClock.monotonic_ns();
        let mut requests = self.of.requests();
        requests.bytes -= self.bytes;
        requests.since_ns.remove(&self.number);
        self.of.publish(&requests, now_ns);
    }
}
