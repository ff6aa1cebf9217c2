//! `cargo xtask demo`: the whole path on this machine, with what the probe sees, and a comparison with the truth.

mod lag;
mod verify;

use crate::shell::{self, root, target_dir};
use crate::{build_ebpf, setup, test};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use streamhouse_tests::{Agent, Binaries, Cluster, Ports, Probe, Process, ProduceReport, poll_until};

/// The topic of the demo.
const TOPIC: &str = "orders";
/// Its partitions.
const PARTITIONS: u32 = 4;
/// The consumer's group.
const GROUP: &str = "demo";
/// How often the consumer commits: the demo ends when everything is committed.
const COMMIT_EVERY: &str = "1s";
/// How long producer and consumer may take to end once they were asked.
const END_LIMIT: Duration = Duration::from_secs(60);

/// The processes of the demo: what the instance id of each ends with.
const AGENT: &str = "agent";
const PRODUCER: &str = "producer";
const CONSUMER: &str = "consumer";

/// The instance id of a process of this demo. The probe sees every process of the machine, and no other has this id.
fn instance(of: &str) -> String {
    format!("demo-{}-{of}", std::process::id())
}

/// What `demo` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// End by itself after this many seconds and compare the probe's counts with the load generator's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Records a second.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// The file whose lines are replayed; else the repository's Cargo.lock.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Run the log without the probe, which needs privileges.
    #[arg(long)]
    no_probe: bool,
}

/// The command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let file = std::path::absolute(options.file.clone().unwrap_or_else(|| root().join("Cargo.lock")))?;
    ensure!(
        file.is_file(),
        "{} is not a file; give one whose lines can be replayed with --file",
        file.display()
    );
    if !options.no_probe {
        setup::run()?;
        build_ebpf::run()?;
    }
    test::build_binaries()?;
    let stop = stop_on_interrupt()?;

    let dir = target_dir().join("demo");
    // What an earlier demo left would count as lag.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    let mut cluster = Cluster::new(Binaries::in_dir(&test::release_dir())?, &dir)?;
    cluster.ports = Ports::Default;
    // An interrupt goes to this process alone, which then ends the others in order.
    cluster.detached = true;
    cluster.agent_id = Some(instance(AGENT));
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, TOPIC, PARTITIONS)?;
    let probe = start_probe(&cluster, options)?;
    let mut load = Load::start(&cluster, options, &file.to_string_lossy())?;
    if let Some(probe) = &probe {
        println!("waiting for the probe to attach");
        probe.await_attached(&[agent.process.pid(), load.producer.pid(), load.consumer.pid()])?;
    }
    std::fs::write(cluster.path("gate"), "")?;

    let mut view = probe.as_ref().map(|probe| start_view(&cluster, probe)).transpose()?;
    while load.producer.exited()?.is_none() && !stop.load(Ordering::Relaxed) {
        match &mut view {
            Some(view) => {
                if view.exited()?.is_some() {
                    // The user has seen enough.
                    break;
                }
            }
            None => lag::ask(&cluster)?.print(),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    if let Some(view) = &mut view {
        view.stop(END_LIMIT)?;
    }
    println!("waiting for the last acknowledgements and commits");
    let ProduceReport { records, seconds, .. } = load.finish(&cluster)?;
    println!("{records} records in {seconds:.1} s: {:.0} records/s", records as f64 / seconds);
    finish(&cluster, probe, agent)
}

fn start_probe(cluster: &Cluster, options: &Options) -> Result<Option<Probe>> {
    let missing = shell::command(cluster.binaries.probe(), &["check"]).output()?;
    if options.no_probe {
        println!("running without the probe. What this machine allows it:");
        println!("{}", String::from_utf8_lossy(&missing.stdout).trim_end());
        return Ok(None);
    }
    if !missing.status.success() {
        print!("{}", String::from_utf8_lossy(&missing.stdout));
        bail!(
            "the probe cannot attach here (see above); run as root, or without it: `cargo xtask demo --no-probe`"
        );
    }
    cluster.start_probe(&[]).map(Some)
}

/// The probe's own view of the demo, on this terminal.
fn start_view(cluster: &Cluster, probe: &Probe) -> Result<Process> {
    println!("http://{}/metrics", probe.http);
    let mut command = shell::command(cluster.binaries.probe(), &["top", "--instance", &instance("")]);
    Process::start("top", command.args(["--url", &format!("http://{}", probe.http)]))
}

/// Producer and consumer.
struct Load {
    producer: Process,
    consumer: Process,
}

impl Load {
    /// Starts both; they wait for the file `gate`.
    fn start(cluster: &Cluster, options: &Options, file: &str) -> Result<Load> {
        let gate = cluster.path("gate");
        let start = |name: &str, of: &str, arguments: &[&str]| {
            let mut command = cluster.cli(arguments);
            command.args(["--client-id", &instance(of)]);
            command.arg("--start-gate").arg(&gate).arg("--report").arg(cluster.path(&format!("{name}.json")));
            let log = std::fs::File::create(cluster.path(&format!("{name}.log")))?;
            command.process_group(0);
            Process::start(name, command.stderr(Stdio::from(log)))
        };
        let rate = options.rate.to_string();
        let seconds = options.seconds.unwrap_or(u64::from(u32::MAX)).to_string();
        let produce = ["produce", TOPIC, "--file", file, "--repeat", "--rate", &rate, "--seconds", &seconds];
        let consume = ["consume", TOPIC, "--group", GROUP, "--quiet", "--commit-every", COMMIT_EVERY];
        Ok(Load {
            producer: start("produce", PRODUCER, &produce)?,
            consumer: start("consume", CONSUMER, &consume)?,
        })
    }

    /// Ends the producer, waits until the consumer has caught up, ends it too; gives what was produced.
    fn finish(&mut self, cluster: &Cluster) -> Result<ProduceReport> {
        let log =
            |name: &str| std::fs::read_to_string(cluster.path(&format!("{name}.log"))).unwrap_or_default();
        if self.producer.exited()?.is_none() {
            self.producer.signal(rustix::process::Signal::TERM);
        }
        self.producer.wait_success(END_LIMIT).with_context(|| log("produce"))?;
        let report = ProduceReport::read(&cluster.path("produce.json"))?;
        let produced = report.records;
        poll_until("the consumer to catch up", END_LIMIT, || {
            let lag = lag::ask(cluster)?;
            ensure!(
                lag.records == 0 && lag.written >= produced,
                "{} of {produced} records written, lag {}",
                lag.written,
                lag.records
            );
            Ok(())
        })?;
        self.consumer.signal(rustix::process::Signal::TERM);
        self.consumer.wait_success(END_LIMIT).with_context(|| log("consume"))?;
        Ok(report)
    }
}

fn finish(cluster: &Cluster, probe: Option<Probe>, mut agent: Agent) -> Result<()> {
    let verified = probe.as_ref().map(|probe| verify::run(cluster, probe));
    agent.process.stop(END_LIMIT)?;
    if let Some(mut probe) = probe {
        probe.process.stop(END_LIMIT)?;
    }
    verified.unwrap_or_else(|| {
        println!("without the probe there is nothing to compare");
        Ok(())
    })
}

/// A flag that an interrupt, a request to end and the loss of the terminal raise: the children must not stay behind.
fn stop_on_interrupt() -> Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).context("cannot watch for an interrupt")?;
    Ok(&STOP)
}
