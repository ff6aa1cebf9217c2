//! One log on this machine: a directory with metadata and objects, the binaries, and the ports they listen on.

use crate::exposition::Exposition;
use crate::http::{free_address, get, has_started, is_ready};
use crate::process::{Process, poll_until};
use crate::s3::{self, BUCKET};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a service may take until it answers: far longer than it does, for machines that are slow or busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where the built binaries are.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// The binaries of a cargo profile's directory, such as `target/release`.
    ///
    /// # Errors
    ///
    /// Names the first that is missing.
    pub fn in_dir(dir: &Path) -> Result<Binaries> {
        let binaries = Binaries { dir: dir.to_owned() };
        for path in [binaries.agent(), binaries.cli(), binaries.probe()] {
            ensure!(path.is_file(), "{} is not built; run `cargo build --release`", path.display());
        }
        Ok(binaries)
    }

    /// Those that `STREAMHOUSE_BIN_DIR` names, or the workspace's release build.
    ///
    /// # Errors
    ///
    /// Names the first that is missing.
    pub fn from_env() -> Result<Binaries> {
        let release = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release");
        let dir = std::env::var_os("STREAMHOUSE_BIN_DIR").unwrap_or_else(|| release.into());
        Binaries::in_dir(Path::new(&dir))
    }

    /// `streamhouse-agent`.
    pub fn agent(&self) -> PathBuf {
        self.dir.join("streamhouse-agent")
    }

    /// `streamhouse`.
    pub fn cli(&self) -> PathBuf {
        self.dir.join("streamhouse")
    }

    /// `streamhouse-probe`.
    pub fn probe(&self) -> PathBuf {
        self.dir.join("streamhouse-probe")
    }

    /// `s3-server`, of the tests.
    ///
    /// # Errors
    ///
    /// When it is not built.
    pub fn s3_server(&self) -> Result<PathBuf> {
        self.built("s3-server", "streamhouse-s3-server")
    }

    /// `torture-load`, of the tests.
    ///
    /// # Errors
    ///
    /// When it is not built.
    pub fn torture_load(&self) -> Result<PathBuf> {
        self.built("torture-load", "streamhouse-torture")
    }

    /// `hooked`, of the tests.
    ///
    /// # Errors
    ///
    /// When it is not built.
    pub fn hooked(&self) -> Result<PathBuf> {
        self.built("hooked", "streamhouse-hooked")
    }

    /// `hooked-host`, of the tests, and the library that it loads.
    ///
    /// # Errors
    ///
    /// When they are not built.
    pub fn hooked_host(&self) -> Result<(PathBuf, PathBuf)> {
        let built = |name| self.built(name, "streamhouse-hooked");
        Ok((built("hooked-host")?, built("libstreamhouse_hooked.so")?))
    }

    /// What only tests use is not built as it ships, but with the tests.
    fn built(&self, name: &str, package: &str) -> Result<PathBuf> {
        let dirs = [self.dir.clone(), self.dir.join("../debug")];
        let path = dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.is_file());
        path.with_context(|| format!("{name} is not built; run `cargo build --package {package}`"))
    }
}

/// A log's directory.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The binaries.
    pub binaries: Binaries,
    /// Metadata, objects, logs and reports.
    pub dir: PathBuf,
    /// Which loopback ports services listen on.
    pub ports: Ports,
    /// The agent's id; else its default.
    pub agent_id: Option<String>,
    /// The S3 server that holds the objects; else a directory does.
    pub s3: Option<SocketAddr>,
    /// More variables for agents and commands.
    pub environment: Vec<(&'static str, String)>,
    /// Whether an interrupt from the keyboard passes services by: whoever started them ends them, in order.
    pub detached: bool,
}

/// Which loopback ports services listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Any that are free: for tests, which run side by side.
    Free,
    /// The documented ones where they are free: for people.
    Default,
}

impl Ports {
    fn choose(self, default: u16) -> Result<SocketAddr> {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, default));
        match self {
            Ports::Default if TcpListener::bind(default).is_ok() => Ok(default),
            Ports::Default | Ports::Free => free_address(),
        }
    }
}

/// A running agent.
pub struct Agent {
    /// The process.
    pub process: Process,
    /// Where it answers gRPC.
    pub grpc: SocketAddr,
    /// Where it answers `/health` and `/ready`.
    pub http: SocketAddr,
}

/// A running probe.
pub struct Probe {
    /// The process.
    pub process: Process,
    /// Where it answers `/metrics` and `/targets`.
    pub http: SocketAddr,
}

/// One file of `/targets`.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// The file.
    pub path: String,
    /// `attached` or `refused`.
    pub state: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// Its processes.
    pub processes: Vec<TargetProcess>,
}

/// One process of a target.
#[derive(Clone, Debug, Deserialize)]
pub struct TargetProcess {
    /// Process id.
    pub pid: u32,
}

impl Cluster {
    /// A log in `dir`, which is made if need be, on free ports.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn new(binaries: Binaries, dir: &Path) -> Result<Cluster> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Cluster {
            binaries,
            dir: dir.to_owned(),
            ports: Ports::Free,
            agent_id: None,
            s3: None,
            environment: Vec::new(),
            detached: false,
        })
    }

    /// A file in the log's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts an agent and waits until it has started. Its log goes to `agent.log`.
    ///
    /// # Errors
    ///
    /// When it does not come up; the message ends with its log.
    pub fn start_agent(&self) -> Result<Agent> {
        self.start_agent_at(self.ports.choose(50051)?, self.ports.choose(8080)?)
    }

    /// The same where another agent was, which has ended: who knows its addresses finds this one.
    ///
    /// # Errors
    ///
    /// As for [`Cluster::start_agent`].
    pub fn start_agent_again(&self, before: &Agent) -> Result<Agent> {
        self.start_agent_at(before.grpc, before.http)
    }

    fn start_agent_at(&self, grpc: SocketAddr, http: SocketAddr) -> Result<Agent> {
        let mut command = Command::new(self.binaries.agent());
        command
            .args(["--grpc-listen-address", &grpc.to_string(), "--http-listen-address", &http.to_string()])
            .stdin(Stdio::null());
        if let Some(id) = &self.agent_id {
            command.args(["--agent-id", id]);
        }
        self.configure(&mut command);
        let process = self.start_logged("agent", &mut command)?;
        let mut agent = Agent { process, grpc, http };
        self.await_up(&mut agent.process, || has_started(http))?;
        Ok(agent)
    }

    /// Starts a probe and waits until `/health` answers. Its log goes to `probe.log`.
    ///
    /// # Errors
    ///
    /// When it does not come up; the message ends with its log.
    pub fn start_probe(&self, arguments: &[&str]) -> Result<Probe> {
        self.start_probe_with(Command::new(self.binaries.probe()), arguments)
    }

    /// The same with a command that begins otherwise than with the path of the probe, as in another account.
    ///
    /// # Errors
    ///
    /// As for [`Cluster::start_probe`].
    pub fn start_probe_with(&self, mut command: Command, arguments: &[&str]) -> Result<Probe> {
        let http = self.ports.choose(9465)?;
        command.args(["run", "--web.listen-address", &http.to_string()]).args(arguments).stdin(Stdio::null());
        let process = self.start_logged("probe", &mut command)?;
        let mut probe = Probe { process, http };
        self.await_up(&mut probe.process, || get(http, "/health").map(drop))?;
        Ok(probe)
    }

    /// A `streamhouse` command on this log, with its standard output thrown away.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.cli());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        self.configure(&mut command);
        command
    }

    /// Runs a `streamhouse` command to its end and gives its standard output.
    ///
    /// # Errors
    ///
    /// When it fails; the message is what it printed on standard error.
    pub fn run_cli(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        if !output.status.success() {
            bail!("streamhouse {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Creates a topic and waits until the agent is ready to take records.
    ///
    /// # Errors
    ///
    /// When it exists already, or the agent takes no lease.
    pub fn create_topic(&self, agent: &Agent, name: &str, partitions: u32) -> Result<()> {
        self.run_cli(&["topic", "create", name, "--partitions", &partitions.to_string()])?;
        poll_until("the agent to be ready", START_LIMIT, || is_ready(agent.http))
    }

    /// Tells a command which log is meant.
    pub fn configure(&self, command: &mut Command) {
        command.env("STREAMHOUSE_METADATA_PATH", self.path("metadata.db"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        match self.s3 {
            Some(address) => command
                .env("STREAMHOUSE_OBJECT_STORE_URL", format!("s3://{BUCKET}/log"))
                .envs(s3::environment(address)),
            None => command.env("STREAMHOUSE_OBJECT_STORE_PATH", self.path("objects")),
        };
    }

    fn start_logged(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = std::fs::File::create(self.log(name))?;
        if self.detached {
            command.process_group(0);
        }
        Process::start(name, command.stdout(log.try_clone()?).stderr(log))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    fn await_up(&self, process: &mut Process, is_up: impl FnMut() -> Result<()>) -> Result<()> {
        process.await_up(START_LIMIT, is_up).with_context(|| {
            let log = std::fs::read_to_string(self.log(process.name())).unwrap_or_default();
            format!("{} did not come up. Its log:\n{log}", process.name())
        })
    }
}

impl Probe {
    /// The page, parsed.
    ///
    /// # Errors
    ///
    /// When the probe does not answer 200.
    pub fn scrape(&self) -> Result<Exposition> {
        Exposition::parse(&self.page()?)
    }

    /// The page as it is served.
    ///
    /// # Errors
    ///
    /// When the probe does not answer 200.
    pub fn page(&self) -> Result<String> {
        let response = get(self.http, "/metrics")?;
        ensure!(response.status == 200, "/metrics says {}: {}", response.status, response.body);
        Ok(response.body)
    }

    /// What it found.
    ///
    /// # Errors
    ///
    /// When the probe does not answer.
    pub fn targets(&self) -> Result<Vec<Target>> {
        #[derive(Deserialize)]
        struct Targets {
            targets: Vec<Target>,
        }
        let response = get(self.http, "/targets")?;
        Ok(serde_json::from_str::<Targets>(&response.body)?.targets)
    }

    /// Waits until the state page of one process with this label is served.
    ///
    /// # Errors
    ///
    /// When it is not in time.
    pub fn await_process_up(&self, label: (&str, &str)) -> Result<()> {
        poll_until("a state page to be read", START_LIMIT, || {
            let up = self.scrape()?.sum("streamhouse_process_up", &[label]);
            ensure!(up == 1.0, "process_up of {label:?} is {up}");
            Ok(())
        })
    }

    /// Waits until every one of these processes is listed under an attached target.
    ///
    /// # Errors
    ///
    /// When one is not attached in time; says which and why.
    pub fn await_attached(&self, pids: &[u32]) -> Result<()> {
        poll_until("the probe to attach", START_LIMIT, || {
            let targets = self.targets()?;
            for pid in pids {
                let target = targets
                    .iter()
                    .find(|target| target.processes.iter().any(|process| process.pid == *pid))
                    .with_context(|| format!("the probe does not list process {pid}"))?;
                let reason = target.reason.as_deref().unwrap_or("no reason given");
                ensure!(target.state == "attached", "{} is {}: {reason}", target.path, target.state);
            }
            Ok(())
        })
    }
}
