//! `send`: a batch acknowledged or failed, in the producer. Fired once a batch, yet its durations are per record.

use crate::Scope;
use crate::look;
use streamhouse_abi::{Bin, Bins, bucket};
use tracing::Level;

site!("send", Send<'_>);

const LEVEL: Level = Level::TRACE;

/// A batch that was acknowledged or failed.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// Records in it; as many as there are in `sent_ns`.
    pub records: u64,
    /// Bytes of keys, values and headers, before compression.
    pub bytes: u64,
    /// For each record the CLOCK_MONOTONIC reading of its `send()`, in nanoseconds.
    pub sent_ns: &'a [u64],
    /// The CLOCK_MONOTONIC reading of the batch's end, in nanoseconds.
    pub ended_ns: u64,
    /// 0 when it was acknowledged, else an error kind's number.
    pub status: u8,
}

#[inline]
pub(crate) fn looked_at() -> bool {
    look::at(attached(), LEVEL)
}

/// Tells whoever looks that a batch was acknowledged or failed. Never blocks, fails or panics.
#[inline]
pub fn send(scope: &Scope, event: Send<'_>) {
    if looked_at() {
        observe(scope, event);
    }
}

#[cold]
#[inline(never)]
fn observe(scope: &Scope, event: Send<'_>) {
    let Send { records, bytes, sent_ns, ended_ns, status } = event;
    let sum_ns = sent_ns.iter().fold(0, |sum: u64, sent| sum.saturating_add(ended_ns.saturating_sub(*sent)));
    if attached() {
        if status == 0 {
            let bins = bin(sent_ns, ended_ns);
            let detail = look::touched(&bins) as u64;
            fire(scope.touched(), records, bytes, sum_ns, 0, detail);
        } else {
            fire(scope.touched(), records, bytes, sum_ns, u64::from(status), 0);
        }
    }
    tracing::event!(
        target: "streamhouse::send",
        LEVEL,
        topic = scope.topic(),
        partition = scope.partition(),
        records,
        bytes,
        duration = sum_ns,
        status,
    );
}

/// The latencies of a batch, by bucket.
fn bin(sent_ns: &[u64], ended_ns: u64) -> Bins {
    let mut counts = [0u32; bucket::COUNT];
    for sent in sent_ns {
        if let Some(count) = counts.get_mut(bucket::of_ns(ended_ns.saturating_sub(*sent))) {
            *count = count.saturating_add(1);
        }
    }
    let mut bins = Bins { len: 0, bins: [Bin::default(); bucket::COUNT] };
    let filled = counts.iter().enumerate().filter(|(_, records)| **records > 0);
    for (bin, (bucket, records)) in bins.bins.iter_mut().zip(filled) {
        *bin = Bin { bucket: bucket as u32, records: *records };
        bins.len += 1;
    }
    bins
}
