//! What the probe costs: each figure beside its budget.

use super::{RUN_LIMIT, Spread, new_log, start};
use crate::shell::{self, cargo};
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::{Duration, Instant};
use streamhouse_tests::{Cluster, Probe, Process, poll_until};

/// Partitions that fill the page: each has series of the producer, of the agent and of the consumer.
const PARTITIONS: u32 = 1000;
const RECORDS: &str = "200000";
/// Keys that spread records over all partitions.
const KEYS: &str = "100000";
/// Series that fill the page.
const SERIES: f64 = 10_000.0;
/// How long what is idle is watched.
const IDLE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);

/// Prints one line a figure.
pub(super) fn run(rounds: u16) -> Result<()> {
    shell::run(&mut cargo(&["bench", "--locked", "--package", "streamhouse-probe", "--bench", "hit"]))?;
    shell::run(&mut cargo(&["build", "--locked", "--package", "streamhouse-hooked"]))?;
    let (cluster, agent) = new_log(PARTITIONS)?;
    let probe = cluster.start_probe(&[])?;
    probe.await_attached(&[agent.process.pid()])?;
    println!("\n{:<58}{:>10}{:>10}{:>10}{:>12}", "", "min", "median", "max", "budget");

    print("scrape of a nearly empty page, ms", scrapes(&probe, rounds)?, "");
    let before = probe.process.cpu_time()?;
    std::thread::sleep(IDLE);
    let idle = (probe.process.cpu_time()? - before).as_secs_f64() / IDLE.as_secs_f64();
    print("processor, nothing happens, %", Spread::of(vec![100.0 * idle]), "");

    let _readers = fill(&cluster, &probe)?;
    print(&format!("scrape of {SERIES} series, ms"), scrapes(&probe, rounds)?, "100");
    print("from exec to attached, a new file, ms", attaches(&cluster, &probe, rounds)?, "1000");
    let resident = probe.process.memory_kib("VmRSS")? as f64 / 1024.0;
    print("resident with that, kernel maps apart, MiB", Spread::of(vec![resident]), "64");
    in_an_observed_process()
}

fn print(what: &str, Spread { min, median, max }: Spread, budget: &str) {
    println!("{what:<58}{min:>10.2}{median:>10.2}{max:>10.2}{budget:>12}");
}

/// Milliseconds that a whole answer takes.
fn scrapes(probe: &Probe, rounds: u16) -> Result<Spread> {
    let scrape = |_| {
        let begin = Instant::now();
        probe.page()?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    };
    Ok(Spread::of((0..4 * rounds).map(scrape).collect::<Result<_>>()?))
}

/// Produces and consumes on every partition until the page is full.
fn fill(cluster: &Cluster, probe: &Probe) -> Result<Vec<Process>> {
    let produce = ["produce", super::TOPIC, "--generate", RECORDS, "--size", "100", "--keys", KEYS];
    start(cluster, &produce, "produce.json")?.wait_success(RUN_LIMIT)?;
    let mut readers = Vec::new();
    for group in ["one", "two"] {
        let mut consume =
            cluster.cli(&["consume", super::TOPIC, "--group", group, "--quiet", "--client-id", group]);
        readers.push(Process::start("consume", consume.stderr(Stdio::null()))?);
    }
    poll_until("the page to fill", RUN_LIMIT, || {
        let series = probe.scrape()?.sum("streamhouse_probe_series", &[]);
        ensure!(series >= SERIES * 0.99, "{series} series");
        Ok(())
    })?;
    Ok(readers)
}

/// Milliseconds from the start of a process of a new file until the probe says that it is attached.
fn attaches(cluster: &Cluster, probe: &Probe, rounds: u16) -> Result<Spread> {
    let attach = |round| {
        let path = cluster.path(&format!("new-{round}"));
        std::fs::copy(cluster.binaries.hooked()?, &path)?;
        let begin = Instant::now();
        let process = hold(shell::command(&path, &[]))?;
        probe.await_attached(&[process.pid()])?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    };
    Ok(Spread::of((0..4 * rounds).map(attach).collect::<Result<_>>()?))
}

/// A process that waits for what it is told.
fn hold(mut command: std::process::Command) -> Result<Process> {
    Process::start("hooked", command.stdin(Stdio::piped()).stdout(Stdio::null()))
}

/// What is resident of a process's state page, in KiB.
fn page_memory(process: &Process) -> Result<Spread> {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", process.pid()))?;
    let page = smaps.split("/memfd:streamhouse").nth(1).context("it has no state page")?;
    let resident = page.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss")?;
    Ok(Spread::of(vec![resident.trim().trim_end_matches(" kB").parse()?]))
}

/// What ten partitions take, and a thousand, of a producer's state page.
fn in_an_observed_process() -> Result<()> {
    for (partitions, budget) in [(10, "100"), (PARTITIONS, "348")] {
        let (cluster, mut agent) = new_log(partitions)?;
        let endless =
            ["produce", super::TOPIC, "--generate", "--size", "100", "--keys", KEYS, "--rate", "50000"];
        let producer = start(&cluster, &endless, "produce.json")?;
        std::thread::sleep(IDLE);
        let memory = poll_until("a state page", LIMIT, || page_memory(&producer))?;
        print(&format!("memory of a producer's state page, {partitions} partitions, KiB"), memory, budget);
        drop(producer);
        agent.process.stop(LIMIT)?;
    }
    Ok(())
}
