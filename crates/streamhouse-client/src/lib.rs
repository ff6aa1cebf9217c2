//! Producer, Consumer and Admin: how applications use StreamHouse.
//!
//! - [`Producer`] collects records into batches and sends them to the agents that hold the partitions' leases. Its
//!   memory is bounded; every record it accepts ends acknowledged or failed with an error.
//! - [`Consumer`] reads committed segments straight from object storage and keeps its group's offsets in metadata.
//! - [`Admin`] creates topics and inspects groups.
//!
//! With the feature `metrics` a producer or consumer counts for a registry that the application serves:
//! `ProducerMetrics`, `ConsumerMetrics`. Without it the probe sees them from outside.
//!
//! A record that is sent while a [`TraceContext`] is current carries it, in its batch, to the agent and its logs.
//!
//! All three find everything through a [`ClientStore`].
//!
//! ```no_run
//! use std::{sync::Arc, time::Duration};
//! use streamhouse_client::{Consumer, Producer};
//! use streamhouse_metadata::SqliteMetadataStore;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(SqliteMetadataStore::new("./streamhouse/metadata.db").await?);
//!
//! let producer = Producer::builder().metadata_store(store.clone()).build().await?;
//! let delivery = producer.send("orders", Some(b"customer-7"), b"{\"total\": 12}", None).await?;
//! println!("durable at offset {}", delivery.await?.offset);
//! producer.close().await?;
//!
//! let objects = streamhouse_storage::open_local("./streamhouse/objects".as_ref())?;
//! let mut consumer = Consumer::builder()
//!     .group_id("billing")
//!     .topics(vec!["orders"])
//!     .metadata_store(store)
//!     .object_store(objects)
//!     .build()
//!     .await?;
//! for record in consumer.poll(Duration::from_secs(1)).await? {
//!     println!("{}/{} {}: {:?}", record.topic, record.partition, record.offset, record.value);
//! }
//! consumer.commit().await?;
//! println!("lag {}", consumer.lag("orders", 0).await?);
//! # Ok(())
//! # }
//! ```

mod admin;
mod backoff;
mod consumer;
mod error;
mod identity;
#[cfg(feature = "metrics")]
mod metrics;
mod producer;
mod remote;
mod security;

pub use admin::{Admin, OffsetTarget, TopicDescription};
pub use consumer::{ConsumedRecord, Consumer, ConsumerBuilder, OffsetReset};
pub use error::{ClientError, Result};
#[cfg(feature = "metrics")]
pub use metrics::{ConsumerMetrics, ProducerMetrics};
#[doc(hidden)]
pub use producer::Transport;
pub use producer::{Delivery, DeliveryReport, Producer, ProducerBuilder, ProducerStats};
pub use remote::{RemoteMetadataStore, RemoteMetadataStoreBuilder};
pub use security::ClientSecurity;
pub use streamhouse_core::batch::Compression;
pub use streamhouse_hooks::TraceContext;
pub use streamhouse_metadata::{ClientStore, Retention};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: what our mutexes guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
