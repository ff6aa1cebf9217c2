//! What the hooks of a batch run, for a tool that counts instructions: `batch_cost PLANE BATCHES`.
//!
//! PLANE is `none`, `external` (semaphores raised as the kernel does it, without a program: what user space runs for the
//! probe) or `in-process`, for which it has to be built with the feature `metrics`. A batch has [`RECORDS`] records and goes
//! through the hooks of producer and agent. Built with the feature `disabled` it runs what is left without hooks.

// Finds the semaphores.
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use streamhouse_hooks::{Flush, GaugeId, Instance, Role, Scope, Send, Started, Write, flush, send, write};

const RECORDS: usize = 500;
/// Latencies as a batch at load has them: over a few buckets.
const SPREAD_NS: u64 = 2_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let plane = arguments.next().unwrap_or_else(|| "none".to_owned());
    let batches = arguments.next().and_then(|batches| batches.parse().ok()).unwrap_or(1000);
    let attached: Vec<_> = match plane.as_str() {
        "external" => support::notes().iter().map(support::Note::attach).collect(),
        _ => Vec::new(),
    };
    let producer = recorded(Instance::new(Role::Producer, "web-1", ""), &plane);
    let agent = recorded(Instance::new(Role::Agent, "agent-1", ""), &plane);
    let pending = producer.gauge(GaugeId::ProducerPendingRecords, "orders", Some(0));
    let scopes = [&producer, &agent].map(|instance| instance.scope("orders", Some(0)));
    for batch in 0..batches {
        run(batch, &pending, &scopes);
    }
    drop(attached);
}

#[inline(never)]
fn run(batch: u64, pending: &streamhouse_hooks::Gauge, [produced, written]: &[Scope; 2]) {
    let began_ns = batch * 1_000_000;
    // What a producer does for a record anyway; it must not go away where the hooks are compiled out.
    let sent_ns: [u64; RECORDS] = std::array::from_fn(|record| {
        let sent_ns = black_box(began_ns + record as u64 * SPREAD_NS);
        pending.set(record as u64, sent_ns);
        sent_ns
    });
    black_box(&sent_ns);
    let (records, bytes, status) = (RECORDS as u64, 100 * RECORDS as u64, 0);
    let started = Started::at_ns(began_ns);
    write(written, Write { records, bytes, started, status });
    send(produced, Send { records, bytes, sent_ns: &sent_ns, ended_ns: began_ns + 3_000_000, status });
    flush(produced, Flush { records, bytes, started, status });
}

#[cfg(feature = "metrics")]
fn recorded(instance: Instance, plane: &str) -> Instance {
    instance.recorded((plane == "in-process").then(std::sync::Arc::default))
}

#[cfg(not(feature = "metrics"))]
fn recorded(instance: Instance, plane: &str) -> Instance {
    assert_ne!(plane, "in-process", "build it with --features metrics");
    instance
}
