//! `torture-load`: produces and consumes while everything fails around it, and writes down all it was told.
//!
//! A producer's file (`producer-K`) has a line for each record that ended, a consumer's (`consumer-NAME`) one for each
//! record that it got; see [`lines`]. `check` compares them with the log.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]

mod check;
mod consume;
mod lines;
mod produce;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_client::{ClientStore, RemoteMetadataStore, Retention};
use streamhouse_core::{GroupId, Partition, TopicName, TopicPartition};
use streamhouse_metadata::MetadataUrl;
use streamhouse_storage::ObjectStoreUrl;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

/// Which topic of which log.
#[derive(Args)]
struct Log {
    /// Agents to ask, or else a metadata store.
    #[arg(long)]
    bootstrap: Option<String>,
    #[arg(long)]
    metadata_url: Option<String>,
    #[arg(long)]
    object_store_url: Option<ObjectStoreUrl>,
    #[arg(long)]
    topic: TopicName,
    #[arg(long)]
    partitions: u32,
    /// Where the files are.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the topic.
    Create,
    /// Sends records until SIGTERM.
    Produce {
        #[arg(long)]
        id: u32,
        /// Records a second.
        #[arg(long)]
        rate: u32,
    },
    /// Reads records for the group until SIGTERM.
    Consume {
        #[arg(long)]
        group: String,
        #[arg(long)]
        name: String,
    },
    /// Prints how many records the group has not committed.
    Lag {
        #[arg(long)]
        group: GroupId,
    },
    /// Reads the whole log and all files; prints a report and fails when they differ.
    Check {
        #[arg(long)]
        group: GroupId,
    },
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { log, command }: Arguments) -> Result<()> {
    match command {
        Command::Create => {
            log.store().await?.create_topic(&log.topic, log.partitions, Retention::default()).await?;
            Ok(())
        }
        Command::Produce { id, rate } => produce::run(&log, id, rate).await,
        Command::Consume { group, name } => consume::run(&log, &group, &name).await,
        Command::Lag { group } => {
            let offsets = log.store().await?.group_offsets(&group, &log.topic_partitions()).await?;
            println!("{}", offsets.iter().map(|offset| offset.lag_records).sum::<u64>());
            Ok(())
        }
        Command::Check { group } => check::run(&log, &group).await,
    }
}

impl Log {
    /// As `--bootstrap` or `--metadata-url` says.
    async fn store(&self) -> Result<Arc<dyn ClientStore>> {
        if let Some(agents) = &self.bootstrap {
            return Ok(Arc::new(RemoteMetadataStore::builder(agents).build().await?));
        }
        let url = self.metadata_url.as_ref().context("give --bootstrap or --metadata-url")?;
        Ok(url.parse::<MetadataUrl>()?.open().await?)
    }

    fn objects(&self) -> Result<&ObjectStoreUrl> {
        self.object_store_url.as_ref().context("give --object-store-url")
    }

    fn topic_partitions(&self) -> Vec<TopicPartition> {
        let partition = |partition: Partition| TopicPartition { topic: self.topic.clone(), partition };
        (0..self.partitions).map(partition).collect()
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}

/// How long to wait before something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

fn terminated() -> Result<Signal> {
    Ok(signal(SignalKind::terminate())?)
}
