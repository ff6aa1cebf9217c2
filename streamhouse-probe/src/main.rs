//! `streamhouse-probe`: see the library.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use streamhouse_logs::LogArgs;
use streamhouse_probe::attach::{self, Kernel};
use streamhouse_probe::client::{Ask, Client};
use streamhouse_probe::discover::Discovery;
use streamhouse_probe::encode::ClassicBuckets;
use streamhouse_probe::list::List;
use streamhouse_probe::probe::Probe;
use streamhouse_probe::room::{Room, SERIES_MAX, SERIES_MIN};
use streamhouse_probe::targets::TargetsView;
use streamhouse_probe::top::Top;
use streamhouse_probe::web::Web;
use streamhouse_probe::{check, http, interval, privileges};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Watches StreamHouse agents, producers and consumers from outside and serves what it sees to Prometheus.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 when done, or ended by SIGTERM or SIGINT; 1 when something failed, of check when \
                           sites cannot be attached; 2 when the command line is wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Observe every process that carries StreamHouse hooks, and serve /metrics.
    Run(Run),
    /// Say what this kernel and these capabilities allow; fails when sites cannot be attached.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        object: Object,
    },
    /// List the files and processes that a running probe knows, and why a site is not attached.
    List {
        #[command(flatten)]
        ask: Ask,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a running probe sees, by topic and instance.
    Top(Top),
}

#[derive(Debug, Args)]
struct Run {
    /// Where to serve.
    #[arg(
        long = "web.listen-address",
        env = "STREAMHOUSE_PROBE_LISTEN_ADDRESS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9465"
    )]
    listen_address: SocketAddr,
    /// Who may read what is served, and how it is encrypted: a file in the format of Prometheus' exporters. Read again
    /// when it changes.
    #[arg(long = "web.config.file", env = "STREAMHOUSE_PROBE_WEB_CONFIG_FILE", value_name = "PATH")]
    web_config_file: Option<PathBuf>,
    /// Classic histogram buckets for each doubling: 1, 2, 4 or 8.
    #[arg(
        long,
        env = "STREAMHOUSE_PROBE_CLASSIC_BUCKETS_PER_OCTAVE",
        value_name = "N",
        default_value = "2",
        value_parser = parse_buckets
    )]
    classic_buckets_per_octave: ClassicBuckets,
    /// Most series of observed processes to serve at one time, a histogram counted as all its classic buckets. What
    /// is over counts in series with the instance_id overflow.
    #[arg(
        long,
        env = "STREAMHOUSE_PROBE_SERIES_MAX",
        value_name = "N",
        default_value_t = SERIES_MAX as u32,
        value_parser = clap::value_parser!(u32).range(SERIES_MIN as i64..)
    )]
    series_max: u32,
    /// How often to look for new processes, such as 500ms or 2s.
    #[arg(
        long,
        env = "STREAMHOUSE_PROBE_DISCOVER_INTERVAL",
        value_name = "DURATION",
        default_value = "500ms",
        value_parser = interval::parse
    )]
    discover_interval: Duration,
    /// Serve also what processes serve themselves, to compare the two: who scrapes both counts twice.
    #[arg(long, env = "STREAMHOUSE_PROBE_EVEN_SELF_SERVING")]
    even_self_serving: bool,
    #[command(flatten)]
    object: Object,
}

#[derive(Debug, Args)]
struct Object {
    /// The kernel program, when it is not the one inside this binary.
    #[arg(long, env = "STREAMHOUSE_PROBE_BPF_OBJECT", value_name = "PATH")]
    bpf_object: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(problem) = cli.log.init("info") {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "error: {problem}");
        return ExitCode::FAILURE;
    }
    let ended = match cli.command {
        Command::Run(run) => run.run(),
        Command::Check { json, object } => print_check(json, object),
        Command::List { ask, json } => print_list(&ask, json),
        Command::Top(top) => top.run().map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn print_check(json: bool, object: Object) -> anyhow::Result<ExitCode> {
    let report = check::check(object.bpf_object.as_deref());
    print(json, &report, &report)?;
    Ok(if report.possible { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_list(ask: &Ask, json: bool) -> anyhow::Result<ExitCode> {
    let answer = Client::new(ask)?.get("/targets", "application/json")?;
    let targets: TargetsView = serde_json::from_slice(&answer).context("the answer is no probe's")?;
    print(json, &targets, &List(&targets))?;
    Ok(ExitCode::SUCCESS)
}

fn print(json: bool, data: &impl Serialize, text: &impl Display) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(data)? + "\n" } else { text.to_string() };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
}

impl Run {
    fn run(self) -> anyhow::Result<ExitCode> {
        // Before any other thread: capabilities are a thread's own.
        privileges::drop_unneeded().context("cannot drop capabilities")?;
        privileges::allow_many_files();
        for name in privileges::missing() {
            warn!(
                "{name} is missing: not everything can be observed; `streamhouse-probe check` says what to do"
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(self.serve());
        // The sweeps never end; nothing they hold outlives the process.
        runtime.shutdown_background();
        ended.map(|()| ExitCode::SUCCESS)
    }

    async fn serve(self) -> anyhow::Result<()> {
        let web = Arc::new(self.web_config_file.as_deref().map_or_else(|| Ok(Web::open()), Web::load)?);
        // First, so that a second probe by mistake attaches nothing.
        let listener = http::listen(self.listen_address).await?;
        let room = Room::new(self.series_max as usize, self.classic_buckets_per_octave);
        let probe = Probe::new(load(&self.object), room);
        let probe = Arc::new(if self.even_self_serving { probe.even_self_serving() } else { probe });
        let mut sweeps = start_sweeps(probe.clone(), self.discover_interval)?;
        say_where(&web, listener.local_addr()?);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            never = http::serve(listener, probe, web.clone(), self.classic_buckets_per_octave) => never,
            never = web.watch() => match never {},
            _ = &mut sweeps => bail!("the sweeps have ended by a panic; this is a defect of the probe"),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    }
}

fn say_where(web: &Web, address: SocketAddr) {
    let scheme = if web.is_encrypted() { "https" } else { "http" };
    info!("serving {scheme}://{address}/metrics");
    if !address.ip().is_loopback() && !web.is_guarded() {
        warn!(
            "everybody who reaches {address} can read it: set TLS and users in a file and name it with --web.config.file"
        );
    }
}

/// The kernel program, or the sentence that says why there is none.
fn load(object: &Object) -> Result<Kernel, String> {
    let loaded = check::own_namespace()
        .and_then(|()| attach::object(object.bpf_object.as_deref()).map_err(|error| error.to_string()))
        .and_then(|object| Kernel::load_calibrated(&object).map_err(|error| error.to_string()));
    match &loaded {
        Ok(_) => info!("kernel program loaded"),
        Err(reason) => warn!("no site is attached, only state pages are served: {reason}"),
    }
    loaded
}

/// Sweeps on a thread of its own, which never ends: the receiver ends when it does.
fn start_sweeps(
    probe: Arc<Probe>,
    interval: Duration,
) -> std::io::Result<tokio::sync::oneshot::Receiver<()>> {
    let (held, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::Builder::new().name("sweeps".to_owned()).spawn(move || {
        let _held = held;
        probe.watch(Discovery::default(), interval)
    })?;
    Ok(ended)
}

fn parse_buckets(text: &str) -> Result<ClassicBuckets, String> {
    let choice = text.parse().ok().and_then(ClassicBuckets::per_octave);
    choice.ok_or_else(|| format!("choose one of {:?}", ClassicBuckets::CHOICES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_divide_an_octave() {
        for right in ["1", "2", "4", "8"] {
            assert!(parse_buckets(right).is_ok(), "{right}");
        }
        for wrong in ["0", "3", "16", "two"] {
            assert!(parse_buckets(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
