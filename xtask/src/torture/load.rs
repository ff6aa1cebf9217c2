//! The producers, the group of consumers, and the check.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use streamhouse_tests::{Fleet, Process, poll_until};

/// The topic.
const TOPIC: &str = "torture";
/// Its partitions.
const PARTITIONS: &str = "12";
/// The group.
const GROUP: &str = "torture";
/// How long what is under way may take once faults have ended: producers' delivery timeout and far more.
const END_LIMIT: Duration = Duration::from_secs(180);

/// The processes.
pub(super) struct Load {
    binary: PathBuf,
    producers: Vec<Process>,
    consumers: Vec<Process>,
    /// How many consumers there were: each has a name of its own.
    joined: u32,
}

impl Load {
    /// Creates the topic and starts everyone.
    pub(super) fn start(fleet: &Fleet, producers: u8, consumers: u8, rate: u32) -> Result<Load> {
        let binary = fleet.binaries.torture_load()?;
        let mut load = Load { binary, producers: Vec::new(), consumers: Vec::new(), joined: 0 };
        let mut create = load.command(fleet, "create", Asks::Agents)?;
        Process::start("create", create.arg("create"))?.wait_success(END_LIMIT).context("see create.log")?;
        for id in 0..producers {
            let name = format!("producer-{id}");
            let mut command = load.command(fleet, &name, Asks::Agents)?;
            command.args(["produce", "--id", &id.to_string(), "--rate", &rate.to_string()]);
            load.producers.push(Process::start(&name, command.stdout(Stdio::null()))?);
        }
        for _ in 0..consumers {
            let consumer = load.new_consumer(fleet)?;
            load.consumers.push(consumer);
        }
        Ok(load)
    }

    /// Kills a consumer and starts another in its place.
    pub(super) fn replace_consumer(&mut self, fleet: &Fleet, number: usize) -> Result<()> {
        self.consumers[number].kill()?;
        self.consumers[number] = self.new_consumer(fleet)?;
        Ok(())
    }

    /// No producer or consumer ends by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        for process in self.producers.iter_mut().chain(&mut self.consumers) {
            if let Some(status) = process.exited()? {
                bail!("{} ended by itself with {status}; see its log", process.name());
            }
        }
        Ok(())
    }

    /// Waits until every record of every producer has ended.
    pub(super) fn stop_producers(&mut self) -> Result<()> {
        self.producers.iter().for_each(|process| process.signal(Signal::TERM));
        for process in &mut self.producers {
            process.wait_success(END_LIMIT).context("see its log")?;
        }
        Ok(())
    }

    /// Waits until the group has committed everything.
    pub(super) fn await_read(&self, fleet: &Fleet) -> Result<()> {
        poll_until("the group to read everything", END_LIMIT, || {
            let mut lag = self.command(fleet, "lag", Asks::Database)?;
            let output = lag.args(["lag", "--group", GROUP]).output()?;
            let records = String::from_utf8_lossy(&output.stdout);
            ensure!(records.trim() == "0", "{} records are not committed", records.trim());
            Ok(())
        })
    }

    /// Lets the consumers leave.
    pub(super) fn stop_consumers(&mut self) -> Result<()> {
        for process in &mut self.consumers {
            process.stop(END_LIMIT)?;
        }
        Ok(())
    }

    /// Reads the log and compares; prints the counts.
    pub(super) fn check(&self, fleet: &Fleet) -> Result<()> {
        let mut check = self.command(fleet, "check", Asks::Database)?;
        let output = check.args(["check", "--group", GROUP]).stderr(Stdio::inherit()).output()?;
        let report =
            serde_json::from_slice::<Value>(&output.stdout).context("the check did not come to its end")?;
        for (name, count) in report.as_object().into_iter().flatten() {
            println!("  {:>9} {}", count.to_string(), name.replace('_', " "));
        }
        ensure!(output.status.success(), "the log is not what producers and consumers were told");
        let acknowledged = report["acknowledged"].as_u64().unwrap_or(0);
        ensure!(acknowledged > 0, "nothing was acknowledged: the run shows nothing");
        Ok(())
    }

    fn new_consumer(&mut self, fleet: &Fleet) -> Result<Process> {
        let number = self.joined;
        self.joined += 1;
        let mut command = self.command(fleet, &format!("consumer-{number}"), Asks::Agents)?;
        command.args(["consume", "--group", GROUP, "--name", &number.to_string()]);
        Process::start(&format!("consumer-{number}"), &mut command)
    }

    fn command(&self, fleet: &Fleet, name: &str, asks: Asks) -> Result<Command> {
        let mut command = fleet.command(&self.binary, name)?;
        let records = fleet.dir.join("records");
        std::fs::create_dir_all(&records)?;
        match asks {
            Asks::Agents => command.args(["--bootstrap", &fleet.bootstrap()]),
            Asks::Database => command.args(["--metadata-url", &fleet.metadata_url()]),
        };
        command.args(["--object-store-url", &fleet.object_store_url(), "--topic", TOPIC]);
        command.args(["--partitions", PARTITIONS, "--dir"]).arg(records);
        Ok(command)
    }
}

/// Whom a command asks about the log.
enum Asks {
    Agents,
    Database,
}
