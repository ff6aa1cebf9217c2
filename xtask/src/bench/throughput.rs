//! Produce, then consume what was produced: each record is stored and committed before it is acknowledged.

use super::{PARTITIONS, RUN_LIMIT, Spread, TOPIC, new_log, partitions, start};
use crate::shell::{self, cargo};
use anyhow::{Result, ensure};
use streamhouse_tests::{ConsumeReport, ProduceReport};

/// Value size in bytes, and records a round.
const LOADS: [(u64, u64); 2] = [(100, 5_000_000), (1024, 1_000_000)];
/// How long the load at a tenth of the rate lasts.
const PACED_SECONDS: u64 = 10;

/// Prints a table.
pub(super) fn run(rounds: u16) -> Result<()> {
    println!("one agent, {PARTITIONS} partitions, acks=durable, medians of {rounds} rounds");
    println!(
        "{:>8}{:>20}{:>10}{:>20}{:>10}",
        "bytes", "produce records/s", "MB/s", "consume records/s", "MB/s"
    );
    let mut rates = Vec::new();
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
        rates.push(produce);
    }
    let tenth = (rates[0] / 10.0) as u64;
    let paced = latencies("at a tenth of that rate", tenth * PACED_SECONDS, tenth)?;
    println!(
        "the bound at a tenth is linger + flush interval + 50 ms: {}",
        if paced <= 0.051 { "held" } else { "missed" }
    );
    latencies("one record alone", 200, 20)?;
    partitions::run()?;
    println!("\nthe same bytes through nothing but gRPC:");
    shell::run(&mut cargo(&[
        "run",
        "--locked",
        "--release",
        "--package",
        "streamhouse-proto",
        "--example",
        "bare_stream",
    ]))
}

/// Prints how long records of 100 bytes take at a rate; gives the p99 in seconds, the upper bound of its bucket.
fn latencies(what: &str, records: u64, rate: u64) -> Result<f64> {
    let (cluster, mut agent) = new_log(PARTITIONS)?;
    let (count, rate) = (records.to_string(), rate.to_string());
    let produce = ["produce", TOPIC, "--generate", &count, "--rate", &rate, "--size", "100"];
    start(&cluster, &produce, "produce.json")?.wait_success(RUN_LIMIT)?;
    let report = ProduceReport::read(&cluster.path("produce.json"))?;
    ensure!(report.records == records, "not every record came through");
    let [p50, p99] = [0.5, 0.99].map(|q| report.latency_quantile(q).unwrap_or(f64::NAN));
    println!("{what} ({rate}/s): p50 {:.2} ms, p99 {:.2} ms (bucket bounds)", p50 * 1e3, p99 * 1e3);
    agent.process.stop(RUN_LIMIT)?;
    Ok(p99)
}

/// Records a second of one produce run and one consume run.
fn round(size: u64, records: u64) -> Result<(f64, f64)> {
    let (cluster, mut agent) = new_log(PARTITIONS)?;
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
