//! The command line, and the stores it names.

use crate::{consume, groups, lag, produce, topic};
use anyhow::{Result, bail, ensure};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use streamhouse_client::Admin;
use streamhouse_metadata::{ClientStore, SqliteMetadataStore};
use streamhouse_storage::StorageError;

/// StreamHouse: an event log on object storage.
#[derive(Debug, Parser)]
#[command(name = "streamhouse", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) places: Places,
    /// Print JSON on standard output.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The arguments of this process; what is wrong with them, and `--help`, ends it.
    pub(crate) fn of_this_process() -> Cli {
        let matches = negatives_are_values(Cli::command()).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Lets every flag see a negative number and say what it takes; clap would call it an unknown flag.
fn negatives_are_values(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let takes_values = arg.get_action().takes_values();
            arg.allow_negative_numbers(takes_values)
        })
        .mut_subcommands(negatives_are_values)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list and describe topics.
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Send records: lines of a file or of standard input, or made up by a load generator.
    Produce(Box<produce::Produce>),
    /// Read records for a consumer group.
    Consume(Box<consume::Consume>),
    /// List, describe and move consumer groups.
    #[command(subcommand)]
    Groups(groups::Groups),
    /// Show how far groups are behind, in records and in seconds.
    Lag(lag::Lag),
}

/// Where the log is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which log")]
pub(crate) struct Places {
    /// The metadata store: an SQLite file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STREAMHOUSE_METADATA_PATH",
        default_value = "./streamhouse/metadata.db"
    )]
    metadata_path: PathBuf,
    /// The object store: a directory.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "STREAMHOUSE_OBJECT_STORE_PATH",
        default_value = "./streamhouse/objects"
    )]
    object_store_path: PathBuf,
}

impl Places {
    /// The metadata store, which must be there: a mistyped path must not look like an empty log.
    pub(crate) async fn metadata(&self) -> Result<Arc<dyn ClientStore>> {
        self.check_metadata_exists()?;
        self.metadata_or_new().await
    }

    /// The metadata store, made if need be.
    pub(crate) async fn metadata_or_new(&self) -> Result<Arc<dyn ClientStore>> {
        Ok(Arc::new(SqliteMetadataStore::new(&self.metadata_path).await?))
    }

    /// What manages topics and groups of an existing metadata store.
    pub(crate) async fn admin(&self) -> Result<Admin> {
        Ok(Admin::new(self.metadata().await?))
    }

    /// What only looks at them: whoever may read the file may do so.
    pub(crate) async fn viewer(&self) -> Result<Admin> {
        self.check_metadata_exists()?;
        Ok(Admin::new(Arc::new(SqliteMetadataStore::open_read_only(&self.metadata_path).await?)))
    }

    /// What else may be wrong with the path is found when it is opened.
    fn check_metadata_exists(&self) -> Result<()> {
        ensure!(
            self.metadata_path.try_exists().unwrap_or(true),
            "there is no metadata store at {}; give the agent's with --metadata-path or STREAMHOUSE_METADATA_PATH, \
             or begin a new one with `streamhouse topic create`",
            self.metadata_path.display()
        );
        Ok(())
    }

    /// The object store's directory, for messages.
    pub(crate) fn object_store_path(&self) -> &Path {
        &self.object_store_path
    }

    /// The object store, which must be there too.
    pub(crate) fn objects(&self) -> Result<Arc<dyn object_store::ObjectStore>> {
        match streamhouse_storage::open_local(&self.object_store_path) {
            Err(StorageError::Missing { path }) => bail!(
                "there is no object store in {}; give the agent's with --object-store-path or \
                 STREAMHOUSE_OBJECT_STORE_PATH, or start an agent, which creates it",
                path.display()
            ),
            opened => Ok(opened?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        negatives_are_values(Cli::command()).debug_assert();
    }
}
