//! A producer's settings.

use crate::error::{ClientError, Result};
use crate::identity;
use crate::producer::agents::{Agents, Transport};
use crate::producer::{Producer, dispatcher::Dispatcher, shared::Shared};
use crate::{remote, security::ClientSecurity};
use std::{sync::Arc, time::Duration};
use streamhouse_core::{
    AsTyped, Clock, SystemClock,
    batch::Compression,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
};
use streamhouse_hooks::{Instance, Role};
use streamhouse_metadata::ClientStore;
use tokio::sync::Semaphore;

/// Bytes of a batch when not set: 128 KiB.
const BATCH_BYTES: usize = 128 << 10;
/// Records of a batch when not set: 16 384.
const BATCH_RECORDS: usize = 16_384;
/// Linger when not set: 1 ms.
const LINGER: Duration = Duration::from_millis(1);
/// Buffer when not set: 32 MiB.
const BUFFER_BYTES: usize = 32 << 20;
/// Delivery timeout when not set: 30 s.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Send timeout when not set: 10 s.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest linger and timeout that is accepted: an hour. Also what a latency may state at most.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Requests to one agent that wait for their answer when not set: 4.
const REQUESTS_IN_FLIGHT: usize = 4;

/// Configures a [`Producer`]. Only `bootstrap` or the metadata store must be set.
pub struct ProducerBuilder {
    metadata_store: Option<Arc<dyn ClientStore>>,
    bootstrap: Option<String>,
    security: ClientSecurity,
    clock: Arc<dyn Clock>,
    client_id: Option<String>,
    transport: Option<Arc<dyn Transport>>,
    #[cfg(feature = "metrics")]
    metrics: Option<Arc<crate::ProducerMetrics>>,
    config: Config,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) linger: Duration,
    pub(crate) compression: Compression,
    pub(crate) buffer_bytes: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) requests_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_bytes: BATCH_BYTES,
            batch_records: BATCH_RECORDS,
            linger: LINGER,
            compression: Compression::None,
            buffer_bytes: BUFFER_BYTES,
            delivery_timeout: DELIVERY_TIMEOUT,
            send_timeout: SEND_TIMEOUT,
            requests_in_flight: REQUESTS_IN_FLIGHT,
        }
    }
}

impl Default for ProducerBuilder {
    fn default() -> Self {
        Self {
            metadata_store: None,
            bootstrap: None,
            security: ClientSecurity::default(),
            clock: Arc::new(SystemClock),
            client_id: None,
            transport: None,
            #[cfg(feature = "metrics")]
            metrics: None,
            config: Config::default(),
        }
    }
}

impl ProducerBuilder {
    /// Agents that are asked where topics, leases and other agents are: `HOST:PORT[,HOST:PORT]`. Any will do, and of several
    /// any that answers.
    pub fn bootstrap(mut self, addresses: impl Into<String>) -> Self {
        self.bootstrap = Some(addresses.into());
        self
    }

    /// Token and TLS for the connections to agents. Default: neither.
    pub fn security(mut self, security: ClientSecurity) -> Self {
        self.security = security;
        self
    }

    /// Where topics, leases and agents are found, instead of `bootstrap`: for who has access to the database itself. An
    /// `Arc<SqliteMetadataStore>` can be passed as it is.
    pub fn metadata_store(mut self, store: Arc<dyn ClientStore>) -> Self {
        self.metadata_store = Some(store);
        self
    }

    /// The id in metrics and logs; 1 to 127 bytes. Default: the host's name and `-producer`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Counts for a registry that the application serves. Default: nothing does.
    #[cfg(feature = "metrics")]
    pub fn metrics(mut self, metrics: Option<Arc<crate::ProducerMetrics>>) -> Self {
        self.metrics = metrics;
        self
    }

    /// A batch is sealed before it would exceed this many encoded bytes; a record over it gets a batch of its own.
    /// Default 128 KiB, at most [`BATCH_BYTES_MAX`]. While a partition has as many batches waiting as an agent takes at
    /// one time ([`IDEMPOTENCE_WINDOW`](streamhouse_core::limits::IDEMPOTENCE_WINDOW)), the next may grow to that maximum:
    /// nothing is sent later for it, and a slow object store limits throughput less.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.config.batch_bytes = bytes;
        self
    }

    /// A batch is sealed at this many records. Default 16 384, at most [`BATCH_RECORDS_MAX`].
    pub fn batch_records(mut self, records: usize) -> Self {
        self.config.batch_records = records;
        self
    }

    /// How long the first record of a batch waits for others at most. Default 1 ms. A record that comes after a pause,
    /// when the producer has sent nothing for this long, goes at once; while the partition waits for an
    /// acknowledgement, its next batch goes on collecting past this time.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// How batches are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// Memory for records that are not acknowledged yet: encoded bytes and bookkeeping. Default 32 MiB. When it is full,
    /// `send()` waits.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.config.buffer_bytes = bytes;
        self
    }

    /// How long a record may take from `send()` to its acknowledgement, retries included, before it fails. Default 30 s,
    /// at most an hour.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout = timeout;
        self
    }

    /// How long `send()` waits for room in the buffer before it fails. Default 10 s, at most the delivery timeout.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.config.send_timeout = timeout;
        self
    }

    /// Produce requests to one agent that may wait for their answer at one time. Default 4.
    pub fn requests_in_flight(mut self, requests: usize) -> Self {
        self.config.requests_in_flight = requests;
        self
    }

    /// The clock that measures latency and dates records. Default: the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How requests get to agents. Default: over the network.
    #[doc(hidden)]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Checks the settings, takes a producer id from the metadata store and starts the producer on the current tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// `Invalid` for a setting out of its range; otherwise what the metadata store met.
    pub async fn build(self) -> Result<Producer> {
        self.config.check()?;
        let connector = self.security.connector().await?;
        let store = remote::store_of("producer", self.metadata_store, self.bootstrap, &self.security).await?;
        let client_id = identity::client_id(self.client_id, "producer")?;
        let producer_id = store.new_producer_id().await?;
        let instance = Instance::new(Role::Producer, &client_id, "");
        #[cfg(feature = "metrics")]
        let instance = instance.recorded(self.metrics.map(|metrics| metrics.recorder()));
        let shared = Shared::new(self.config, self.clock, store, instance, producer_id);
        tokio::spawn(Dispatcher::new(Arc::clone(&shared), Agents::new(connector, self.transport)).run());
        Ok(Producer { shared })
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        let within = |name: &str, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(ClientError::Invalid(format!("{name} is {value}; it must be {min} to {max}")))
        };
        within("batch_bytes", self.batch_bytes, 1, BATCH_BYTES_MAX)?;
        within("batch_records", self.batch_records, 1, BATCH_RECORDS_MAX)?;
        within("buffer_bytes", self.buffer_bytes, 1, Semaphore::MAX_PERMITS)?;
        within("requests_in_flight", self.requests_in_flight, 1, usize::MAX)?;
        for (name, timeout) in [
            ("linger", self.linger),
            ("delivery_timeout", self.delivery_timeout),
            ("send_timeout", self.send_timeout),
        ] {
            if timeout > TIMEOUT_MAX {
                return Err(ClientError::Invalid(format!(
                    "{name} is {}; it must be at most {}",
                    AsTyped(timeout),
                    AsTyped(TIMEOUT_MAX)
                )));
            }
        }
        // A record could otherwise be accepted that has failed already, or whose batch fails before it is sealed.
        if self.delivery_timeout <= self.linger || self.delivery_timeout < self.send_timeout {
            return Err(ClientError::Invalid(format!(
                "delivery_timeout is {}; it must be longer than linger ({}) and not shorter than send_timeout ({})",
                AsTyped(self.delivery_timeout),
                AsTyped(self.linger),
                AsTyped(self.send_timeout)
            )));
        }
        Ok(())
    }
}
