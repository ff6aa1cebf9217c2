//! `send`: a batch acknowledged or failed, in the producer. Its durations are the records', and come in bins.

use core::ffi::c_void;
use core::mem::{offset_of, size_of};

use aya_ebpf::helpers::{bpf_loop, bpf_probe_read_user, generated};
use streamhouse_abi::map::{Counter, Value};
use streamhouse_abi::{Bin, Bins, bucket};

use crate::hit::Hit;
use crate::{atomic, counters, value};

/// Bins read by one call of a helper: as many as fit well on the stack.
const CHUNK: usize = 16;

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
    /// How many there are.
    len: u64,
    /// Records of the batch that are in no bucket yet.
    left: u64,
}

/// Merges the bins at `address`; gives how many of `records` they left over.
#[inline(always)]
fn merge(value: *mut Value, address: u64, records: u64) -> u64 {
    // SAFETY: the helper checks the address; any bytes are a valid length.
    let Ok(len) = (unsafe { bpf_probe_read_user(address as *const u64) }) else { return records };
    if len > bucket::COUNT as u64 {
        return records;
    }
    let bins = address.wrapping_add(offset_of!(Bins, bins) as u64);
    let mut merge = Merge { value, bins, len, left: records };
    let context = (&raw mut merge).cast::<c_void>();
    if len <= CHUNK as u64 {
        merge_chunk(0, context);
    } else {
        let chunks = len.div_ceil(CHUNK as u64) as u32;
        // SAFETY: the kernel calls `merge_chunk` with `context` while this frame lives.
        unsafe { bpf_loop(chunks, merge_chunk as *mut c_void, context, 0) };
    }
    merge.left
}

/// Merges one chunk; 1 stops the loop.
#[inline(never)]
extern "C" fn merge_chunk(index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `context` is the `Merge` of `merge`, and nobody else uses it meanwhile.
    let merge = unsafe { &mut *context.cast::<Merge>() };
    let first = index * CHUNK as u64;
    let count = merge.len.wrapping_sub(first).min(CHUNK as u64);
    let mut bins = [Bin { bucket: 0, records: 0 }; CHUNK];
    let from = merge.bins.wrapping_add(first * size_of::<Bin>() as u64);
    let size = count as u32 * size_of::<Bin>() as u32;
    // SAFETY: `size` bytes fit into `bins`, and the helper checks the address it reads from.
    if unsafe { generated::bpf_probe_read_user(bins.as_mut_ptr().cast(), size, from as *const c_void) } != 0 {
        return 1;
    }
    for (position, bin) in bins.iter().enumerate() {
        if position as u64 >= count {
            break;
        }
        let records = u64::from(bin.records);
        if bin.bucket >= bucket::COUNT as u32 || records > merge.left {
            return 1;
        }
        merge.left -= records;
        // SAFETY: `merge.value` is a value of `VALUES`.
        unsafe { value::add_to_bucket(&raw mut (*merge.value).buckets, bin.bucket as usize, records) };
    }
    0
}
