//! Produce, then consume what was produced: each record is stored and committed before it is acknowledged.

use super::{PARTITIONS, RUN_LIMIT, Spread, TOPIC, new_log, start};
use anyhow::{Result, ensure};
use streamhouse_tests::{ConsumeReport, ProduceReport};

/// Value size in bytes, and records a round.
const LOADS: [(u64, u64); 2] = [(100, 5_000_000), (1024, 1_000_000)];

/// Prints a table.
pub(super) fn run(rounds: u16) -> Result<()> {
    println!("one agent, {PARTITIONS} partitions, acks=durable, medians of {rounds} rounds");
    println!(
        "{:>8}{:>20}{:>10}{:>20}{:>10}",
        "bytes", "produce records/s", "MB/s", "consume records/s", "MB/s"
    );
    for (size, records) in LOADS {
        let (mut produced, mut consumed) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (produce, consume) = round(size, records)?;
            produced.push(produce);
            consumed.push(consume);
        }
        let (produce, consume) = (Spread::of(produced).median, Spread::of(consumed).median);
        let megabytes = size as f64 / 1e6;
        println!(
            "{size:>8}{produce:>20.0}{:>10.1}{consume:>20.0}{:>10.1}",
            produce * megabytes,
            consume * megabytes
        );
    }
    alone()
}

/// Prints how long one durable record takes when there is no other.
fn alone() -> Result<()> {
    let (cluster, mut agent) = new_log()?;
    let produce = ["produce", TOPIC, "--generate", "200", "--rate", "20", "--size", "100"];
    start(&cluster, &produce, "produce.json")?.wait_success(RUN_LIMIT)?;
    let report = ProduceReport::read(&cluster.path("produce.json"))?;
    ensure!(report.records == 200, "not every record came through");
    let milliseconds = |q| report.latency_quantile(q).map_or(f64::NAN, |seconds| seconds * 1e3);
    println!(
        "one record alone: p50 {:.2} ms, p99 {:.2} ms (bucket bounds)",
        milliseconds(0.5),
        milliseconds(0.99)
    );
    agent.process.stop(RUN_LIMIT)?;
    Ok(())
}

/// Records a second of one produce run and one consume run.
fn round(size: u64, records: u64) -> Result<(f64, f64)> {
    let (cluster, mut agent) = new_log()?;
    let (size, count) = (size.to_string(), records.to_string());
    start(&cluster, &["produce", TOPIC, "--generate", &count, "--size", &size], "produce.json")?
        .wait_success(RUN_LIMIT)?;
    let produce = ProduceReport::read(&cluster.path("produce.json"))?;
    let consume = ["consume", TOPIC, "--group", "bench", "--quiet", "--max-records", &count];
    start(&cluster, &consume, "consume.json")?.wait_success(RUN_LIMIT)?;
    let consume = ConsumeReport::read(&cluster.path("consume.json"))?;
    ensure!(produce.records == records && consume.records == records, "not every record came through");
    agent.process.stop(RUN_LIMIT)?;
    Ok((records as f64 / produce.seconds, records as f64 / consume.seconds))
}
