//! The probe comes and goes; the observed processes do not notice.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use streamhouse_tests::{Cluster, Probe, Process, ProduceReport, notes, poll_until};

const LIMIT: Duration = Duration::from_secs(120);

/// A probe that was there first and one that came later both count everything sent while they were attached.
pub(crate) fn attached_before_and_after(cluster: &Cluster) -> Result<()> {
    let first = cluster.start_probe(&[])?;
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "before", 2)?;
    cluster.run_cli(&["topic", "create", "after", "--partitions", "2"])?;
    let send = |topic: &str, probe: &Probe| -> Result<()> {
        let gate = cluster.path(&format!("{topic}.gate"));
        let mut command = cluster.cli(&["produce", topic, "--generate", "100000"]);
        let mut producer = Process::start("produce", command.arg("--start-gate").arg(&gate))?;
        probe.await_attached(&[agent.process.pid(), producer.pid()])?;
        std::fs::write(&gate, "")?;
        producer.wait_success(LIMIT)?;
        for metric in ["streamhouse_producer_records_sent_total", "streamhouse_agent_records_written_total"] {
            let counted = probe.scrape()?.sum(metric, &[("topic", topic)]);
            ensure!(counted == 100_000.0, "{metric} of {topic}: {counted}");
        }
        Ok(())
    };
    send("before", &first)?;
    drop(first);
    let second = cluster.start_probe(&[])?;
    send("after", &second)?;
    ensure!(
        second.scrape()?.sum("streamhouse_producer_records_sent_total", &[("topic", "before")]) == 0.0,
        "a new probe cannot know what was sent before it"
    );
    Ok(())
}

/// Killed under load, the probe leaves semaphores at 0 and processes that go on; a new one attaches again.
pub(crate) fn killed_probe_leaves_nothing(cluster: &Cluster) -> Result<()> {
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "killed", 2)?;
    // Until it is told to end, so that it outlasts both probes on any machine.
    let mut command = cluster.cli(&["produce", "killed", "--rate", "50000", "--generate", "--report"]);
    let mut producer = Process::start("produce", command.arg(cluster.path("produce.json")))?;

    let mut probe = cluster.start_probe(&[])?;
    probe.await_attached(&[agent.process.pid(), producer.pid()])?;
    await_semaphores(&agent.process, &cluster.binaries.agent(), Looked::At)?;
    await_semaphores(&producer, &cluster.binaries.cli(), Looked::At)?;
    await_counts(&probe)?;
    probe.process.kill()?;
    await_semaphores(&agent.process, &cluster.binaries.agent(), Looked::AtNoMore)?;
    await_semaphores(&producer, &cluster.binaries.cli(), Looked::AtNoMore)?;

    let again = cluster.start_probe(&[])?;
    again.await_attached(&[agent.process.pid(), producer.pid()])?;
    await_semaphores(&agent.process, &cluster.binaries.agent(), Looked::At)?;
    await_counts(&again)?;
    producer.signal(Signal::TERM);
    producer.wait_success(LIMIT)?;
    let report = ProduceReport::read(&cluster.path("produce.json"))?;
    ensure!(report.records > 0 && report.errors == 0, "the producer suffered: {report:?}");
    let counted = sent(&again)?;
    let records = report.records as f64;
    ensure!(
        counted < records,
        "the second probe counted {counted} of {records} records, also those before it"
    );
    drop(again);
    await_semaphores(&agent.process, &cluster.binaries.agent(), Looked::AtNoMore)
}

fn sent(probe: &Probe) -> Result<f64> {
    Ok(probe.scrape()?.sum("streamhouse_producer_records_sent_total", &[("topic", "killed")]))
}

fn await_counts(probe: &Probe) -> Result<()> {
    poll_until("the probe to count", LIMIT, || {
        ensure!(sent(probe)? > 0.0, "nothing counted yet");
        Ok(())
    })
}

/// Whether anyone looks at a process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Looked {
    At,
    AtNoMore,
}

/// Waits for the semaphores of a process: the kernel takes a link down a moment after its last descriptor closes.
///
/// While attached they are above 0, not always 1: the kernel counts private mappings of the site's page, and a page on
/// which one segment ends and the next begins is in both.
fn await_semaphores(process: &Process, binary: &Path, looked: Looked) -> Result<()> {
    poll_until(&format!("the process to be looked {looked:?}"), LIMIT, || {
        let semaphores = notes::semaphores(process, binary)?;
        let up = |count: &u16| (*count > 0) == (looked == Looked::At);
        ensure!(semaphores.values().all(up), "its semaphores are {semaphores:?}");
        Ok(())
    })
}
