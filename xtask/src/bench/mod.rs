//! `cargo xtask bench`: measurements, as ratios within one run where machines are noisy.

mod overhead;
mod partitions;
mod probe;
mod throughput;

use crate::shell::target_dir;
use crate::{build_ebpf, setup, test};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use streamhouse_tests::{Agent, Binaries, Cluster, Process};

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Records and bytes a second through one agent, durable, produce and consume.
    Throughput(Rounds),
    /// Processor time, throughput, memory and instructions without observation, with the in-process plane and with the probe.
    Overhead(Rounds),
    /// What the probe itself takes: a hit, a scrape, an attach, memory.
    Probe(Rounds),
}

/// How often.
#[derive(Args)]
pub(crate) struct Rounds {
    /// Rounds; figures are medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// The topic every benchmark writes.
const TOPIC: &str = "bench";
/// Its partitions.
const PARTITIONS: u32 = 4;
/// How long one run of a producer or consumer may take.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// The command.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    setup::run()?;
    build_ebpf::run()?;
    test::build_binaries()?;
    match bench {
        Bench::Throughput(rounds) => throughput::run(rounds.rounds),
        Bench::Overhead(rounds) => overhead::run(rounds.rounds),
        Bench::Probe(rounds) => probe::run(rounds.rounds),
    }
}

/// A new log with an agent and the topic.
fn new_log(partitions: u32) -> Result<(Cluster, Agent)> {
    new_log_in(&test::release_dir(), "bench", partitions)
}

/// The same of other binaries, in a directory of this name.
fn new_log_in(binaries: &Path, name: &str, partitions: u32) -> Result<(Cluster, Agent)> {
    let dir = target_dir().join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let cluster = Cluster::new(Binaries::in_dir(binaries)?, &dir)?;
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, TOPIC, partitions)?;
    Ok((cluster, agent))
}

/// Starts a `streamhouse` command that writes its report to the file of this name.
fn start(cluster: &Cluster, arguments: &[&str], report: &str) -> Result<Process> {
    let mut command = cluster.cli(arguments);
    command.arg("--report").arg(cluster.path(report)).stderr(Stdio::null());
    Process::start(arguments[0], &mut command)
}

/// A figure over the rounds.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}
