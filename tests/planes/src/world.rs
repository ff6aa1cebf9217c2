//! A log whose every part is in this process and counted here.

use anyhow::{Result, ensure};
use clap::Parser;
use prometheus_client::encoding::prometheus_protobuf::{self, prometheus_data_model::MetricFamily};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_agent::{Agent, Config, Flags};
use streamhouse_client::{
    Admin, Consumer, ConsumerBuilder, ConsumerMetrics, Producer, ProducerMetrics, Retention,
};
use streamhouse_metadata::SqliteMetadataStore;
use streamhouse_tests::{Exposition, Response, get};

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// Metadata, objects, an agent, and what counts clients.
pub struct World {
    /// Metadata and objects.
    pub dir: tempfile::TempDir,
    /// The agent of everything.
    pub agent: Agent,
    /// The metadata.
    pub store: Arc<SqliteMetadataStore>,
    /// What counts the clients.
    pub clients: Clients,
}

/// What producers and consumers are counted in.
pub struct Clients {
    registry: Registry,
    producers: Arc<ProducerMetrics>,
    consumers: Arc<ConsumerMetrics>,
}

impl Clients {
    fn new() -> Clients {
        let mut registry = Registry::default();
        let producers = Arc::new(ProducerMetrics::new(&mut registry));
        let consumers = Arc::new(ConsumerMetrics::new(&mut registry));
        Clients { registry, producers, consumers }
    }

    /// As they are served.
    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// The same, parsed.
    pub fn page(&self) -> Exposition {
        Exposition::parse(&self.text()).unwrap()
    }

    /// As an application serves them that takes Prometheus' protobuf format.
    pub fn protobuf(&self) -> Vec<MetricFamily> {
        prometheus_protobuf::encode(&self.registry).unwrap()
    }
}

impl World {
    /// With the topic `orders` of two partitions.
    pub async fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let agent = agent(&dir, "agent-1").await;
        let store = Arc::new(SqliteMetadataStore::new(dir.path().join("metadata.db")).await.unwrap());
        Admin::new(store.clone()).create_topic("orders", 2, Retention::default()).await.unwrap();
        World { dir, agent, store, clients: Clients::new() }
    }

    /// A producer that is counted.
    pub async fn producer(&self) -> Producer {
        self.producer_that_waits(LIMIT).await
    }

    /// The same, whose records may take this long.
    pub async fn producer_that_waits(&self, limit: Duration) -> Producer {
        let builder = Producer::builder().metadata_store(self.store.clone()).client_id("web-1");
        builder
            .send_timeout(limit)
            .delivery_timeout(limit)
            .metrics(Some(self.clients.producers.clone()))
            .build()
            .await
            .unwrap()
    }

    /// A consumer that is counted.
    pub async fn consumer(&self) -> Consumer {
        self.consumer_called("reader-1").await
    }

    /// The same, under another id.
    pub async fn consumer_called(&self, id: &str) -> Consumer {
        self.consumer_builder(id).build().await.unwrap()
    }

    /// A consumer of this id that will be counted.
    pub fn consumer_builder(&self, id: &str) -> ConsumerBuilder {
        let objects = streamhouse_storage::open_local(&self.dir.path().join("objects")).unwrap();
        Consumer::builder()
            .group_id("billing")
            .topics(vec!["orders"])
            .metadata_store(self.store.clone())
            .object_store(objects)
            .client_id(id)
            .metrics(Some(self.clients.consumers.clone()))
    }

    /// What producers and consumers serve, and what the agent does, as text.
    pub async fn text(&self) -> Result<String> {
        let agent = ask(self.agent.http_address(), "/metrics").await?;
        ensure!(agent.status == 200, "{}", agent.body);
        Ok(self.clients.text() + &agent.body)
    }

    /// The same, parsed.
    pub async fn page(&self) -> Result<Exposition> {
        Exposition::parse(&self.text().await?)
    }

    /// Waits until the page is as it should be.
    pub async fn until(&self, what: &str, holds: impl Fn(&Exposition) -> bool) -> Exposition {
        let start = std::time::Instant::now();
        loop {
            let page = self.page().await.unwrap();
            if holds(&page) {
                return page;
            }
            assert!(start.elapsed() < LIMIT, "{what} did not come about:\n{:#?}", page.samples);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// An agent on the directory, on free ports.
pub async fn agent(dir: &tempfile::TempDir, id: &str) -> Agent {
    let path = |name| dir.path().join(name).to_str().unwrap().to_owned();
    let flags = Flags::parse_from([
        "streamhouse-agent",
        "--agent-id",
        id,
        "--grpc-listen-address=127.0.0.1:0",
        "--http-listen-address=127.0.0.1:0",
        "--sweep-interval=20ms",
        "--heartbeat-interval=100ms",
        "--lease-term=9s",
        "--metadata-path",
        &path("metadata.db"),
        "--object-store-path",
        &path("objects"),
    ]);
    Agent::start(Config::try_from(flags).unwrap()).await.unwrap()
}

/// Asks while the runtime serves.
pub async fn ask(address: SocketAddr, path: &'static str) -> Result<Response> {
    tokio::task::spawn_blocking(move || get(address, path)).await?
}
