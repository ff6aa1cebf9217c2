//! `object`: an object-store operation, in agent and consumer. Each operation has its own sums.

use streamhouse_abi::Operation;
use streamhouse_abi::map::{Counter, Value};

use crate::hit::Hit;
use crate::value;

/// Checks the arguments; the detail of the key is the operation.
#[inline(always)]
pub fn check(hit: &Hit) -> Result<u16, Counter> {
    hit.check(1)?;
    if hit.particular >= Operation::ALL.len() as u64 {
        return Err(Counter::Clamped);
    }
    Ok(hit.particular as u16)
}

/// Puts the operation into the bucket of its duration.
#[inline(always)]
pub fn succeed(value: *mut Value, hit: &Hit) {
    value::time(value, hit);
}
