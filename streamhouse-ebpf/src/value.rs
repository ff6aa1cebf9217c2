//! The sums of one key.

use aya_ebpf::{macros::map, maps::Array, maps::HashMap};
use streamhouse_abi::bucket;
use streamhouse_abi::limits::{PROCESS_SHARE, VALUES_MAX};
use streamhouse_abi::map::{Counter, Key, Process, STATUS_SLOTS, Value};

use crate::hit::Hit;
use crate::{atomic, process, scope, target};

// Preallocated, like every map here: a program may not sleep, so an allocation inside it can fail when memory is
// scarce, which is when somebody looks.
#[map]
static VALUES: HashMap<Key, Value> = HashMap::with_max_entries(VALUES_MAX, 0);
#[map]
static ZERO_VALUE: Array<Value> = Array::with_max_entries(1, 0);

/// The value of a hit's key, made on the first hit, its scope's labels copied when they can be read.
#[inline(always)]
pub fn of(key: &Key, hit: &Hit) -> Result<*mut Value, Counter> {
    let value = match VALUES.get_ptr_mut(key) {
        Some(value) => value,
        None => {
            scope::register(key, hit)?;
            // SAFETY: projects a pointer to a value of `PROCESSES`.
            let held = |process: *mut Process| unsafe { &raw mut (*process).values };
            process::entry(&VALUES, &ZERO_VALUE, key, key.tgid, held, VALUES_MAX / PROCESS_SHARE)?
        }
    };
    target::claim(value, hit.target)?;
    // SAFETY: `value` is a value of `VALUES`; `labelled` only ever becomes 1, by an aligned store.
    unsafe {
        let labelled = &raw mut (*value).labelled;
        if labelled.read_volatile() == 0 && scope::label(key, hit) {
            labelled.write_volatile(1);
        }
    }
    Ok(value)
}

/// Counts the operation and its records by status, and its bytes if it succeeded.
#[inline(always)]
pub fn count(value: *mut Value, hit: &Hit) {
    // `Hit::check` has refused what is not below; the mask tells the verifier.
    let status = hit.status as usize & (STATUS_SLOTS - 1);
    // SAFETY: `value` is a value of `VALUES`, and `status` is a slot of its arrays.
    unsafe {
        atomic::add((&raw mut (*value).operations).cast::<u64>().add(status), 1);
        if hit.records != 0 {
            atomic::add((&raw mut (*value).records).cast::<u64>().add(status), hit.records);
        }
        if hit.succeeded() && hit.bytes != 0 {
            atomic::add(&raw mut (*value).bytes, hit.bytes);
        }
    }
}

/// Puts one operation into the bucket of its duration, if it was timed.
#[inline(always)]
pub fn time(value: *mut Value, hit: &Hit) {
    let Some(duration_ns) = hit.timed() else { return };
    // SAFETY: `value` is a value of `VALUES`.
    unsafe {
        add_to_bucket(&raw mut (*value).buckets, bucket::of_ns(duration_ns), 1);
        atomic::add(&raw mut (*value).duration_ns, duration_ns);
    }
}

/// Adds to one bucket.
///
/// # Safety
///
/// `buckets` must point into a map value.
#[inline(always)]
pub unsafe fn add_to_bucket(buckets: *mut [u64; bucket::COUNT], index: usize, more: u64) {
    // The bucket function stays below; the verifier does not know.
    if index < bucket::COUNT {
        // SAFETY: `index` is a bucket of the array.
        unsafe { atomic::add(buckets.cast::<u64>().add(index), more) };
    }
}
