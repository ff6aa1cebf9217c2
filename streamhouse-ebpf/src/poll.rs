//! `poll`: a partition that returned records in one poll, in the consumer. Nothing is particular.

pub use crate::operation::{check, succeed};
