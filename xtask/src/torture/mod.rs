//! `cargo xtask torture`: everything fails while records are produced and consumed, then every one of them is accounted
//! for.
//!
//! A seed is a schedule: the same faults, on the same targets, at the same times. What they meet is not the same twice: how
//! processes and the load interleave is the machine's doing.

mod load;
mod plan;
mod probe;

use crate::shell::{self, cargo};
use crate::test;
use anyhow::{Context, Result, bail};
use clap::Args;
use load::Load;
use plan::{Fault, Plan};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use streamhouse_tests::s3::Faults;
use streamhouse_tests::{Binaries, Fleet, Process};

/// What a commit of the metadata store's client looks like on the wire: a simple query and its end.
const COMMIT: &[u8] = b"COMMIT\0";
/// How long an armed cut may wait for the commits that it is to meet.
const CUT_LIMIT: Duration = Duration::from_secs(3);
/// How long a process may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// What is looked for in the agents' logs, and what it is evidence of.
const EVIDENCE: [(&str, &str); 5] = [
    ("leases granted", "leases taken"),
    ("leases were lost", "leases lost"),
    ("a commit was fenced", "commits fenced"),
    ("the outcome of a commit is unknown", "commits with unknown outcome, asked for"),
    ("handing leases over", "hand-overs"),
];

/// What `torture` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// How long faults come, in minutes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Which faults come when; else by the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Agents.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    agents: u8,
    /// Producers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    producers: u8,
    /// Members of the group.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    consumers: u8,
    /// Records a second of each producer.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Torture the probe instead: what it observes comes and goes, and it is killed.
    #[arg(long)]
    probe: bool,
}

impl Options {
    fn length(&self) -> Duration {
        Duration::from_secs(60) * self.minutes
    }
}

/// How long the probe is tortured in CI.
const PROBE_CI_LENGTH: Duration = Duration::from_secs(30);

/// The command. `STREAMHOUSE_BIN_DIR` names binaries that are built already.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(dir) = std::env::var_os("STREAMHOUSE_BIN_DIR") {
        return run_built(options, &PathBuf::from(dir));
    }
    test::build_binaries()?;
    shell::run(&mut cargo(&[
        "build",
        "--locked",
        "--package",
        "streamhouse-s3-server",
        "--package",
        "streamhouse-torture",
        "--package",
        "streamhouse-hooked",
    ]))?;
    run_built(options, &test::release_dir())
}

/// As CI runs it: two minutes, always the same faults.
pub(crate) fn run_for_ci() -> Result<()> {
    let options = Options {
        minutes: 2,
        seed: Some(1),
        agents: 3,
        producers: 3,
        consumers: 3,
        rate: 1000,
        probe: false,
    };
    run_built(&options, &test::release_dir())?;
    let binaries = Binaries::in_dir(&test::release_dir())?;
    let check = shell::command(binaries.probe(), &["check"]).output()?;
    if !check.status.success() {
        println!("the probe is not tortured here:\n{}", String::from_utf8_lossy(&check.stdout));
        return Ok(());
    }
    in_scratch(1, |dir| probe::run(PROBE_CI_LENGTH, 1, binaries, dir))
}

fn run_built(options: &Options, binaries: &Path) -> Result<()> {
    let seed = options.seed.map_or_else(seed_of_now, Ok)?;
    let binaries = Binaries::in_dir(binaries)?;
    in_scratch(seed, |dir| match options.probe {
        true => probe::run(options.length(), seed, binaries, dir),
        false => torture(options, seed, binaries, dir),
    })
}

/// Runs in a directory that stays when it fails.
fn in_scratch(seed: u64, run: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = scratch()?;
    println!("torture: seed {seed}; what it writes is in {}", dir.display());
    let tortured = run(&dir);
    match &tortured {
        Ok(()) => std::fs::remove_dir_all(&dir)?,
        Err(_) => println!("torture: seed {seed} failed; everything is in {}", dir.display()),
    }
    tortured
}

fn seed_of_now() -> Result<u64> {
    let mut seed = [0; 4];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).context("no seed")?;
    Ok(u64::from(u32::from_ne_bytes(seed)))
}

/// Below the directory for temporary files, where also PostgreSQL's account gets to.
fn scratch() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("streamhouse-torture-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn torture(options: &Options, seed: u64, binaries: Binaries, dir: &Path) -> Result<()> {
    let fleet = Fleet::start(binaries, dir, options.agents.into(), seed)?;
    let load = Load::start(&fleet, options.producers, options.consumers, options.rate)?;
    fleet.await_ready()?;
    let mut torture = Torture { fleet, load, counts: BTreeMap::new(), start: Instant::now() };
    torture.inject(options, seed)?;
    let counts = torture.fleet.s3.counts()?;
    println!("torture: no more faults; waiting until everything is acknowledged and read");
    torture.fleet.await_ready()?;
    torture.load.stop_producers()?;
    torture.load.await_read(&torture.fleet)?;
    torture.load.stop_consumers()?;
    torture.print_faults();
    println!(
        "  S3 requests {}: {} throttled, {} failed, {} stalled, {} truncated, {} unanswered",
        counts.requests,
        counts.slowed_down,
        counts.errors,
        counts.stalled,
        counts.truncated,
        counts.unanswered
    );
    for (text, what) in EVIDENCE {
        println!("  {:>6} {what}", torture.fleet.logged(text)?);
    }
    let checked = torture.load.check(&torture.fleet);
    println!(
        "torture: seed {seed}, {}",
        if checked.is_ok() { "nothing lost, nothing twice" } else { "FAILED" }
    );
    checked
}

/// A run.
struct Torture {
    fleet: Fleet,
    load: Load,
    /// Faults by name.
    counts: BTreeMap<&'static str, u32>,
    start: Instant,
}

impl Torture {
    fn inject(&mut self, options: &Options, seed: u64) -> Result<()> {
        let mut plan = Plan::new(seed, options.agents.into(), options.consumers.into());
        while self.start.elapsed() < options.length() {
            let (quiet, fault) = plan.next();
            std::thread::sleep(quiet);
            println!("{:>7.1} s  {fault}", self.start.elapsed().as_secs_f64());
            *self.counts.entry(fault.name()).or_default() += 1;
            self.apply(fault).with_context(|| format!("{fault}"))?;
            self.load.check_alive()?;
            self.check_agents()?;
        }
        Ok(())
    }

    fn apply(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillAgent { agent, down } => {
                self.process(agent)?.kill()?;
                self.restart(agent, down)
            }
            Fault::StopAgent { agent, down } => {
                self.process(agent)?.stop(STOP_LIMIT)?;
                self.restart(agent, down)
            }
            Fault::PauseAgent { agent, pause } => {
                self.process(agent)?.signal(Signal::STOP);
                std::thread::sleep(pause);
                self.process(agent)?.signal(Signal::CONT);
                Ok(())
            }
            Fault::RestartPostgres { shutdown } => self.fleet.postgres.restart(shutdown),
            Fault::CutCommits { agent, cut, times } => {
                let proxy = &self.fleet.agents[agent].to_postgres;
                let (before, armed) = (proxy.cuts(), Instant::now());
                proxy.cut_at(COMMIT, cut, times);
                // An agent without leases and heartbeats commits nothing: then there is nothing to cut.
                while proxy.cuts() < before + u64::from(times) && armed.elapsed() < CUT_LIMIT {
                    std::thread::sleep(Duration::from_millis(10));
                }
                proxy.heal();
                Ok(())
            }
            Fault::CutConnections { agent } => {
                self.fleet.agents[agent].to_postgres.cut();
                self.fleet.agents[agent].to_objects.cut();
                Ok(())
            }
            Fault::StallPostgres { agent, stall } => {
                let proxy = &self.fleet.agents[agent].to_postgres;
                proxy.stall();
                std::thread::sleep(stall);
                proxy.heal();
                Ok(())
            }
            Fault::RefuseObjects { agent, refuse } => {
                let proxy = &self.fleet.agents[agent].to_objects;
                proxy.refuse();
                std::thread::sleep(refuse);
                proxy.heal();
                Ok(())
            }
            Fault::Objects { faults, lasts } => {
                self.fleet.s3.set(&faults)?;
                std::thread::sleep(lasts);
                self.fleet.s3.set(&Faults::default())
            }
            Fault::KillConsumer { consumer } => self.load.replace_consumer(&self.fleet, consumer),
        }
    }

    fn process(&mut self, agent: usize) -> Result<&mut Process> {
        let agent = &mut self.fleet.agents[agent];
        agent.process.as_mut().with_context(|| format!("{} does not run", agent.id))
    }

    fn restart(&mut self, agent: usize, down: Duration) -> Result<()> {
        std::thread::sleep(down);
        self.fleet.start_agent(agent)?;
        self.fleet.await_agent(agent)
    }

    /// No agent ends by itself, whatever is done to it.
    fn check_agents(&mut self) -> Result<()> {
        for agent in &mut self.fleet.agents {
            if let Some(status) = agent.process.as_mut().map(Process::exited).transpose()?.flatten() {
                bail!("{} ended by itself with {status}", agent.id);
            }
        }
        Ok(())
    }

    fn print_faults(&self) {
        println!("faults injected: {}", self.counts.values().sum::<u32>());
        for (name, count) in &self.counts {
            println!("  {count:>6} {name}");
        }
    }
}
