//! Several agents on PostgreSQL and S3: who takes over, when, and what producers and consumers notice of it.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use streamhouse_tests::postgres::{Shutdown, query};
use streamhouse_tests::{Cluster, Fleet, LEASE_TERM, Process, poll_until};

const LIMIT: Duration = Duration::from_secs(120);
const TOPIC: &str = "fleet";
const PARTITIONS: usize = 6;
/// How long a takeover may take beside the lease term: a sweep and a transaction, on a machine that is busy.
const TAKEOVER_SLACK: Duration = Duration::from_secs(10);

/// A fleet with the topic, and the load on it.
struct Run {
    fleet: Fleet,
    binary: PathBuf,
    records: PathBuf,
}

impl Run {
    fn start(cluster: &Cluster, agents: usize) -> Result<Run> {
        // PostgreSQL's account must get to its directory.
        std::fs::set_permissions(&cluster.dir, std::fs::Permissions::from_mode(0o755))?;
        let fleet = Fleet::start(cluster.binaries.clone(), &cluster.dir, agents, 1)?;
        let binary = fleet.binaries.torture_load()?;
        let records = cluster.path("records");
        std::fs::create_dir(&records)?;
        let run = Run { fleet, binary, records };
        run.spawn("create", &["create"])?.wait_success(LIMIT)?;
        run.fleet.await_ready()?;
        run.await_holders("every partition has a lease", |holders| holders.len() == PARTITIONS)?;
        Ok(run)
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self.fleet.command(&self.binary, name)?;
        command.args(["--bootstrap", &self.fleet.bootstrap(), "--topic", TOPIC, "--dir"]).arg(&self.records);
        command.args(["--object-store-url", &self.fleet.object_store_url()]);
        command.args(["--partitions", &PARTITIONS.to_string()]).args(arguments).stdout(Stdio::null());
        Process::start(name, &mut command)
    }

    fn producer(&self) -> Result<Process> {
        let producer = self.spawn("producer", &["produce", "--id", "0", "--rate", "1000"])?;
        self.await_written(2000)?;
        Ok(producer)
    }

    fn consumer(&self, name: &str) -> Result<Process> {
        self.spawn(name, &["consume", "--group", "g", "--name", name])
    }

    /// Waits until so many more records are written.
    fn await_written(&self, more: u64) -> Result<()> {
        let written = || -> Result<u64> {
            Ok(query(&self.fleet.metadata_url(), "SELECT sum(high_watermark) FROM partitions")?.parse()?)
        };
        let goal = written()? + more;
        poll_until("records to be written", LIMIT, || {
            let written = written()?;
            ensure!(written >= goal, "{written} of {goal}");
            Ok(())
        })
    }

    /// The holder of each partition that has one, with the time the lease has left by the database's clock.
    fn holders(&self) -> Result<Vec<String>> {
        let sql = "SELECT a.name FROM partitions p JOIN agents a ON a.id = p.agent_id
                   WHERE p.expires_ms > extract(epoch FROM clock_timestamp()) * 1000";
        Ok(query(&self.fleet.metadata_url(), sql)?.lines().map(str::to_owned).collect())
    }

    fn await_holders(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Result<()> {
        poll_until(what, LIMIT, || {
            let holders = self.holders()?;
            ensure!(wanted(&holders), "holders are {holders:?}");
            Ok(())
        })
    }

    /// Ends the producer, lets the group read all, and compares.
    fn check(&self, mut producer: Process, consumers: Vec<Process>) -> Result<()> {
        producer.stop(LIMIT)?;
        poll_until("the group to read everything", LIMIT, || self.database(&["lag", "--group", "g"], "0"))?;
        for mut consumer in consumers {
            consumer.stop(LIMIT)?;
        }
        self.database(&["check", "--group", "g"], "\"differences\":0")
    }

    fn database(&self, arguments: &[&str], says: &str) -> Result<()> {
        let mut command = self.fleet.command(&self.binary, "check")?;
        command
            .args(["--metadata-url", &self.fleet.metadata_url(), "--topic", TOPIC, "--dir"])
            .arg(&self.records);
        command.args(["--object-store-url", &self.fleet.object_store_url()]);
        let output = command.args(["--partitions", &PARTITIONS.to_string()]).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let log = || std::fs::read_to_string(self.fleet.dir.join("check.log")).unwrap_or_default();
        ensure!(said == says || (says != "0" && said.contains(says)), "{arguments:?} says {said}\n{}", log());
        Ok(())
    }

    fn process(&mut self, agent: usize) -> Result<&mut Process> {
        self.fleet.agents[agent].process.as_mut().context("the agent does not run")
    }
}

/// A killed agent's partitions are another's within a lease term, and nothing is lost.
pub(crate) fn takeover_after_a_kill(cluster: &Cluster) -> Result<()> {
    let mut run = Run::start(cluster, 2)?;
    let consumers = vec![run.consumer("a")?];
    let producer = run.producer()?;
    let killed = Instant::now();
    run.process(0)?.kill()?;
    run.await_holders("agent-1 to take over", |holders| *holders == ["agent-1"; PARTITIONS])?;
    let took = killed.elapsed();
    ensure!(took < LEASE_TERM + TAKEOVER_SLACK, "the takeover took {took:?}");
    run.await_written(2000)?;
    run.check(producer, consumers)
}

/// An agent that is asked to end hands its partitions over: no producer sees an error, and nobody waits for a lease to
/// expire.
pub(crate) fn hand_over_on_sigterm(cluster: &Cluster) -> Result<()> {
    let mut run = Run::start(cluster, 2)?;
    let consumers = vec![run.consumer("a")?];
    let producer = run.producer()?;
    run.process(0)?.stop(LIMIT)?;
    // What it held is free the moment it has ended: the first look may already find it with the other.
    let left = run.holders()?;
    ensure!(left.iter().all(|holder| holder == "agent-1"), "agent-0 has ended and holders are {left:?}");
    run.await_holders("agent-1 to take over", |holders| *holders == ["agent-1"; PARTITIONS])?;
    run.await_written(2000)?;
    run.check(producer, consumers)?;
    let ended = std::fs::read_to_string(run.records.join("producer-0"))?;
    ensure!(!ended.contains("fail"), "records failed while leases were handed over");
    Ok(())
}

/// An agent that was stopped past its lease and goes on writes nothing any more under the old one.
pub(crate) fn a_zombie_is_fenced(cluster: &Cluster) -> Result<()> {
    let mut run = Run::start(cluster, 2)?;
    let consumers = vec![run.consumer("a")?];
    let producer = run.producer()?;
    run.process(0)?.signal(Signal::STOP);
    run.await_holders("agent-1 to take over", |holders| *holders == ["agent-1"; PARTITIONS])?;
    run.await_written(2000)?;
    run.process(0)?.signal(Signal::CONT);
    // However it finds out: by its clock, by the database, or by a commit that was under way and took too long.
    let noticed =
        ["leases were lost", "a commit was fenced", "a flush was given up; taking every lease anew"];
    poll_until("the zombie to know", LIMIT, || {
        let lines = noticed.iter().map(|text| run.fleet.logged(text)).sum::<Result<usize>>()?;
        ensure!(lines > 0, "it has not noticed yet");
        Ok(())
    })?;
    run.await_holders("both to have a share", |holders| {
        holders.len() == PARTITIONS && holders.iter().any(|holder| holder == "agent-0")
    })?;
    run.await_written(2000)?;
    run.check(producer, consumers)
}

/// The database crashes and is restarted under load.
pub(crate) fn postgres_restarts(cluster: &Cluster) -> Result<()> {
    let mut run = Run::start(cluster, 2)?;
    let consumers = vec![run.consumer("a")?];
    let producer = run.producer()?;
    for shutdown in [Shutdown::Immediate, Shutdown::Fast] {
        run.fleet.postgres.restart(shutdown)?;
        run.await_written(2000)?;
    }
    run.check(producer, consumers)
}

/// Three members share the partitions; what a killed one had goes to the others.
pub(crate) fn a_member_of_three_dies(cluster: &Cluster) -> Result<()> {
    let run = Run::start(cluster, 1)?;
    let mut consumers = vec![run.consumer("a")?, run.consumer("b")?, run.consumer("c")?];
    let producer = run.producer()?;
    poll_until("each member to have got records", LIMIT, || {
        for name in ["a", "b", "c"] {
            let got = std::fs::metadata(run.records.join(format!("consumer-{name}")))?.len();
            ensure!(got > 0, "{name} has got none");
        }
        Ok(())
    })?;
    consumers.remove(0).kill()?;
    run.await_written(2000)?;
    run.check(producer, consumers)
}
