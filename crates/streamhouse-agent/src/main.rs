//! `streamhouse-agent`: runs one agent until SIGTERM or SIGINT.

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{error::Error, io, io::Write, process::ExitCode, time::Duration};
use streamhouse_agent::{Agent, Config, Flags};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Threads that serve requests; storing and committing have threads of their own.
const WORKER_THREADS: usize = 2;
/// Files that are open beside gRPC connections, at most: 64 HTTP connections, the metadata store, segments, what the
/// runtime needs; and some to spare.
const OTHER_FILES: u64 = 128;
/// How long the process waits, at its end, for file operations that hang.
const EXIT_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Err(problem) = flags.log.init("info") {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "error: {problem}");
        return ExitCode::FAILURE;
    }
    allow_many_files(flags.connections_max);
    match start(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Raises the number of files that may be open to the most that is allowed, and says so when that is too few for so many
/// connections: each takes one.
fn allow_many_files(connections_max: u16) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // When it is refused, the agent works within the limit that it has.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let needed = u64::from(connections_max) + OTHER_FILES;
    if let Some(allowed) = getrlimit(Resource::Nofile).current.filter(|allowed| *allowed < needed) {
        tracing::warn!(
            allowed,
            needed,
            "the limit of open files is low: when there are many connections, segments cannot be written; raise it \
             (ulimit -n) or lower --connections-max"
        );
    }
}

fn start(flags: Flags) -> Result<(), Box<dyn Error>> {
    let config = Config::try_from(flags)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    let result = runtime.block_on(run(config));
    runtime.shutdown_timeout(EXIT_WAIT);
    result
}

async fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let mut stop = Stop::listen()?;
    let mut agent = tokio::select! {
        agent = Agent::start(config) => agent?,
        name = stop.asked() => {
            tracing::info!("{name} while starting");
            return Ok(());
        }
    };
    tracing::info!("ready: gRPC on {}, HTTP on http://{}", agent.grpc_address(), agent.http_address());
    tokio::select! {
        failure = agent.failed() => return Err(failure.into()),
        name = stop.asked() => tracing::info!("{name}: answering what is under way, then giving the leases back"),
    }
    tokio::select! {
        () = agent.shutdown() => tracing::info!("done"),
        name = stop.asked() => return Err(format!("{name} again: ended at once").into()),
    }
    Ok(())
}

/// The signals that end an agent.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> io::Result<Stop> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Stop { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
