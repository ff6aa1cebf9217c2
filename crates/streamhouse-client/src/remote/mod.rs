//! The metadata store as agents answer it over gRPC.

mod answers;
mod ask;
mod store;

use crate::backoff::Backoff;
use crate::error::{ClientError, Result};
use crate::security::{ClientSecurity, Connector};
use std::sync::{Arc, Mutex, atomic::AtomicUsize};
use std::time::Duration;
use streamhouse_core::{
    Clock, SystemClock,
    limits::{METADATA_ANSWER_BYTES_MAX, METADATA_REQUEST_BYTES_MAX},
};
use streamhouse_metadata::ClientStore;
use streamhouse_proto::v1::metadata_client::MetadataClient;
use tonic::transport::Channel;

/// How long a call may take, all attempts together, when not set: 10 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses that may be given: more are no help.
const ADDRESSES_MAX: usize = 64;
/// First pause before a call is sent again, once every agent was asked in vain. It doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A [`ClientStore`] that asks agents: for clients without access to the database.
///
/// Any agent can answer, so one address is enough; with several, a call that one agent does not answer goes to the next.
/// A call that may be made twice is made again until an agent has answered it or the call timeout is over, with pauses
/// that grow and have jitter. These may not: creating a topic and claiming partitions. When their request is lost on the
/// way they go to the next agent too; when only the answer may be lost, the error says so and has the kind `Retry`: look
/// whether it happened.
///
/// Clones share their connections.
///
/// ```no_run
/// use streamhouse_client::{Admin, ClientSecurity, RemoteMetadataStore};
///
/// # async fn example() -> streamhouse_client::Result<()> {
/// let store = RemoteMetadataStore::builder("agent-0:9090,agent-1:9090")
///     .security(ClientSecurity::default().token_file("/run/secrets/token").tls())
///     .build()
///     .await?;
/// for topic in Admin::new(std::sync::Arc::new(store)).topics().await? {
///     println!("{}", topic.name);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RemoteMetadataStore {
    shared: Arc<Shared>,
}

struct Shared {
    agents: Vec<Agent>,
    /// Which of them is asked first: the one that answered last.
    current: AtomicUsize,
    connector: Connector,
    call_timeout: Duration,
    backoff: Mutex<Backoff>,
}

struct Agent {
    address: String,
    client: MetadataClient<Channel>,
}

/// Configures a [`RemoteMetadataStore`].
#[derive(Clone, Debug)]
pub struct RemoteMetadataStoreBuilder {
    addresses: String,
    security: ClientSecurity,
    call_timeout: Duration,
}

impl RemoteMetadataStore {
    /// A store that asks the agents at these addresses: `HOST:PORT[,HOST:PORT]`, at most 64 of them.
    pub fn builder(addresses: impl Into<String>) -> RemoteMetadataStoreBuilder {
        RemoteMetadataStoreBuilder {
            addresses: addresses.into(),
            security: ClientSecurity::default(),
            call_timeout: CALL_TIMEOUT,
        }
    }
}

impl RemoteMetadataStoreBuilder {
    /// Token and TLS. Default: neither.
    pub fn security(mut self, security: ClientSecurity) -> Self {
        self.security = security;
        self
    }

    /// How long a call may take, all attempts together, before it fails. Default 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Makes the store. It connects with its first call.
    ///
    /// # Errors
    ///
    /// `Invalid` for an address, a token or a certificate file that cannot be used.
    pub async fn build(self) -> Result<RemoteMetadataStore> {
        let connector = self.security.connector().await?;
        let addresses: Vec<_> = self.addresses.split(',').map(str::trim).filter(|a| !a.is_empty()).collect();
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(ClientError::Invalid(format!(
                "{:?} names {} agents; give 1 to {ADDRESSES_MAX} as HOST:PORT[,HOST:PORT]",
                self.addresses,
                addresses.len()
            )));
        }
        let agents = addresses.into_iter().map(|address| Agent::new(address, &connector));
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let seed = SystemClock.monotonic_ns() ^ u64::from(std::process::id()).rotate_left(32);
        let backoff = Backoff::new(PAUSE, PAUSE_MAX, seed);
        // Clients that were given the same list do not all ask the first.
        let current = AtomicUsize::new((seed >> 10) as usize % agents.len());
        let (call_timeout, backoff) = (self.call_timeout, Mutex::new(backoff));
        Ok(RemoteMetadataStore {
            shared: Arc::new(Shared { agents, current, connector, call_timeout, backoff }),
        })
    }
}

impl Agent {
    fn new(address: &str, connector: &Connector) -> Result<Agent> {
        let channel = connector.channel(address).map_err(|said| ClientError::Invalid(said.to_string()))?;
        let client = MetadataClient::new(channel)
            .max_encoding_message_size(METADATA_REQUEST_BYTES_MAX)
            .max_decoding_message_size(METADATA_ANSWER_BYTES_MAX);
        Ok(Agent { address: address.to_owned(), client })
    }
}

/// The store that a builder was given, or one that asks the bootstrap agents.
///
/// # Errors
///
/// `Invalid` when it was given none or both; else as [`RemoteMetadataStoreBuilder::build`].
pub(crate) async fn store_of(
    what: &str,
    direct: Option<Arc<dyn ClientStore>>,
    bootstrap: Option<String>,
    security: &ClientSecurity,
) -> Result<Arc<dyn ClientStore>> {
    match (direct, bootstrap) {
        (Some(store), None) => Ok(store),
        (None, Some(addresses)) => {
            Ok(Arc::new(RemoteMetadataStore::builder(addresses).security(security.clone()).build().await?))
        }
        (Some(_), Some(_)) => Err(ClientError::Invalid(format!(
            "a {what} has both `bootstrap` and `metadata_store`; set one of them"
        ))),
        (None, None) => Err(ClientError::Invalid(format!(
            "a {what} does not know its log; set `bootstrap` to agents' addresses, or `metadata_store`"
        ))),
    }
}
