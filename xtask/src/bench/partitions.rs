//! What many partitions on one agent cost: objects stored, and memory.

use super::{RUN_LIMIT, new_log, start};
use anyhow::{Result, ensure};
use std::fs;
use std::path::Path;
use streamhouse_tests::ProduceReport;

/// Partitions of the two logs that are compared.
const PARTITIONS: [u32; 2] = [1, 1000];
/// Keys that spread records over all partitions.
const KEYS: &str = "100000";
/// A paced load: records, and records a second.
const PACED: (&str, &str) = ("500000", "100000");
/// A load as fast as it goes: records.
const FULL: &str = "3000000";

/// Prints objects stored at one pace, and the agent's largest memory under full load, for one partition and for many.
pub(super) fn run() -> Result<()> {
    println!("\n{:>10}{:>24}{:>28}", "partitions", "PUTs, paced load", "agent's memory, full load");
    for partitions in PARTITIONS {
        let (records, rate) = PACED;
        let (puts, _) = load(partitions, records, &["--rate", rate])?;
        let (_, memory_kib) = load(partitions, FULL, &[])?;
        println!("{partitions:>10}{puts:>24}{:>24} MiB", memory_kib / 1024);
    }
    println!(
        "paced: {} records of 100 bytes, {} a second; full load: {FULL} as fast as they go",
        PACED.0, PACED.1
    );
    Ok(())
}

/// Objects stored, and the agent's largest resident memory in KiB.
fn load(partitions: u32, records: &str, pace: &[&str]) -> Result<(usize, u64)> {
    let (cluster, mut agent) = new_log(partitions)?;
    let mut produce = vec!["produce", super::TOPIC, "--generate", records, "--size", "100", "--keys", KEYS];
    produce.extend(pace);
    start(&cluster, &produce, "produce.json")?.wait_success(RUN_LIMIT)?;
    let report = ProduceReport::read(&cluster.path("produce.json"))?;
    ensure!(report.records.to_string() == records, "not every record came through");
    let memory = agent.process.memory_kib("VmHWM")?;
    agent.process.stop(RUN_LIMIT)?;
    let objects = fs::read_dir(Path::new(&cluster.dir).join("objects/segments"))?.count();
    Ok((objects, memory))
}
