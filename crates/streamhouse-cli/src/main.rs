//! `streamhouse`: topics, produce, consume, groups, lag.
//!
//! One file per command; each opens what it needs, does its work through the client library and shows the outcome for
//! people or, with `--json`, for machines. An error is one sentence on standard error and exit status 1.

mod args;
mod consume;
mod generator;
mod groups;
mod lag;
#[cfg(feature = "metrics")]
mod metrics;
mod output;
mod pace;
mod parse;
mod pending;
mod places;
mod printer;
mod produce;
mod progress;
mod report;
mod run;
mod source;
mod topic;
mod unreadable;

use crate::args::{Cli, Command};
use crate::output::Output;
use std::io::Write;
use std::process::ExitCode;

/// What is logged on standard error unless told otherwise: what a user should know about. Batches that
/// fail are not logged: `produce` says the first and counts all.
const LOG_FILTER: &str =
    "error,streamhouse_client=warn,streamhouse_client::producer=error,streamhouse_storage=warn";

fn main() -> ExitCode {
    let cli = Cli::of_this_process();
    let outcome = cli.log.init(LOG_FILTER).map_err(anyhow::Error::msg).and_then(|()| run(cli));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {}", output::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let outcome = runtime.block_on(execute(cli));
            // A read of standard input cannot be taken back: do not wait for it.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(anyhow::anyhow!("threads cannot be started: {error}; look at the process limits")),
    }
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    let output = Output { json: cli.json };
    match cli.command {
        Command::Topic(command) => topic::execute(command, &cli.places, output).await,
        Command::Produce(command) => produce::execute(*command, &cli.places, output).await,
        Command::Consume(command) => consume::execute(*command, &cli.places, output).await,
        Command::Groups(command) => groups::execute(command, &cli.places, output).await,
        Command::Lag(command) => lag::execute(&command, &cli.places, output).await,
    }
}
