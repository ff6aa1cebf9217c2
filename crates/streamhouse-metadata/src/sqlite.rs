//! SQLite.
/// x
pub struct AgentLock;
/// x
pub struct SqliteMetadataStore;
