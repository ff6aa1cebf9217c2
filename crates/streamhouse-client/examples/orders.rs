//! One record there and back. Needs an agent on the same paths and a topic `orders`:
//!
//! ```text
//! streamhouse-agent &
//! streamhouse topic create orders --partitions 4
//! cargo run --package streamhouse-client --example orders
//! ```
#![expect(clippy::print_stdout, reason = "an example")]

use std::{error::Error, path::Path, sync::Arc, time::Duration};
use streamhouse_client::{Consumer, Producer};
use streamhouse_metadata::SqliteMetadataStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Arc::new(SqliteMetadataStore::new("./streamhouse/metadata.db").await?);
    let objects = streamhouse_storage::open_local(Path::new("./streamhouse/objects"))?;

    let producer = Producer::builder().metadata_store(store.clone()).build().await?;
    let delivery = producer.send("orders", Some(b"user-1"), b"{\"total\": 9}", None).await?; // enqueued
    let report = delivery.await?; // stored and committed
    println!("offset {} of partition {} in {:?}", report.offset, report.partition, report.latency);
    producer.close().await?;

    let mut consumer = Consumer::builder()
        .group_id("readers")
        .topics(vec!["orders"])
        .metadata_store(store)
        .object_store(objects)
        .build()
        .await?;
    for record in consumer.poll(Duration::from_secs(1)).await? {
        println!("{}/{} {}: {:?}", record.topic, record.partition, record.offset, record.value);
    }
    consumer.commit().await?; // the group goes on from here, also after a restart
    let lag = consumer.lag("orders", 0).await?;
    println!("{lag} records behind on partition 0");
    consumer.close().await?;
    Ok(())
}
