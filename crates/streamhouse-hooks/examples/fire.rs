//! Fires every site of the hooks, over and over: something small to look at with a tracer.
//!
//! `cargo run --example fire -- 1000000` fires each a million times; without a number, until it is ended. Then, in
//! another terminal: `bpftrace -e 'usdt:PATH:streamhouse:send { @[str(arg0)] = sum(arg1) }'`.

use streamhouse_hooks::{
    Commit, Flush, GaugeId, Instance, Method, Object, Operation, Poll, Request, Role, Send, Started, Write,
    commit, flush, object, poll, request, send, write,
};

fn main() {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(u64::MAX);
    let instance = Instance::new(Role::Producer, "fire", "");
    let scope = instance.scope("orders", Some(0));
    let gauge = instance.gauge(GaugeId::ProducerPendingRecords, "orders", Some(0));
    for round in 0..rounds {
        gauge.set(round, round);
        let sent_ns = [round; 16];
        send(
            &scope,
            Send { records: 16, bytes: 1600, sent_ns: &sent_ns, ended_ns: round + 1_000_000, status: 0 },
        );
        let started = Started::at_ns(round);
        flush(&scope, Flush { records: 16, bytes: 1600, started, status: 0 });
        poll(&scope, Poll { records: 16, bytes: 1600, started, status: 0 });
        write(&scope, Write { records: 16, bytes: 1600, started, status: 0 });
        object(&scope, Object { operation: Operation::Put, bytes: 1600, started, status: 0 });
        commit(&scope, Commit { records: 16, bytes: 1600, started, status: 0 });
        request(&scope, Request { method: Method::Produce, started, status: 0 });
    }
}
