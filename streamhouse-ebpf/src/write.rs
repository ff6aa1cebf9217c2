//! `write`: a batch of a produce request, in the agent. Nothing is particular.

pub use crate::operation::{check, succeed};
