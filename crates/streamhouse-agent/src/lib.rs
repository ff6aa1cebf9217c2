//! The agent: takes record batches from producers over gRPC, writes them into segments on an object store, and commits
//! each flush to the metadata store under the leases it holds.
//!
//! An acknowledgement means that the object is stored and the transaction committed (invariant 3). Batches stay opaque:
//! the agent checks a batch's header and checksum, gives it its base offset, and touches no record.
//!
//! - `engine` is all of it but the servers;
//! - `grpc` takes requests in, as far as there is room for them, checks batches, and answers for the metadata store;
//! - `flush` collects batches, stores and commits segments, one task for all partitions;
//! - `lease` takes this agent's share of the leases, renews them and hands them over, one task;
//! - `http` serves `/health`, `/ready`, which is what the two tasks above say in `readiness`, and `/metrics`, which is what
//!   `metrics` counts;
//! - `unflushed` publishes what waits to be stored;
//! - `upkeep` removes what nothing can be read from any more, one agent for all;
//! - `lags` publishes how far behind groups are;
//! - `trial` finds out whether stores that failed can be written again;
//! - `connections` bounds who may connect to both servers;
//! - `security` says what guards the gRPC port: `auth` has its tokens, `tls` its certificate, and `watched` reads their
//!   files again when they change.
//!
//! ```no_run
//! use clap::Parser;
//! use streamhouse_agent::{Agent, Config, Flags};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let agent = Agent::start(Config::try_from(Flags::parse())?).await?;
//! println!("producers connect to {}", agent.grpc_address());
//! agent.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod agent;
mod append;
mod auth;
mod config;
mod connections;
mod engine;
mod error;
mod flush;
mod grpc;
mod http;
mod lags;
mod lease;
mod metrics;
mod readiness;
mod security;
mod tls;
mod trial;
mod unflushed;
mod upkeep;
mod watched;

pub use agent::Agent;
pub use config::{Config, ConfigError, Flags};
pub use engine::{Engine, Work};
pub use error::StartError;
pub use security::SecurityError;
pub use watched::FileError;
