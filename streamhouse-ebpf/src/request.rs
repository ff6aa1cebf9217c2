//! `request`: a gRPC request, in the agent. Each method has its own sums.

use streamhouse_abi::Method;
use streamhouse_abi::map::Counter;

pub use crate::operation::succeed;

use crate::hit::Hit;
use crate::operation;

/// Checks the arguments; the detail of the key is the method.
#[inline(always)]
pub fn check(hit: &Hit) -> Result<u16, Counter> {
    operation::check_one_of(hit, Method::ALL.len())
}
