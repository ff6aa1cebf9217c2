//! The in-process plane, alone and beside the probe: see the tests. They are built with the feature `metrics`, and nothing
//! else of the workspace is.
#![cfg(feature = "metrics")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]
#![allow(clippy::missing_errors_doc, reason = "only tests ask")]

mod world;

pub use world::{Clients, World, agent, ask};
