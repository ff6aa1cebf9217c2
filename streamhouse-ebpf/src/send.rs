//! `send`: a batch acknowledged or failed, in the producer. Its durations are the records', and come in bins.

use core::ffi::c_void;
use core::mem::{offset_of, size_of};

use aya_ebpf::helpers::{bpf_loop, bpf_probe_read_user};
use streamhouse_abi::map::{Counter, Value};
use streamhouse_abi::{Bin, Bins, bucket};

use crate::hit::Hit;
use crate::{atomic, counters, value};

/// Bins read by one call of a helper, which costs more than reading some too many: the hook touches all of them before
/// the hit, so they are resident. What a batch fills usually fits into the first chunk: 1 to 9 bins were seen.
const CHUNK: usize = 10;
const _: () = assert!(bucket::COUNT.is_multiple_of(CHUNK), "no chunk reaches past the last bin");

/// Checks what is particular: the duration is the sum over all records.
#[inline(always)]
pub fn check(hit: &Hit) -> Result<u16, Counter> {
    hit.check(hit.records)?;
    Ok(0)
}

/// Merges the batch's bins into the buckets.
///
/// A bin is merged when its bucket exists and its records fit into what the batch has left; the first one that does
/// not, or that cannot be read, ends the merging, and the records left over are lost bins. So buckets and lost bins
/// together are always the records that succeeded and were timed. The sum of durations is added only when nothing was
/// lost: it cannot be divided.
#[inline(always)]
pub fn succeed(value: *mut Value, hit: &Hit) {
    let Some(duration_ns) = hit.timed() else { return };
    let left = merge(value, hit.particular, hit.records);
    if left == 0 {
        // SAFETY: `value` is a value of `VALUES`.
        unsafe { atomic::add(&raw mut (*value).duration_ns, duration_ns) };
    } else {
        counters::add(Counter::BinsLost, left);
    }
}

struct Merge {
    value: *mut Value,
    /// Address of the bins in the process.
    bins: u64,
    /// Bins that are not merged yet.
    len: u64,
    /// Records of the batch that are in no bucket yet.
    left: u64,
}

/// The beginning of [`Bins`].
#[repr(C)]
struct First {
    len: u64,
    bins: [Bin; CHUNK],
}

const _: () = assert!(offset_of!(First, bins) == offset_of!(Bins, bins));

/// Merges the bins at `address`; gives how many of `records` they left over.
#[inline(always)]
fn merge(value: *mut Value, address: u64, records: u64) -> u64 {
    // SAFETY: the helper checks the address; any bytes are valid bins.
    let Ok(first) = (unsafe { bpf_probe_read_user(address as *const First) }) else { return records };
    if first.len > bucket::COUNT as u64 {
        return records;
    }
    let bins = address.wrapping_add(offset_of!(Bins, bins) as u64);
    let mut merge = Merge { value, bins, len: first.len, left: records };
    if merge.add(&first.bins) && merge.len != 0 {
        let chunks = merge.len.div_ceil(CHUNK as u64) as u32;
        let context = (&raw mut merge).cast::<c_void>();
        // SAFETY: the kernel calls `merge_chunk` with `context` while this frame lives.
        unsafe { bpf_loop(chunks, merge_chunk as *mut c_void, context, 0) };
    }
    merge.left
}

/// Merges a chunk behind the first one; 1 stops the loop.
#[inline(never)]
extern "C" fn merge_chunk(index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `context` is the `Merge` of `merge`, and nobody else uses it meanwhile.
    let merge = unsafe { &mut *context.cast::<Merge>() };
    let from = merge.bins.wrapping_add((index + 1) * size_of::<[Bin; CHUNK]>() as u64);
    // SAFETY: the helper checks the address; any bytes are valid bins.
    let Ok(bins) = (unsafe { bpf_probe_read_user(from as *const [Bin; CHUNK]) }) else { return 1 };
    if merge.add(&bins) { 0 } else { 1 }
}

impl Merge {
    /// Merges the next bins, as many as there are; false when one of them cannot be merged.
    #[inline(always)]
    fn add(&mut self, bins: &[Bin; CHUNK]) -> bool {
        for bin in bins {
            if self.len == 0 {
                break;
            }
            let records = u64::from(bin.records);
            if bin.bucket >= bucket::COUNT as u32 || records > self.left {
                return false;
            }
            self.len -= 1;
            self.left -= records;
            // SAFETY: `value` is a value of `VALUES`.
            unsafe { value::add_to_bucket(&raw mut (*self.value).buckets, bin.bucket as usize, records) };
        }
        true
    }
}
