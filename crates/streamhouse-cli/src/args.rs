//! The command line.

use crate::places::Places;
use crate::{consume, groups, lag, produce, topic};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use streamhouse_logs::LogArgs;

/// StreamHouse: an event log on object storage.
#[derive(Debug, Parser)]
#[command(name = "streamhouse", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) places: Places,
    /// Print JSON on standard output.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        negatives_are_values(Cli::command()).debug_assert();
    }
}
