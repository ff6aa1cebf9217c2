//! What users get wrong, and what runs out: a clear error each, and nothing acknowledged is lost.

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use streamhouse_tests::{Cluster, Process};

const LIMIT: Duration = Duration::from_secs(60);

/// The command fails, and says this.
fn refused(cluster: &Cluster, arguments: &[&str], says: &[&str]) -> Result<()> {
    match cluster.run_cli(arguments) {
        Ok(output) => bail!("streamhouse {} succeeded: {output}", arguments.join(" ")),
        Err(error) => {
            let error = error.to_string();
            for text in says {
                ensure!(error.contains(text), "the error does not say {text:?}: {error}");
            }
            Ok(())
        }
    }
}

/// Names that break the rules, unknown and known topics, records over the limit.
pub(crate) fn names_records_and_topics(cluster: &Cluster) -> Result<()> {
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "fine", 1)?;
    refused(cluster, &["topic", "create", "a/b", "--partitions", "1"], &["a/b", "1 to 249 characters"])?;
    refused(cluster, &["topic", "create", "fine", "--partitions", "1"], &["exists already"])?;
    refused(cluster, &["topic", "create", "none", "--partitions", "0"], &["partition"])?;
    refused(cluster, &["produce", "missing", "--generate", "1"], &["missing", "does not exist"])?;
    refused(
        cluster,
        &["consume", "missing", "--group", "g", "--idle-exit", "1"],
        &["missing", "does not exist"],
    )?;
    let long = cluster.path("long.txt");
    std::fs::write(&long, "x".repeat(3 << 20))?;
    let long = long.to_str().context("the path is not UTF-8")?;
    refused(cluster, &["produce", "fine", "--file", long], &["bytes"])?;
    // The agent still takes what is right.
    cluster.run_cli(&["produce", "fine", "--generate", "10"])?;
    let read =
        cluster.run_cli(&["consume", "fine", "--group", "g", "--max-records", "10", "--idle-exit", "5"])?;
    ensure!(read.lines().count() == 10, "{} of 10 records came", read.lines().count());
    Ok(())
}

/// A second agent on the same SQLite file ends with an error that names the first.
pub(crate) fn second_agent(cluster: &Cluster) -> Result<()> {
    let first = cluster.start_agent()?;
    let error = match cluster.start_agent() {
        Ok(_) => bail!("a second agent started"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(error.contains("another agent") && error.contains(&first.process.pid().to_string()), "{error}");
    cluster.create_topic(&first, "still-there", 1)?;
    cluster.run_cli(&["produce", "still-there", "--generate", "10"])?;
    Ok(())
}

/// A small file system that is unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<SmallDisk> {
        std::fs::create_dir_all(at)?;
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"size=8m"))?;
        Ok(SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the agent may still have it open.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The object store runs full: produce fails with what to do, the agent stays up, every acknowledged record can be
/// read, and with space back it goes on.
pub(crate) fn full_disk(cluster: &Cluster) -> Result<()> {
    let disk = SmallDisk::mount(&cluster.path("objects"))?;
    let mut agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "full", 1)?;
    let filler = cluster.path("objects/filler");
    std::fs::write(&filler, vec![0; 4 << 20])?;
    let mut command: Command =
        cluster.cli(&["produce", "full", "--generate", "20000", "--size", "1000", "--report"]);
    command.arg(cluster.path("produce.json")).env("STREAMHOUSE_DELIVERY_TIMEOUT", "20s");
    let output = command.stderr(Stdio::piped()).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "20 MB fitted into 4 MB");
    ensure!(error.contains("space"), "the error does not speak of space: {error}");
    ensure!(agent.process.exited()?.is_none(), "the agent ended");

    let acknowledged = streamhouse_tests::ProduceReport::read(&cluster.path("produce.json"))?.records;
    ensure!(acknowledged > 0 && acknowledged < 20_000, "{acknowledged} records were acknowledged");
    std::fs::remove_file(&filler)?;
    let mut more = Process::start("produce", &mut cluster.cli(&["produce", "full", "--generate", "100"]))?;
    more.wait_success(LIMIT)?;
    let read = cluster.run_cli(&["consume", "full", "--group", "g", "--idle-exit", "3"])?;
    let read = read.lines().count() as u64;
    ensure!(
        read >= acknowledged + 100,
        "{read} records can be read, {acknowledged} and 100 were acknowledged"
    );
    agent.process.stop(LIMIT)?;
    drop(disk);
    Ok(())
}
