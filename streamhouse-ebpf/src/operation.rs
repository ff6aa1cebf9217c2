//! What the nouns have in common that are one operation with one duration.

use streamhouse_abi::map::{Counter, Value};

use crate::hit::Hit;
use crate::value;

/// Checks the arguments; the key has no detail.
#[inline(always)]
pub fn check(hit: &Hit) -> Result<u16, Counter> {
    hit.check(1)?;
    Ok(0)
}

/// Checks the arguments of a noun of several kinds; the detail of the key is which of the `kinds` it was.
#[inline(always)]
pub fn check_one_of(hit: &Hit, kinds: usize) -> Result<u16, Counter> {
    check(hit)?;
    if hit.particular >= kinds as u64 {
        return Err(Counter::Clamped);
    }
    Ok(hit.particular as u16)
}

/// Puts the operation into the bucket of its duration.
#[inline(always)]
pub fn succeed(value: *mut Value, hit: &Hit) {
    value::time(value, hit);
}
