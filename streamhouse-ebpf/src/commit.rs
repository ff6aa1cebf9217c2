//! `commit`: the metadata transaction that commits a flush, in the agent. Nothing is particular.

pub use crate::operation::{check, succeed};
