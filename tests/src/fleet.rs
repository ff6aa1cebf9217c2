//! A log that several agents share: PostgreSQL, an S3 server, and for each agent a proxy before either.

use crate::cluster::Binaries;
use crate::http::{free_address, has_started, is_ready};
use crate::postgres::{Durability, Postgres};
use crate::process::{Process, bind_to_this_thread, poll_until};
use crate::proxy::Proxy;
use crate::s3::{self, BUCKET, S3Server};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a lease of these agents lasts: short, so that takeovers are many.
pub const LEASE_TERM: Duration = Duration::from_secs(3);
/// How long an agent may take to come up: far longer than it does.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The log. Its processes end with the thread that starts them, also when that is killed.
pub struct Fleet {
    /// The binaries.
    pub binaries: Binaries,
    /// Logs and whatever else belongs to the run.
    pub dir: PathBuf,
    /// The metadata store.
    pub postgres: Postgres,
    /// The object store.
    pub s3: S3Server,
    /// The agents.
    pub agents: Vec<FleetAgent>,
    database: String,
}

/// An agent, whether it runs or not; its addresses stay the same.
pub struct FleetAgent {
    /// Its id.
    pub id: String,
    /// Where it answers gRPC.
    pub grpc: SocketAddr,
    /// Where it answers `/health` and `/ready`.
    pub http: SocketAddr,
    /// What is between it and PostgreSQL.
    pub to_postgres: Proxy,
    /// What is between it and the S3 server.
    pub to_objects: Proxy,
    /// The process, while it runs.
    pub process: Option<Process>,
    command: Command,
}

impl Fleet {
    /// Starts the stores and `agents` agents, with what they write in `dir`; `seed` decides which requests the S3 server's
    /// faults meet. Root's PostgreSQL runs as another account: it must be able to reach `dir`.
    ///
    /// # Errors
    ///
    /// When something is not built or installed, or does not come up.
    pub fn start(binaries: Binaries, dir: &Path, agents: usize, seed: u64) -> Result<Fleet> {
        let postgres = Postgres::start(&dir.join("postgres"), Durability::Process)?;
        postgres.create_database("log")?;
        let s3 =
            S3Server::start(&binaries.s3_server()?, &dir.join("objects"), seed, &dir.join("s3-server.log"))?;
        let mut fleet = Fleet {
            binaries,
            dir: dir.to_owned(),
            postgres,
            s3,
            agents: Vec::new(),
            database: "log".to_owned(),
        };
        // What listens from now on first: ports that are free then stay so.
        let proxies: Vec<_> = (0..agents)
            .map(|_| Ok([Proxy::start(fleet.postgres_address())?, Proxy::start(fleet.s3.address())?]))
            .collect::<Result<_>>()?;
        for (number, proxies) in proxies.into_iter().enumerate() {
            let agent = fleet.new_agent(format!("agent-{number}"), proxies)?;
            fleet.agents.push(agent);
        }
        for number in 0..agents {
            fleet.start_agent(number)?;
            fleet.await_agent(number)?;
        }
        Ok(fleet)
    }

    /// The metadata store's address, without a proxy.
    pub fn metadata_url(&self) -> String {
        self.postgres.url(&self.database)
    }

    /// The object store's address.
    pub fn object_store_url(&self) -> String {
        format!("s3://{BUCKET}/log")
    }

    /// The agents' addresses, as clients are told them.
    pub fn bootstrap(&self) -> String {
        self.agents.iter().map(|agent| agent.grpc.to_string()).collect::<Vec<_>>().join(",")
    }

    /// A command that finds the object store, without a proxy; its standard error goes to `NAME.log`, behind what is
    /// there.
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn command(&self, program: &Path, name: &str) -> Result<Command> {
        let mut command = Command::new(program);
        command.envs(s3::environment(self.s3.address())).stdin(Stdio::null());
        command.stderr(log(&self.dir, name)?);
        bind_to_this_thread(&mut command);
        Ok(command)
    }

    /// Starts an agent that does not run, and does not wait.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_agent(&mut self, number: usize) -> Result<()> {
        let agent = &mut self.agents[number];
        agent.process = Some(Process::start(&agent.id, &mut agent.command)?);
        Ok(())
    }

    /// Waits until an agent that runs has started.
    ///
    /// # Errors
    ///
    /// When it ends instead, or has not in time.
    pub fn await_agent(&mut self, number: usize) -> Result<()> {
        let FleetAgent { id, http, process, .. } = &mut self.agents[number];
        let process = process.as_mut().with_context(|| format!("{id} does not run"))?;
        process
            .await_up(START_LIMIT, || has_started(*http))
            .with_context(|| format!("see {}", self.dir.join(format!("{id}.log")).display()))
    }

    /// Waits until every agent is ready to take records.
    ///
    /// # Errors
    ///
    /// When one is not in time.
    pub fn await_ready(&self) -> Result<()> {
        for agent in &self.agents {
            poll_until(&format!("{} to be ready", agent.id), START_LIMIT, || is_ready(agent.http))?;
        }
        Ok(())
    }

    /// How often a line with `text` is in the agents' logs.
    ///
    /// # Errors
    ///
    /// When a log cannot be read.
    pub fn logged(&self, text: &str) -> Result<usize> {
        let mut count = 0;
        for agent in &self.agents {
            let log = std::fs::read_to_string(self.dir.join(format!("{}.log", agent.id)))?;
            count += log.lines().filter(|line| line.contains(text)).count();
        }
        Ok(count)
    }

    fn postgres_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.postgres.port()).into()
    }

    fn new_agent(&self, id: String, [to_postgres, to_objects]: [Proxy; 2]) -> Result<FleetAgent> {
        let (grpc, http) = (free_address()?, free_address()?);
        let database = format!("postgres://postgres@{}/{}", to_postgres.address(), self.database);
        let mut command = Command::new(self.binaries.agent());
        command
            .args([
                "--agent-id",
                &id,
                "--metadata-url",
                &database,
                "--object-store-url",
                &self.object_store_url(),
            ])
            .args(["--grpc-listen-address", &grpc.to_string(), "--http-listen-address", &http.to_string()])
            .args(["--lease-term", &format!("{}ms", LEASE_TERM.as_millis())])
            .args(["--heartbeat-interval", "1s", "--sweep-interval", "100ms"])
            .envs(s3::environment(to_objects.address()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(&self.dir, &id)?);
        bind_to_this_thread(&mut command);
        Ok(FleetAgent { id, grpc, http, to_postgres, to_objects, process: None, command })
    }
}

fn log(dir: &Path, name: &str) -> Result<std::fs::File> {
    let path = dir.join(format!("{name}.log"));
    std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("writing {}", path.display()))
}
