//! What the log knows about itself: topics, partitions, leases, segments, groups and agents, in a SQL database.
//!
//! Small traits, one for each concern; [`ClientStore`] is what clients need of them, [`MetadataStore`] is all. [`SqliteMetadataStore`] is the embedded default: one file, every write transaction `BEGIN IMMEDIATE`,
//! `synchronous=FULL`. [`PostgresMetadataStore`] is for more than one agent. [`MetadataUrl`] names either.

mod check;
mod error;
mod model;
mod postgres;
mod sqlite;
mod store;
mod stored;
mod url;

pub use error::{Cause, MetadataError, Result};
pub use model::*;
pub use postgres::{PostgresMetadataStore, PostgresUrl};
pub use sqlite::{AgentLock, SqliteMetadataStore};
pub use store::{
    Agents, ClientStore, Groups, Leases, Members, MetadataStore, Producers, SegmentRanges, Segments, Topics,
    Upkeep,
};
pub use url::{AgentStore, MetadataUrl};
