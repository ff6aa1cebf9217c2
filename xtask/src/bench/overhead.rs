//! What the probe costs the observed processes: the same load with and without it, alternating.

use super::{PARTITIONS, RUN_LIMIT, Spread, TOPIC, new_log, start};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use streamhouse_tests::{Agent, Cluster, Probe, ProduceReport};

/// Records of a paced run, and their rate: the budget's.
const PACED: (&str, &str) = ("2000000", "200000");
/// Records of a run as fast as it goes.
const SATURATED: &str = "5000000";

/// What one run cost.
struct Cost {
    cpu: Duration,
    records_per_second: f64,
}

/// Prints the ratios, probe attached to not attached.
pub(super) fn run(rounds: u16) -> Result<()> {
    println!(
        "100-byte records, one agent, durable; ratios attached/not attached, median (least to most) of {rounds} pairs"
    );
    let (cluster, agent) = new_log(PARTITIONS)?;
    let paced = ["--generate", PACED.0, "--rate", PACED.1];
    let saturated = ["--generate", SATURATED];
    for (name, load) in [("200 000 records/s", &paced[..]), ("saturated", &saturated[..])] {
        let (mut cpu, mut throughput) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Who goes first alternates too, so that a slow drift of the machine cancels out.
            let first_attached = round % 2 == 1;
            let first = cost(&cluster, &agent, load, first_attached)?;
            let second = cost(&cluster, &agent, load, !first_attached)?;
            let (off, on) = if first_attached { (second, first) } else { (first, second) };
            cpu.push(on.cpu.as_secs_f64() / off.cpu.as_secs_f64());
            throughput.push(on.records_per_second / off.records_per_second);
        }
        let show = |values| {
            let Spread { min, median, max } = Spread::of(values);
            format!("{median:.3} ({min:.3} to {max:.3})")
        };
        println!("{name:<20} CPU {}   throughput {}", show(cpu), show(throughput));
    }
    Ok(())
}

/// Runs the load once; processor time is of producer and agent together.
fn cost(cluster: &Cluster, agent: &Agent, load: &[&str], attached: bool) -> Result<Cost> {
    let probe = attached.then(|| cluster.start_probe(&[])).transpose()?;
    let gate = cluster.path("gate");
    if gate.exists() {
        std::fs::remove_file(&gate)?;
    }
    let gate = gate.to_str().context("the path is not UTF-8")?;
    let mut arguments = vec!["produce", TOPIC, "--size", "100", "--start-gate", gate];
    arguments.extend(load);
    let producer = start(cluster, &arguments, "produce.json")?;
    if let Some(probe) = &probe {
        probe.await_attached(&[agent.process.pid(), producer.pid()])?;
    }
    let before = agent.process.cpu_time()?;
    std::fs::write(gate, "")?;
    let producer_cpu = producer.wait_cpu_time(RUN_LIMIT)?;
    let agent_cpu = agent.process.cpu_time()? - before;
    let report = ProduceReport::read(&cluster.path("produce.json"))?;
    ensure!(report.errors == 0, "records that failed: {}", report.errors);
    end(probe)?;
    Ok(Cost { cpu: producer_cpu + agent_cpu, records_per_second: report.records as f64 / report.seconds })
}

fn end(probe: Option<Probe>) -> Result<()> {
    if let Some(mut probe) = probe {
        probe.process.stop(RUN_LIMIT)?;
    }
    Ok(())
}
