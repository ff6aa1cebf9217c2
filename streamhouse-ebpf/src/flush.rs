//! `flush`: a batch of a produce request, in the producer. Its batches are counted by size too.

use aya_ebpf::{macros::map, maps::Array, maps::HashMap};
use streamhouse_abi::bucket;
use streamhouse_abi::limits::{PROCESS_SHARE, SIZES_MAX};
use streamhouse_abi::map::{Counter, Key, Process, Sizes, Value};

pub use crate::operation::check;

use crate::hit::Hit;
use crate::{counters, operation, process, value};

#[map]
static SIZES: HashMap<Key, Sizes> = HashMap::with_max_entries(SIZES_MAX, 0);
#[map]
static ZERO_SIZES: Array<Sizes> = Array::with_max_entries(1, 0);

/// Puts the batch into the buckets of its duration, its records and its bytes. Sizes that find no room are lost; the
/// batch is counted all the same.
#[inline(always)]
pub fn succeed(value: *mut Value, key: &Key, hit: &Hit) {
    operation::succeed(value, hit);
    // SAFETY: projects a pointer to a value of `PROCESSES`.
    let held = |process: *mut Process| unsafe { &raw mut (*process).sizes };
    match process::entry(&SIZES, &ZERO_SIZES, key, key.tgid, held, SIZES_MAX / PROCESS_SHARE) {
        // SAFETY: `sizes` is a value of `SIZES`.
        Ok(sizes) => unsafe {
            value::add_to_bucket(&raw mut (*sizes).records, bucket::of_size(hit.records), 1);
            value::add_to_bucket(&raw mut (*sizes).bytes, bucket::of_size(hit.bytes), 1);
        },
        Err(_) => {
            counters::add(Counter::SizesLost, 1);
        }
    }
}
