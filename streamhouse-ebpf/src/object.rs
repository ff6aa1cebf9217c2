//! `object`: an object-store operation, in agent and consumer. Each operation has its own sums.

use streamhouse_abi::Operation;
use streamhouse_abi::map::Counter;

pub use crate::operation::succeed;

use crate::hit::Hit;
use crate::operation;

/// Checks the arguments; the detail of the key is the operation.
#[inline(always)]
pub fn check(hit: &Hit) -> Result<u16, Counter> {
    operation::check_one_of(hit, Operation::ALL.len())
}
