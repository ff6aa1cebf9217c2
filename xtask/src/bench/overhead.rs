//! What observation costs the observed processes: the same load with none, with the in-process plane, and with the probe.

use super::{PARTITIONS, RUN_LIMIT, Spread, TOPIC, new_log_in, start};
use crate::shell::{self, cargo, target_dir};
use crate::test;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;
use streamhouse_tests::{Agent, Cluster, ProduceReport};

/// Records of a paced run, and their rate: the budget's.
const PACED: (&str, &str) = ("2000000", "200000");
/// Records of a run as fast as it goes.
const SATURATED: &str = "5000000";
/// When the producer's memory is looked at: while it runs, also as fast as it goes.
const MEMORY_AFTER: Duration = Duration::from_millis(500);
/// The example that runs the hooks of batches, and how many records its batches have.
const EXAMPLE: (&str, f64) = ("batch_cost", 500.0);
/// Its batches in two runs: the difference leaves out how it starts.
const BATCHES: [u64; 2] = [100, 1100];

/// Who looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plane {
    None,
    InProcess,
    External,
}

const PLANES: [(Plane, &str); 3] =
    [(Plane::None, "none"), (Plane::InProcess, "in-process"), (Plane::External, "external")];

/// A log, its agent, and which planes it is for.
struct Log {
    cluster: Cluster,
    agent: Agent,
}

/// What one run cost.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    records_per_second: f64,
    producer_kib: u64,
    agent_kib: u64,
}

/// Prints the columns.
pub(super) fn run(rounds: u16) -> Result<()> {
    let with_metrics = binaries_with_metrics()?;
    test::build_binaries()?;
    let log = |binaries: &Path, name: &str| -> Result<Log> {
        let (cluster, agent) = new_log_in(binaries, name, PARTITIONS)?;
        Ok(Log { cluster, agent })
    };
    let plain = log(&test::release_dir(), "bench")?;
    let counted = log(&with_metrics, "bench-metrics")?;
    println!(
        "100-byte records, one agent, durable; median (least to most) of {rounds} rounds, CPU and throughput against the run \
         without observation of the same round"
    );
    let paced = ["--generate", PACED.0, "--rate", PACED.1];
    let saturated = ["--generate", SATURATED];
    for (name, load) in [("200 000 records/s", &paced[..]), ("saturated", &saturated[..])] {
        let mut costs = Vec::new();
        for round in 0..usize::from(rounds) {
            let mut of_round = [None; 3];
            // Who goes first changes, so that a slow drift of the machine cancels out.
            for turn in 0..PLANES.len() {
                let at = (round + turn) % PLANES.len();
                let (plane, _) = PLANES[at];
                let log = if plane == Plane::InProcess { &counted } else { &plain };
                of_round[at] = Some(cost(log, load, plane)?);
            }
            costs.push(of_round.map(|cost| cost.expect("each has had its turn")));
        }
        println!("{name}");
        for (at, (_, plane)) in PLANES.iter().enumerate() {
            let ratio = |figure: fn(&Cost) -> f64| {
                show(costs.iter().map(|round| figure(&round[at]) / figure(&round[0])).collect(), 3)
            };
            let kib = |figure: fn(&Cost) -> u64| {
                show(costs.iter().map(|round| figure(&round[at]) as f64 / 1024.0).collect(), 1)
            };
            println!(
                "  {plane:<10}  CPU {}  throughput {}  producer MiB {}  agent MiB {}",
                ratio(|cost| cost.cpu.as_secs_f64()),
                ratio(|cost| cost.records_per_second),
                kib(|cost| cost.producer_kib),
                kib(|cost| cost.agent_kib),
            );
        }
    }
    instructions()
}

/// Builds agent and command line with the feature `metrics`, and puts them where those that ship do not take their place.
fn binaries_with_metrics() -> Result<PathBuf> {
    shell::run(&mut cargo(&[
        "build",
        "--locked",
        "--release",
        "--package=streamhouse-agent",
        "--package=streamhouse-cli",
        "--package=streamhouse-probe",
        "--features=streamhouse-agent/metrics,streamhouse-cli/metrics",
    ]))?;
    let dir = target_dir().join("release-metrics");
    std::fs::create_dir_all(&dir)?;
    for name in ["streamhouse-agent", "streamhouse", "streamhouse-probe"] {
        std::fs::copy(test::release_dir().join(name), dir.join(name)).context(name)?;
    }
    Ok(dir)
}

fn show(values: Vec<f64>, digits: usize) -> String {
    let Spread { min, median, max } = Spread::of(values);
    format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
}

/// Runs the load once; processor time is of producer and agent together.
fn cost(Log { cluster, agent }: &Log, load: &[&str], plane: Plane) -> Result<Cost> {
    let probe = (plane == Plane::External).then(|| cluster.start_probe(&[])).transpose()?;
    let gate = cluster.path("gate");
    if gate.exists() {
        std::fs::remove_file(&gate)?;
    }
    let gate = gate.to_str().context("the path is not UTF-8")?;
    let mut arguments = vec!["produce", TOPIC, "--size", "100", "--start-gate", gate];
    arguments.extend(load);
    if plane == Plane::InProcess {
        arguments.extend(["--metrics-listen-address", "127.0.0.1:0"]);
    }
    let producer = start(cluster, &arguments, "produce.json")?;
    if let Some(probe) = &probe {
        probe.await_attached(&[agent.process.pid(), producer.pid()])?;
    }
    let before = agent.process.cpu_time()?;
    std::fs::write(gate, "")?;
    std::thread::sleep(MEMORY_AFTER);
    let producer_kib = producer.memory_kib("VmRSS")?;
    let producer_cpu = producer.wait_cpu_time(RUN_LIMIT)?;
    let agent_cpu = agent.process.cpu_time()? - before;
    let agent_kib = agent.process.memory_kib("VmRSS")?;
    let report = ProduceReport::read(&cluster.path("produce.json"))?;
    ensure!(report.errors == 0, "records that failed: {}", report.errors);
    if let Some(mut probe) = probe {
        probe.process.stop(RUN_LIMIT)?;
    }
    let records_per_second = report.records as f64 / report.seconds;
    Ok(Cost { cpu: producer_cpu + agent_cpu, records_per_second, producer_kib, agent_kib })
}

/// Instructions of the hooks a record, in user space, which do not vary: how many more than where they are compiled out. The
/// kernel's part of a hit is what `bench probe` measures.
fn instructions() -> Result<()> {
    let (_, records) = EXAMPLE;
    if !shell::in_path("valgrind") {
        println!("instructions a record: not counted, for valgrind is not installed");
        return Ok(());
    }
    println!(
        "instructions a record in the hooks of producer and agent, beside none compiled in (batches of {records}, callgrind)"
    );
    let compiled_out = of_a_record("none", Some("disabled"))?;
    for (plane, name) in PLANES {
        let feature = (plane == Plane::InProcess).then_some("metrics");
        println!("  {name:<10}  {:.1}", of_a_record(name, feature)? - compiled_out);
    }
    Ok(())
}

/// Instructions that the example takes a record, the hooks built with a feature.
fn of_a_record(plane: &str, feature: Option<&str>) -> Result<f64> {
    let (example, records) = EXAMPLE;
    let mut build =
        cargo(&["build", "--locked", "--release", "--package=streamhouse-hooks", "--example", example]);
    build.args(feature.map(|feature| format!("--features={feature}")));
    shell::run(&mut build)?;
    let program = test::release_dir().join("examples").join(example);
    let [few, many] = BATCHES.map(|batches| collected(&program, plane, batches));
    Ok((many? as f64 - few? as f64) / (BATCHES[1] - BATCHES[0]) as f64 / records)
}

/// Instructions that a run takes.
fn collected(program: &Path, plane: &str, batches: u64) -> Result<u64> {
    let output = shell::command("valgrind", &["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([plane, &batches.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ").map(|(_, count)| count));
    Ok(collected.with_context(|| format!("callgrind counted nothing: {said}"))?.trim().parse()?)
}
