//! The commands of the guides do what they say.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use streamhouse_tests::{Cluster, Process};

/// Where the guide is, from the root.
const GUIDE: &str = "docs/observability.md";
const LIMIT: Duration = Duration::from_secs(60);
/// Fewer would mean that they are not found any more.
const COMMANDS_MIN: usize = 15;

/// Runs every line of the guide's `sh` blocks, as a reader would in the repository's root, on a log with a topic and a
/// group. Ports are those of this run.
pub(crate) fn commands_of_the_guide(cluster: &Cluster) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = std::fs::read_to_string(root.join(GUIDE)).context(GUIDE)?;
    let probe = cluster.start_probe(&[])?;
    let agent = cluster.start_agent()?;
    cluster.create_topic(&agent, "orders", 2)?;
    cluster.run_cli(&["produce", "orders", "--generate", "1000"])?;
    let consume = ["consume", "orders", "--group", "billing", "--quiet", "--max-records", "1000"];
    Process::start("consume", &mut cluster.cli(&consume))?.wait_success(LIMIT)?;
    probe.await_attached(&[agent.process.pid()])?;
    probe.await_process_up(("role", "agent"))?;

    let commands = commands(&guide);
    ensure!(commands.len() >= COMMANDS_MIN, "{} commands in {GUIDE}", commands.len());
    for line in commands {
        let line = line
            .replace("localhost:9465", &probe.http.to_string())
            .replace("localhost:8080", &agent.http.to_string());
        let mut command = Command::new("sh");
        cluster.configure(&mut command);
        let output = command
            .args(["-e", "-c", &line])
            .current_dir(&root)
            .env("PATH", path(cluster)?)
            .env("STREAMHOUSE_PROBE_URL", format!("http://{}", probe.http))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line}: {}{said}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// The lines of all blocks that are marked `sh`.
fn commands(guide: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in guide.lines() {
        match line.strip_prefix("```") {
            Some(language) => inside = language == "sh",
            None if inside => commands.push(line),
            None => {}
        }
    }
    commands
}

/// With the binaries of this run first.
fn path(cluster: &Cluster) -> Result<std::ffi::OsString> {
    let cli = cluster.binaries.cli();
    let own = cli.parent().context("the binaries are in a directory")?.canonicalize()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths([own].into_iter().chain(std::env::split_paths(&path)))?)
}
