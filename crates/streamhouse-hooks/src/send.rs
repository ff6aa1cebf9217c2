//! `send`: a batch acknowledged or failed, in the producer. Fired once a batch, yet its durations are per record.

use crate::look;
use crate::record::{self, Counted};
use crate::{Scope, Site, trace};
use streamhouse_abi::{Bin, Bins, bucket};
use tracing::Level;

site!(Send, "send", Send<'_>);

const LEVEL: Level = Level::TRACE;

/// A batch that was acknowledged or failed.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// Records in it; as many as there are in `sent_ns`, else the kernel program refuses the latencies and counts that.
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
    if attached() || record::is_on() {
        let bins = (status == 0).then(|| bin(sent_ns, ended_ns));
        if attached() {
            let detail = bins.as_ref().map_or(0, |bins| look::touched(bins) as u64);
            fire(scope.touched(), records, bytes, sum_ns, u64::from(status), detail);
        }
        let (site, bins) = (Site::Send, bins.as_ref());
        record::count(scope, Counted { site, detail: 0, status, records, bytes, duration_ns: sum_ns, bins });
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
        trace_id = trace::current_id().map(tracing::field::display),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The buckets as the treaty words them, without its tables.
    fn reference(sent_ns: &[u64], ended_ns: u64) -> Vec<Bin> {
        let mut counts = std::collections::BTreeMap::new();
        for sent in sent_ns {
            let seconds = ended_ns.saturating_sub(*sent) as f64 / 1e9;
            let bucket = (8.0 * (seconds.log2() + 20.0)).ceil().clamp(0.0, 209.0) as u32;
            *counts.entry(bucket).or_insert(0) += 1;
        }
        counts.into_iter().map(|(bucket, records)| Bin { bucket, records }).collect()
    }

    fn check(sent_ns: &[u64], ended_ns: u64) {
        let bins = bin(sent_ns, ended_ns);
        assert_eq!(bins.bins[..bins.len as usize], reference(sent_ns, ended_ns));
        let records: u64 = bins.bins[..bins.len as usize].iter().map(|bin| u64::from(bin.records)).sum();
        assert_eq!(records, sent_ns.len() as u64);
    }

    #[test]
    fn bins_equal_the_reference() {
        let ended_ns = 1 << 50;
        let mut latency_ns = 1u64;
        let mut sent_ns = Vec::new();
        for _ in 0..10_000 {
            latency_ns = latency_ns.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Latencies spread over every magnitude up to 2^42 ns.
            sent_ns.push(ended_ns - (latency_ns >> (22 + latency_ns % 42)));
        }
        for batch in sent_ns.chunks(997) {
            check(batch, ended_ns);
        }
        check(&sent_ns, ended_ns);
    }

    #[test]
    fn every_bucket_can_be_filled_at_once() {
        let thresholds = &bucket::DURATION_THRESHOLDS_NS[..=bucket::REGULAR];
        let ended_ns = 1 << 50;
        let mut sent_ns: Vec<u64> = thresholds.iter().map(|threshold| ended_ns - threshold).collect();
        sent_ns.push(0);
        let bins = bin(&sent_ns, ended_ns);
        assert_eq!(bins.len as usize, bucket::COUNT);
        assert!(
            bins.bins
                .iter()
                .enumerate()
                .all(|(bucket, bin)| *bin == Bin { bucket: bucket as u32, records: 1 })
        );
    }

    #[test]
    fn a_record_sent_after_the_end_took_no_time() {
        let bins = bin(&[20, 30], 10);
        assert_eq!((bins.len, bins.bins[0]), (1, Bin { bucket: 0, records: 2 }));
        assert_eq!(bin(&[], 10).len, 0);
    }
}
