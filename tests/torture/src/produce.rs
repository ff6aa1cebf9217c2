//! A producer that writes down how each of its records ended.

use crate::lines::{Ended, Identity};
use crate::{Log, PAUSE, terminated};
use anyhow::Result;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;
use streamhouse_client::{Delivery, Producer};
use tokio::sync::mpsc;

/// How often records are sent: a burst makes a batch.
const TICK: Duration = Duration::from_millis(20);
/// How long a record may take: through a takeover and a restart of the database.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// A record under way.
struct Sent {
    partition: u32,
    sequence: u64,
    delivery: Delivery,
}

/// Sends `rate` records a second, to one partition after the other, until SIGTERM; then waits until all have ended.
pub(crate) async fn run(log: &Log, id: u32, rate: u32) -> Result<()> {
    let mut terminated = terminated()?;
    let producer = loop {
        let building = Producer::builder()
            .metadata_store(log.store().await?)
            .client_id(format!("torture-producer-{id}"))
            .delivery_timeout(DELIVERY_TIMEOUT)
            .build();
        match building.await {
            Ok(producer) => break producer,
            Err(error) => eprintln!("not started yet: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    let (sent, ends) = mpsc::unbounded_channel();
    let file = BufWriter::new(File::create(log.dir().join(format!("producer-{id}")))?);
    let recording = tokio::spawn(record(ends, file));
    let burst = (f64::from(rate) * TICK.as_secs_f64()).ceil() as u64;
    let mut tick = tokio::time::interval(TICK);
    // What could not be sent for a while is not made up for: it would be another load.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sequence = 0;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = terminated.recv() => break,
        }
        for _ in 0..burst {
            let partition = (sequence % u64::from(log.partitions)) as u32;
            let value = Identity { producer: id, sequence }.value();
            match producer.send(log.topic.as_str(), None, &value, Some(partition)).await {
                Ok(delivery) => sent.send(Sent { partition, sequence, delivery })?,
                // It was never accepted: it must not be in the log, and no line says that it may be.
                Err(error) => eprintln!("record {sequence} was not accepted: {error}"),
            }
            sequence += 1;
        }
    }
    drop(sent);
    // The first error of those that failed; each is written down.
    let _ = producer.close().await;
    recording.await??;
    println!("{sequence}");
    Ok(())
}

async fn record(mut ends: mpsc::UnboundedReceiver<Sent>, mut file: BufWriter<File>) -> Result<()> {
    let mut failures = 0_u64;
    while let Some(Sent { partition, sequence, delivery }) = ends.recv().await {
        let ended = match delivery.await {
            Ok(report) => {
                Ended::Acknowledged { partition: report.partition, offset: report.offset, sequence }
            }
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    eprintln!("record {sequence} failed, the {failures}. one: {error}");
                }
                Ended::Failed { partition, sequence }
            }
        };
        writeln!(file, "{ended}")?;
    }
    Ok(file.flush()?)
}
