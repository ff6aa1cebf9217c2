//! What the log knows about itself: topics, partitions, leases, segments, groups and agents, in a SQL database.
//!
//! Five small traits, one for each concern; [`MetadataStore`] is all five. [`SqliteMetadataStore`] is the embedded
//! default: one file, every write transaction `BEGIN IMMEDIATE`, `synchronous=FULL`.

mod error;
mod model;
mod sqlite;
mod store;

pub use error::{Cause, MetadataError, Result};
pub use model::*;
pub use sqlite::{AgentLock, SqliteMetadataStore};
pub use store::{
    Agents, ClientStore, Groups, Leases, Members, MetadataStore, Producers, SegmentRanges, Segments, Topics,
    Upkeep,
};
