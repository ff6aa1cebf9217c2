//! What the tests of object stores share.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod s3;
pub(crate) mod segments;
