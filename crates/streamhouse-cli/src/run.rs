//! What a produce run and a consume run share: how they begin, and what ends them.

use crate::output::note;
use crate::parse;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use streamhouse_core::AsTyped;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a start gate may stay shut.
const GATE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the gate is looked at.
const GATE_INTERVAL: Duration = Duration::from_millis(10);
/// What comes sooner after the first signal is no second wish: `timeout` and service managers signal a process and its
/// whole group at once.
const SECOND_SIGNAL_AFTER: Duration = Duration::from_millis(500);
/// Exit status after a second signal: what a shell shows for an interrupt.
const INTERRUPTED: i32 = 130;

/// How a run begins and ends.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// End after this many seconds.
    #[arg(long, value_name = "S", value_parser = parse::seconds)]
    seconds: Option<Duration>,
    /// The id in metrics; else the host's name and the role.
    #[arg(long, value_name = "ID", env = "STREAMHOUSE_CLIENT_ID")]
    pub(crate) client_id: Option<String>,
    /// Serve the run's own metrics at /metrics there; the probe then leaves them out.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "STREAMHOUSE_METRICS_LISTEN_ADDRESS",
        value_parser = parse::metrics_listen_address,
        hide = cfg!(not(feature = "metrics"))
    )]
    pub(crate) metrics_listen_address: Option<SocketAddr>,
    /// Get ready, then wait until this file exists before the first record.
    #[arg(long, value_name = "FILE")]
    start_gate: Option<PathBuf>,
    /// Write the run's own record of counts, bytes and latencies to this file at the end, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

impl RunArgs {
    /// Waits for the start gate, then begins to count the time. The run goes on until `stop` is cancelled.
    pub(crate) async fn begin(&self, stop: &CancellationToken) -> Result<()> {
        if let Some(gate) = &self.start_gate {
            wait_for_gate(gate, GATE_TIMEOUT, stop).await?;
        }
        if let Some(seconds) = self.seconds {
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::time::sleep(seconds).await;
                stop.cancel();
            });
        }
        Ok(())
    }
}

async fn wait_for_gate(gate: &Path, timeout: Duration, stop: &CancellationToken) -> Result<()> {
    let opened = async {
        while !gate.exists() {
            tokio::time::sleep(GATE_INTERVAL).await;
        }
    };
    tokio::select! {
        () = opened => Ok(()),
        () = stop.cancelled() => Ok(()),
        () = tokio::time::sleep(timeout) => bail!(
            "the start gate {} did not appear within {}; create the file to let the run begin",
            gate.display(),
            AsTyped(timeout)
        ),
    }
}

/// A token that SIGINT and SIGTERM cancel, so that a run ends in order. A second signal, unless it comes with the
/// first, ends the process at once.
pub(crate) fn stop_on_signals() -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be handled")?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first.get_or_insert_with(Instant::now).elapsed() >= SECOND_SIGNAL_AFTER {
                note("ended at the second signal; what was not acknowledged or committed is unknown");
                std::process::exit(INTERRUPTED);
            }
            cancel.cancel();
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_gate_holds_until_the_file_is_there() {
        let gate = std::env::temp_dir().join(format!("streamhouse-gate-{}", std::process::id()));
        let stop = CancellationToken::new();
        let message = wait_for_gate(&gate, Duration::from_millis(30), &stop).await.unwrap_err().to_string();
        assert!(message.contains("did not appear"), "{message}");

        let waiting = tokio::spawn({
            let (gate, stop) = (gate.clone(), stop.clone());
            async move { wait_for_gate(&gate, GATE_TIMEOUT, &stop).await }
        });
        std::fs::write(&gate, "").unwrap();
        waiting.await.unwrap().unwrap();
        std::fs::remove_file(&gate).unwrap();

        stop.cancel();
        wait_for_gate(&gate, GATE_TIMEOUT, &stop).await.unwrap();
    }
}
