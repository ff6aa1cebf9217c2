//! What the log knows about itself: topics, partitions, leases, segments, groups and agents, in a SQL database.
//!
//! Five small traits, one for each concern; [`MetadataStore`] is all five. [`SqliteMetadataStore`] is the embedded
//! default: one file, every write transaction `BEGIN IMMEDIATE`, `synchronous=FULL`.

mod error;
mod model;
mod sqlite;
mod store;

pub use error::{MetadataError, Result};
pub use model::*;
pub use sqlite::{AgentLock, SqliteMetadataStore};
pub use store::{Agents, Groups, Leases, MetadataStore, Segments, Topics};
