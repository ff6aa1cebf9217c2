//! What an agent is told: flags and `STREAMHOUSE_*` variables, parsed once into a [`Config`] that can work.

use clap::Parser;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use streamhouse_core::{
    AgentId, AsTyped, InvalidName,
    limits::{INSTANCE_ID_BYTES_MAX, MESSAGE_BYTES_MAX},
};

/// Where producers connect unless told otherwise.
pub(crate) const GRPC_LISTEN_ADDRESS_DEFAULT: &str = "127.0.0.1:50051";
/// Where `/health` and `/ready` are served unless told otherwise.
pub(crate) const HTTP_LISTEN_ADDRESS_DEFAULT: &str = "127.0.0.1:8080";
/// The metadata file unless told otherwise.
pub(crate) const METADATA_PATH_DEFAULT: &str = "./streamhouse/metadata.db";
/// The directory of segments unless told otherwise.
pub(crate) const OBJECT_STORE_PATH_DEFAULT: &str = "./streamhouse/objects";
/// How long a lease lasts: what another agent waits for after this one died, and how long a flush may take.
pub(crate) const LEASE_TERM_DEFAULT: &str = "10s";
/// How often the agent says it lives.
pub(crate) const HEARTBEAT_INTERVAL_DEFAULT: &str = "3s";
/// How often the agent looks for partitions that nobody leases: how soon a new topic can be written.
pub(crate) const SWEEP_INTERVAL_DEFAULT: &str = "200ms";
/// Requests received and not yet answered: three full segments (waiting, being stored, being committed).
pub(crate) const UNFLUSHED_BYTES_MAX_DEFAULT: &str = "192MiB";
/// Open gRPC connections; for more, those that are idle for longest are closed.
pub(crate) const CONNECTIONS_MAX_DEFAULT: &str = "256";

/// Heartbeats (and renewals) that fit a lease term: one may be lost and one late.
const HEARTBEATS_PER_TERM: u32 = 3;

/// The agent's command line. Every flag has a `STREAMHOUSE_*` variable.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "streamhouse-agent",
    version,
    about = "Holds leases, writes record batches into segments and commits them"
)]
pub struct Flags {
    /// Where producers connect (gRPC)
    #[arg(long, env = "STREAMHOUSE_GRPC_LISTEN_ADDRESS", default_value = GRPC_LISTEN_ADDRESS_DEFAULT)]
    pub grpc_listen_address: SocketAddr,
    /// Where /health and /ready are served
    #[arg(long, env = "STREAMHOUSE_HTTP_LISTEN_ADDRESS", default_value = HTTP_LISTEN_ADDRESS_DEFAULT)]
    pub http_listen_address: SocketAddr,
    /// HOST:PORT that producers are told to connect to [default: the gRPC listen address]
    #[arg(long, env = "STREAMHOUSE_ADVERTISE_ADDRESS")]
    pub advertise_address: Option<String>,
    /// SQLite file of the metadata store; made if need be
    #[arg(long, env = "STREAMHOUSE_METADATA_PATH", default_value = METADATA_PATH_DEFAULT)]
    pub metadata_path: PathBuf,
    /// Directory of the object store; made if need be
    #[arg(long, env = "STREAMHOUSE_OBJECT_STORE_PATH", default_value = OBJECT_STORE_PATH_DEFAULT)]
    pub object_store_path: PathBuf,
    /// Name of this agent, unique in its metadata store [default: agent-HOSTNAME]
    #[arg(long, env = "STREAMHOUSE_AGENT_ID")]
    pub agent_id: Option<String>,
    /// How long a lease lasts, and how long a flush may take (such as 10s, 1500ms)
    #[arg(long, env = "STREAMHOUSE_LEASE_TERM", default_value = LEASE_TERM_DEFAULT, value_parser = parse_duration)]
    pub lease_term: Duration,
    /// How often the agent says it lives
    #[arg(long, env = "STREAMHOUSE_HEARTBEAT_INTERVAL", default_value = HEARTBEAT_INTERVAL_DEFAULT, value_parser = parse_duration)]
    pub heartbeat_interval: Duration,
    /// How often the agent looks for partitions that nobody leases
    #[arg(long, env = "STREAMHOUSE_SWEEP_INTERVAL", default_value = SWEEP_INTERVAL_DEFAULT, value_parser = parse_duration)]
    pub sweep_interval: Duration,
    /// Bytes received and not yet committed or refused; over it producers are slowed down (such as 192MiB)
    #[arg(long, env = "STREAMHOUSE_UNFLUSHED_BYTES_MAX", default_value = UNFLUSHED_BYTES_MAX_DEFAULT, value_parser = parse_bytes)]
    pub unflushed_bytes_max: u32,
    /// Open gRPC connections; for more, those that are idle for longest are closed
    #[arg(long, env = "STREAMHOUSE_CONNECTIONS_MAX", default_value = CONNECTIONS_MAX_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections_max: u16,
}

/// A configuration that can work: made from [`Flags`].
///
/// ```
/// use clap::Parser;
/// use streamhouse_agent::{Config, Flags};
///
/// let flags = Flags::parse_from(["streamhouse-agent", "--agent-id", "agent-1", "--lease-term", "15s"]);
/// assert!(Config::try_from(flags).is_ok());
///
/// let flags = Flags::parse_from(["streamhouse-agent", "--lease-term", "5s"]);
/// assert!(Config::try_from(flags).unwrap_err().to_string().contains("heartbeat"));
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) grpc_listen_address: SocketAddr,
    pub(crate) http_listen_address: SocketAddr,
    pub(crate) advertise_address: Option<String>,
    pub(crate) metadata_path: PathBuf,
    pub(crate) object_store_path: PathBuf,
    pub(crate) agent_id: AgentId,
    pub(crate) lease_term: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) sweep_interval: Duration,
    pub(crate) unflushed_bytes_max: u32,
    pub(crate) connections_max: u16,
}

/// Why a configuration cannot work, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The agent id breaks the rules.
    #[error("--agent-id: {0}")]
    AgentId(#[from] InvalidName),
    /// The lease would run out between renewals.
    #[error(
        "--lease-term {} is shorter than {HEARTBEATS_PER_TERM} times --heartbeat-interval {}: one lost heartbeat would cost the agent its leases; raise the one or lower the other",
        AsTyped(*term),
        AsTyped(*heartbeat)
    )]
    LeaseTerm {
        /// The term.
        term: Duration,
        /// The interval.
        heartbeat: Duration,
    },
    /// Heartbeats are sent by the sweep.
    #[error(
        "--sweep-interval {} is longer than --heartbeat-interval {}: heartbeats go out with sweeps and would be late; lower it",
        AsTyped(*sweep),
        AsTyped(*heartbeat)
    )]
    SweepInterval {
        /// The sweep.
        sweep: Duration,
        /// The heartbeat.
        heartbeat: Duration,
    },
    /// An interval of zero.
    #[error("--sweep-interval must be at least 1ms: the agent would do nothing but sweep")]
    SweepZero,
    /// A request of full size would never be let in.
    #[error(
        "--unflushed-bytes-max {bytes} is less than two requests of {MESSAGE_BYTES_MAX} bytes: one would have to wait until the agent is idle; raise it"
    )]
    UnflushedBytes {
        /// What was asked for.
        bytes: u32,
    },
    /// Both servers on one address.
    #[error("--grpc-listen-address and --http-listen-address are both {0}; give each a port of its own")]
    SameAddress(SocketAddr),
    /// Producers cannot connect to "any address".
    #[error(
        "--grpc-listen-address {0} is every address of this host, and producers need one they can reach; name it with --advertise-address"
    )]
    AdvertiseMissing(SocketAddr),
    /// Not `HOST:PORT`.
    #[error("--advertise-address {0:?} is not HOST:PORT; give the host and the port that producers reach")]
    AdvertiseAddress(String),
}

impl TryFrom<Flags> for Config {
    type Error = ConfigError;

    fn try_from(flags: Flags) -> Result<Config, ConfigError> {
        let agent_id = match &flags.agent_id {
            Some(id) => AgentId::new(id)?,
            None => default_agent_id()?,
        };
        check_intervals(&flags)?;
        check_addresses(&flags)?;
        if (flags.unflushed_bytes_max as usize) < 2 * MESSAGE_BYTES_MAX {
            return Err(ConfigError::UnflushedBytes { bytes: flags.unflushed_bytes_max });
        }
        Ok(Config {
            grpc_listen_address: flags.grpc_listen_address,
            http_listen_address: flags.http_listen_address,
            advertise_address: flags.advertise_address,
            metadata_path: flags.metadata_path,
            object_store_path: flags.object_store_path,
            agent_id,
            lease_term: flags.lease_term,
            heartbeat_interval: flags.heartbeat_interval,
            sweep_interval: flags.sweep_interval,
            unflushed_bytes_max: flags.unflushed_bytes_max,
            connections_max: flags.connections_max,
        })
    }
}

fn check_intervals(flags: &Flags) -> Result<(), ConfigError> {
    let (term, heartbeat, sweep) = (flags.lease_term, flags.heartbeat_interval, flags.sweep_interval);
    if sweep.is_zero() {
        return Err(ConfigError::SweepZero);
    }
    if sweep > heartbeat {
        return Err(ConfigError::SweepInterval { sweep, heartbeat });
    }
    if term < heartbeat * HEARTBEATS_PER_TERM {
        return Err(ConfigError::LeaseTerm { term, heartbeat });
    }
    Ok(())
}

fn check_addresses(flags: &Flags) -> Result<(), ConfigError> {
    let grpc = flags.grpc_listen_address;
    if grpc.port() != 0 && grpc == flags.http_listen_address {
        return Err(ConfigError::SameAddress(grpc));
    }
    match &flags.advertise_address {
        None if grpc.ip().is_unspecified() => Err(ConfigError::AdvertiseMissing(grpc)),
        Some(address) if !is_host_and_port(address) => {
            Err(ConfigError::AdvertiseAddress(address.chars().take(80).collect()))
        }
        None | Some(_) => Ok(()),
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// `agent-` and the host's name, so that an agent keeps its name over restarts.
fn default_agent_id() -> Result<AgentId, InvalidName> {
    let host = rustix::system::uname();
    AgentId::new(&agent_id_of_host(&host.nodename().to_string_lossy()))
}

fn agent_id_of_host(host: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    "agent-".chars().chain(host.chars().map(allowed)).take(INSTANCE_ID_BYTES_MAX).collect()
}

/// A whole number and its unit: `ms`, `s` or `m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write a whole number and ms, s or m, such as 10s");
    let (number, unit) = split_unit(text);
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => Err(wrong()),
    }
}

/// A whole number of bytes, `KiB`, `MiB` or `GiB`.
fn parse_bytes(text: &str) -> Result<u32, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit {
        "" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number.parse::<u32>().ok()?.checked_mul(1 << shift));
    bytes.ok_or_else(|| {
        format!(
            "{text:?} is not a size below 4GiB; write a whole number, or one and KiB, MiB or GiB, such as 192MiB"
        )
    })
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        let flags = ["streamhouse-agent"].iter().chain(flags);
        Config::try_from(Flags::try_parse_from(flags).unwrap())
    }

    #[test]
    fn the_defaults_work() {
        let config = config(&[]).unwrap();
        assert_eq!(config.lease_term, Duration::from_secs(10));
        assert_eq!(config.unflushed_bytes_max, 192 << 20);
        assert!(config.agent_id.as_str().starts_with("agent-"));
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let cases: [(&[&str], &str); 10] = [
            (
                &["--lease-term", "8999ms"],
                "--lease-term 8999ms is shorter than 3 times --heartbeat-interval 3s",
            ),
            (&["--lease-term", "0s"], "--lease-term 0s is shorter"),
            (&["--sweep-interval", "4s"], "heartbeats go out with sweeps"),
            (&["--sweep-interval", "0ms"], "at least 1ms"),
            (&["--unflushed-bytes-max", "10MiB"], "--unflushed-bytes-max 10485760 is less than two requests"),
            (&["--http-listen-address", "127.0.0.1:50051"], "are both 127.0.0.1:50051"),
            (&["--grpc-listen-address", "0.0.0.0:50051"], "--advertise-address"),
            (&["--advertise-address", "host"], "not HOST:PORT"),
            (&["--advertise-address", "http://host:1"], "not HOST:PORT"),
            (&["--agent-id", "a b"], "--agent-id: invalid agent id"),
        ];
        for (flags, reason) in cases {
            let message = config(flags).unwrap_err().to_string();
            assert!(message.contains(reason), "{flags:?}: {message}");
        }
    }

    #[test]
    fn an_advertised_address_makes_listening_everywhere_possible() {
        let config =
            config(&["--grpc-listen-address", "[::]:50051", "--advertise-address", "db-1.lan:50051"]);
        assert_eq!(config.unwrap().advertise_address.as_deref(), Some("db-1.lan:50051"));
    }

    #[test]
    fn units_are_parsed_and_nothing_else() {
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_bytes("65536"), Ok(65536));
        assert_eq!(parse_bytes("3GiB"), Ok(3 << 30));
        for bad in ["", "s", "10", "-1s", "1.5s", "10h", "99999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "1MB", "4GiB", "-1"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_host_name_makes_an_agent_id() {
        assert_eq!(agent_id_of_host("db-1.lan"), "agent-db-1.lan");
        assert_eq!(agent_id_of_host("a b/ü"), "agent-a-b--");
        assert!(AgentId::new(&agent_id_of_host(&"x".repeat(300))).is_ok());
        assert!(AgentId::new(&agent_id_of_host("")).is_ok());
    }
}
