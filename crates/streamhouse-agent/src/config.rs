//! What an agent is told: flags and `STREAMHOUSE_*` variables, parsed once into a [`Config`] that can work.

use crate::security::{Security, SecurityError};
use clap::Parser;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use streamhouse_core::{
    AgentId, AsTyped, InvalidName,
    limits::{INSTANCE_ID_BYTES_MAX, MESSAGE_BYTES_MAX},
};
use streamhouse_hooks::AGENT_SILENCE_MAX;
use streamhouse_logs::LogArgs;
use streamhouse_metadata::MetadataUrl;
use streamhouse_storage::ObjectStoreUrl;

/// Where producers connect unless told otherwise.
pub(crate) const GRPC_LISTEN_ADDRESS_DEFAULT: &str = "127.0.0.1:50051";
/// Where `/health`, `/ready` and `/metrics` are served unless told otherwise.
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

/// How often what the log does not need any more is looked for.
pub(crate) const UPKEEP_INTERVAL_DEFAULT: &str = "30s";
/// How long an object without a commit is left alone, unless ten lease terms are longer.
pub(crate) const ORPHAN_GRACE_DEFAULT: Duration = Duration::from_secs(600);

/// Lease terms after which no commit of an object can come any more, with much to spare (invariant 5).
const GRACE_TERMS: u32 = 10;
/// Longest interval of sweeps: an agent says with each that it lives.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(60);
const _: () = assert!(2 * SWEEP_INTERVAL_MAX.as_secs() <= AGENT_SILENCE_MAX.as_secs());
/// Longest interval of upkeep: the duty lasts three, and a day at most.
const UPKEEP_INTERVAL_MAX: Duration = Duration::from_secs(8 * 60 * 60);
/// The least grace time with PostgreSQL. It lets a statement take ten seconds and a transaction stand idle for five, so a
/// flush that was stored may be committed that much after its term.
const SHARED_GRACE_MIN: Duration = Duration::from_secs(20);
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
    /// Where /health, /ready and, when the agent is built with the feature metrics, /metrics are served
    #[arg(long, env = "STREAMHOUSE_HTTP_LISTEN_ADDRESS", default_value = HTTP_LISTEN_ADDRESS_DEFAULT)]
    pub http_listen_address: SocketAddr,
    /// HOST:PORT that producers are told to connect to [default: the gRPC listen address]
    #[arg(long, env = "STREAMHOUSE_ADVERTISE_ADDRESS")]
    pub advertise_address: Option<String>,
    /// The metadata store: postgres://USER@HOST/DATABASE, which agents share, or the path of an SQLite file, for one
    /// agent; tables and file are made if need be [default: ./streamhouse/metadata.db]
    #[arg(long, env = "STREAMHOUSE_METADATA_URL", hide_env_values = true, conflicts_with = "metadata_path")]
    pub metadata_url: Option<MetadataUrl>,
    /// SQLite file of the metadata store; the same as --metadata-url with a path
    #[arg(long, env = "STREAMHOUSE_METADATA_PATH")]
    pub metadata_path: Option<PathBuf>,
    /// The object store: s3://BUCKET/PREFIX, with credentials from the AWS_* variables, or a directory, which is made if
    /// need be [default: ./streamhouse/objects]
    #[arg(long, env = "STREAMHOUSE_OBJECT_STORE_URL", conflicts_with = "object_store_path")]
    pub object_store_url: Option<ObjectStoreUrl>,
    /// Directory of the object store; the same as --object-store-url with a path
    #[arg(long, env = "STREAMHOUSE_OBJECT_STORE_PATH")]
    pub object_store_path: Option<PathBuf>,
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
    /// How often what the log does not need any more is looked for and removed: what retention ends, and objects that
    /// were never committed
    #[arg(long, env = "STREAMHOUSE_UPKEEP_INTERVAL", default_value = UPKEEP_INTERVAL_DEFAULT, value_parser = parse_duration)]
    pub upkeep_interval: Duration,
    /// How long an object without a commit is left alone; at least ten lease terms, the longest that an agent of the log
    /// has, and 20s with PostgreSQL [default: 10m, or ten lease terms]
    #[arg(long, env = "STREAMHOUSE_ORPHAN_GRACE", value_parser = parse_duration)]
    pub orphan_grace: Option<Duration>,
    /// Bytes received and not yet committed or refused; over it producers are slowed down (such as 192MiB)
    #[arg(long, env = "STREAMHOUSE_UNFLUSHED_BYTES_MAX", default_value = UNFLUSHED_BYTES_MAX_DEFAULT, value_parser = parse_bytes)]
    pub unflushed_bytes_max: u32,
    /// Open gRPC connections; for more, those that are idle for longest are closed
    #[arg(long, env = "STREAMHOUSE_CONNECTIONS_MAX", default_value = CONNECTIONS_MAX_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections_max: u16,
    /// Bearer tokens of who may call gRPC: lines `TOKEN SCOPES [EXPIRES]`, with scopes out of produce,consume,admin and a
    /// time such as 2026-12-31T00:00:00Z; read again when the file changes [default: everybody may]
    #[arg(long, env = "STREAMHOUSE_TOKENS_FILE")]
    pub tokens_file: Option<PathBuf>,
    /// Certificate of the gRPC port, with those between it and its CA (PEM); read again when the file changes
    #[arg(long, env = "STREAMHOUSE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, env = "STREAMHOUSE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Listen for gRPC on an address that other hosts reach also without TLS or without tokens
    #[arg(long, env = "STREAMHOUSE_INSECURE")]
    pub insecure: bool,
    /// What the log shows.
    #[command(flatten)]
    pub log: LogArgs,
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
    pub(crate) metadata_url: MetadataUrl,
    pub(crate) object_store_url: ObjectStoreUrl,
    pub(crate) agent_id: AgentId,
    pub(crate) lease_term: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) sweep_interval: Duration,
    pub(crate) upkeep_interval: Duration,
    pub(crate) orphan_grace: Duration,
    pub(crate) unflushed_bytes_max: u32,
    pub(crate) connections_max: u16,
    pub(crate) security: Security,
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
    /// An interval of zero, or one so long that the agent would be taken for one that stands still.
    #[error(
        "--sweep-interval must be at least 1ms, or the agent would do nothing but sweep, and at most {}, or it would be taken for one that stands still",
        AsTyped(SWEEP_INTERVAL_MAX)
    )]
    SweepRange,
    /// Upkeep without a pause, or hardly ever.
    #[error(
        "--upkeep-interval {} must be from 1ms to 8 hours: that is how long what nobody needs may stay",
        AsTyped(*.0)
    )]
    UpkeepInterval(Duration),
    /// Objects of flushes under way would be removed.
    #[error(
        "--orphan-grace {} is less than {GRACE_TERMS} times --lease-term {}: an object that is still to be committed might be removed; raise the one or lower the other",
        AsTyped(*grace),
        AsTyped(*term)
    )]
    OrphanGrace {
        /// The grace time.
        grace: Duration,
        /// The term.
        term: Duration,
    },
    /// The same, with a database that is shared.
    #[error(
        "--orphan-grace {} is less than {}: so long PostgreSQL may take to find out that an agent which has begun to commit is gone; raise it",
        AsTyped(*.0),
        AsTyped(SHARED_GRACE_MIN)
    )]
    SharedGrace(Duration),
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
    /// The gRPC port cannot be guarded as it was told.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

impl TryFrom<Flags> for Config {
    type Error = ConfigError;

    fn try_from(flags: Flags) -> Result<Config, ConfigError> {
        let agent_id = match &flags.agent_id {
            Some(id) => AgentId::new(id)?,
            None => default_agent_id()?,
        };
        check_intervals(&flags)?;
        let orphan_grace = orphan_grace(&flags)?;
        check_addresses(&flags)?;
        if (flags.unflushed_bytes_max as usize) < 2 * MESSAGE_BYTES_MAX {
            return Err(ConfigError::UnflushedBytes { bytes: flags.unflushed_bytes_max });
        }
        let security = Security::try_from(&flags)?;
        Ok(Config {
            grpc_listen_address: flags.grpc_listen_address,
            http_listen_address: flags.http_listen_address,
            advertise_address: flags.advertise_address,
            metadata_url: metadata_url(flags.metadata_url, flags.metadata_path),
            object_store_url: object_store_url(flags.object_store_url, flags.object_store_path),
            agent_id,
            lease_term: flags.lease_term,
            heartbeat_interval: flags.heartbeat_interval,
            sweep_interval: flags.sweep_interval,
            upkeep_interval: flags.upkeep_interval,
            orphan_grace,
            unflushed_bytes_max: flags.unflushed_bytes_max,
            connections_max: flags.connections_max,
            security,
        })
    }
}

fn check_intervals(flags: &Flags) -> Result<(), ConfigError> {
    let (term, heartbeat, sweep) = (flags.lease_term, flags.heartbeat_interval, flags.sweep_interval);
    if sweep > heartbeat {
        return Err(ConfigError::SweepInterval { sweep, heartbeat });
    }
    if sweep.is_zero() || sweep > SWEEP_INTERVAL_MAX {
        return Err(ConfigError::SweepRange);
    }
    if term < heartbeat * HEARTBEATS_PER_TERM {
        return Err(ConfigError::LeaseTerm { term, heartbeat });
    }
    if flags.upkeep_interval.is_zero() || flags.upkeep_interval > UPKEEP_INTERVAL_MAX {
        return Err(ConfigError::UpkeepInterval(flags.upkeep_interval));
    }
    Ok(())
}

fn orphan_grace(flags: &Flags) -> Result<Duration, ConfigError> {
    let (term, least) = (flags.lease_term, flags.lease_term * GRACE_TERMS);
    let grace = flags.orphan_grace.unwrap_or(ORPHAN_GRACE_DEFAULT.max(least));
    if grace < least {
        return Err(ConfigError::OrphanGrace { grace, term });
    }
    match flags.metadata_url {
        Some(MetadataUrl::Postgres(_)) if grace < SHARED_GRACE_MIN => Err(ConfigError::SharedGrace(grace)),
        Some(_) | None => Ok(grace),
    }
}

fn metadata_url(url: Option<MetadataUrl>, path: Option<PathBuf>) -> MetadataUrl {
    url.unwrap_or_else(|| MetadataUrl::Sqlite(path.unwrap_or_else(|| METADATA_PATH_DEFAULT.into())))
}

fn object_store_url(url: Option<ObjectStoreUrl>, path: Option<PathBuf>) -> ObjectStoreUrl {
    url.unwrap_or_else(|| ObjectStoreUrl::directory(path.unwrap_or_else(|| OBJECT_STORE_PATH_DEFAULT.into())))
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

/// A whole number and its unit: `ms`, `s`, `m`, `h` or `d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a duration; write a whole number and ms, s, m, h or d, such as 10s");
    let (number, unit) = split_unit(text);
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        "h" => Ok(Duration::from_secs(u64::from(number) * 60 * 60)),
        "d" => Ok(Duration::from_secs(u64::from(number) * 24 * 60 * 60)),
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
        let cases: [(&[&str], &str); 14] = [
            (
                &["--lease-term", "8999ms"],
                "--lease-term 8999ms is shorter than 3 times --heartbeat-interval 3s",
            ),
            (&["--lease-term", "0s"], "--lease-term 0s is shorter"),
            (&["--sweep-interval", "4s"], "heartbeats go out with sweeps"),
            (&["--sweep-interval", "0ms"], "at least 1ms"),
            (&["--sweep-interval=61s", "--heartbeat-interval=61s", "--lease-term=4m"], "at most 1m"),
            (&["--orphan-grace", "99s"], "--orphan-grace 99s is less than 10 times --lease-term 10s"),
            (
                &[
                    "--metadata-url=postgres://host/log",
                    "--lease-term=1s",
                    "--heartbeat-interval=300ms",
                    "--orphan-grace=19s",
                ],
                "--orphan-grace 19s is less than 20s",
            ),
            (&["--upkeep-interval", "0s"], "from 1ms to 8 hours"),
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
    fn stores_are_named_once() {
        let parse = |flags: &[&str]| Flags::try_parse_from(["streamhouse-agent"].iter().chain(flags));
        let twice = parse(&["--metadata-url", "a.db", "--metadata-path", "b.db"]).unwrap_err();
        assert!(twice.to_string().contains("cannot be used with"), "{twice}");
        assert!(parse(&["--object-store-url", "s3://bucket", "--object-store-path", "x"]).is_err());
        assert!(parse(&["--object-store-url", "gs://bucket"]).unwrap_err().to_string().contains("gs"));
        let by_path = config(&["--metadata-path", "b.db", "--object-store-path", "x"]).unwrap();
        let by_url = config(&["--metadata-url", "sqlite:b.db", "--object-store-url", "x"]).unwrap();
        assert_eq!(by_path.metadata_url.to_string(), by_url.metadata_url.to_string());
        assert_eq!(by_path.object_store_url, by_url.object_store_url);
        assert_eq!(config(&[]).unwrap().orphan_grace, Duration::from_secs(600));
        assert_eq!(config(&["--lease-term", "2m"]).unwrap().orphan_grace, Duration::from_secs(1200));
    }

    #[test]
    fn an_advertised_address_makes_listening_everywhere_possible() {
        let config = config(&[
            "--grpc-listen-address",
            "[::]:50051",
            "--advertise-address",
            "db-1.lan:50051",
            "--insecure",
        ]);
        assert_eq!(config.unwrap().advertise_address.as_deref(), Some("db-1.lan:50051"));
    }

    #[test]
    fn units_are_parsed_and_nothing_else() {
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_bytes("65536"), Ok(65536));
        assert_eq!(parse_bytes("3GiB"), Ok(3 << 30));
        for bad in ["", "s", "10", "-1s", "1.5s", "10w", "99999999999s"] {
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
