//! Compares the whole log with what producers and consumers were told.

mod compare;

use crate::Log;
use crate::lines::{self, Ended, Got, Identity};
use anyhow::{Result, ensure};
use compare::{Compared, compare};
use serde::Serialize;
use std::time::Duration;
use streamhouse_client::Consumer;
use streamhouse_core::GroupId;

/// How many differences are printed.
const SHOWN_MAX: usize = 20;
/// Longest wait of a poll: everything is there already.
const POLL: Duration = Duration::from_secs(30);

/// What is printed: one line of JSON.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    compared: Compared,
    differences: usize,
}

/// The command.
pub(crate) async fn run(log: &Log, group: &GroupId) -> Result<()> {
    let stored = read_log(log).await?;
    let producers = lines::read::<Ended>(log.dir(), "producer-")?;
    let consumers = lines::read::<Got>(log.dir(), "consumer-")?;
    let (compared, mut differences) = compare(&stored, &producers, &consumers)?;
    for offset in log.store().await?.group_offsets(group, &log.topic_partitions()).await? {
        if offset.lag_records > 0 {
            differences
                .push(format!("{}: the group has {} records to read", offset.partition, offset.lag_records));
        }
    }
    for difference in differences.iter().take(SHOWN_MAX) {
        eprintln!("{difference}");
    }
    println!("{}", serde_json::to_string(&Report { compared, differences: differences.len() })?);
    ensure!(differences.is_empty(), "{} differences; the first are above", differences.len());
    Ok(())
}

/// Every record, by partition; the position of each is its offset.
async fn read_log(log: &Log) -> Result<Vec<Vec<Identity>>> {
    let store = log.store().await?;
    let partitions = log.topic_partitions();
    let mut missing: u64 = 0;
    for (partition, watermarks) in partitions.iter().zip(store.watermarks(&partitions).await?) {
        ensure!(watermarks.log_start == 0, "{partition} begins at {}", watermarks.log_start);
        missing += watermarks.high_watermark;
    }
    let mut consumer = Consumer::builder()
        .metadata_store(store)
        .object_store(log.objects()?.open()?)
        .group_id("torture-check")
        .topics([log.topic.as_str()])
        .standalone(true)
        .max_poll_records(10_000)
        .build()
        .await?;
    let mut stored = vec![Vec::new(); partitions.len()];
    while missing > 0 {
        let records = consumer.poll(POLL).await?;
        ensure!(!records.is_empty(), "{missing} records below the high watermarks cannot be read");
        for record in records {
            let partition = &mut stored[record.partition as usize];
            ensure!(
                record.offset == partition.len() as u64,
                "partition {}: offset {} comes after {} records: offsets are not dense",
                record.partition,
                record.offset,
                partition.len()
            );
            partition.push(Identity::of(&record.value)?);
            missing -= 1;
        }
    }
    ensure!(
        consumer.poll(Duration::ZERO).await?.is_empty(),
        "records beyond the high watermarks can be read"
    );
    Ok(stored)
}
