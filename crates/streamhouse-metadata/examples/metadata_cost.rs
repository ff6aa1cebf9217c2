//! What a metadata store costs on this machine: `cargo run --release -p streamhouse-metadata --example metadata_cost`.
//!
//! Commits wait for the disk, so an SQLite file is measured in the directory given as the argument, or else the system's
//! one for temporary files. A `postgres://` URL of an empty database measures that.

#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicPartition};
use streamhouse_metadata::*;

const PARTITIONS: u32 = 1000;
/// Partitions of a flush, and how many flushes.
const COMMITS: [(usize, u32); 3] = [(1, 1000), (100, 200), (1000, 50)];
const READS: u32 = 5000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).unwrap_or_else(|| std::env::temp_dir().display().to_string());
    if argument.starts_with("postgres") {
        return measure(argument.parse::<MetadataUrl>()?.open().await?).await;
    }
    let directory = tempfile::tempdir_in(argument)?;
    let file = directory.path().join("metadata.db");
    measure(MetadataUrl::Sqlite(file).open().await?).await
}

async fn measure(store: Arc<dyn MetadataStore>) -> Result<(), Box<dyn Error>> {
    let agent: AgentId = "a".parse()?;
    let all: Vec<_> = (0..PARTITIONS)
        .map(|partition| Ok(TopicPartition { topic: "orders".parse()?, partition }))
        .collect::<Result<_, Box<dyn Error>>>()?;
    store.create_topic(&all[0].topic, PARTITIONS, Retention::default()).await?;
    store.register_agent(&agent, "127.0.0.1:50051").await?;
    let started = Instant::now();
    let leases = store.acquire_leases(&agent, Duration::from_secs(3600), &all).await?;
    report(&format!("acquire_leases of {} partitions", leases.len()), started, 1);

    let end = commits(&*store, &agent, &all).await?;
    let epochs: Vec<_> = all.iter().map(|at| (at.clone(), 1)).collect();
    let started = Instant::now();
    for _ in 0..20 {
        let renewed = store.renew_leases(&agent, &epochs, Duration::from_secs(3600)).await?;
        assert_eq!(renewed.len(), all.len());
    }
    report("renew_leases of 1000 partitions", started, 20);
    reads(&*store, &all, end).await
}

/// Flushes of ever more partitions; gives the high watermark of the first.
async fn commits(
    store: &dyn MetadataStore,
    agent: &AgentId,
    all: &[TopicPartition],
) -> Result<u64, Box<dyn Error>> {
    let mut ends = vec![0; all.len()];
    let mut segment = 0;
    for (partitions, flushes) in COMMITS {
        let started = Instant::now();
        for _ in 0..flushes {
            segment += 1;
            let ranges = all.iter().zip(&ends).take(partitions).map(|(at, end)| range(at, *end));
            let flush = Flush {
                segment: SegmentId(segment),
                object: format!("segments/{segment}"),
                object_bytes: 1 << 20,
                agent: agent.clone(),
                ranges: ranges.collect(),
            };
            let outcomes = store.commit_flush(&flush).await?;
            assert!(outcomes.iter().all(|outcome| *outcome == RangeOutcome::Committed));
            ends.iter_mut().take(partitions).for_each(|end| *end += 100);
        }
        report(&format!("commit_flush of {partitions} partitions"), started, flushes);
    }
    Ok(ends[0])
}

async fn reads(store: &dyn MetadataStore, all: &[TopicPartition], end: u64) -> Result<(), Box<dyn Error>> {
    let first = &all[0];
    let mut started = Instant::now();
    for read in 0..READS {
        let ranges = store.ranges(first, u64::from(read) * 9 % end, 1).await?;
        assert_eq!(ranges.len(), 1);
    }
    report("ranges, 1 of a partition with 1250", started, READS);
    started = Instant::now();
    for _ in 0..READS {
        assert!(store.ranges(first, end, 1).await?.is_empty());
    }
    report("ranges, at the end", started, READS);
    for count in [1, 10] {
        started = Instant::now();
        for _ in 0..READS {
            assert_eq!(store.watermarks(&all[..count]).await?.len(), count);
        }
        report(&format!("watermarks of {count} partitions"), started, READS);
    }
    let group: GroupId = "g".parse()?;
    let commits = 500;
    started = Instant::now();
    for offset in 0..commits {
        let commit = OffsetCommit { partition: first.clone(), offset: offset.into(), generation: 0 };
        store.commit_offsets(&group, None, &[commit]).await?;
    }
    report("commit_offsets of 1 partition", started, commits);
    Ok(())
}

fn range(at: &TopicPartition, base_offset: u64) -> FlushRange {
    let batch = SequencedBatch { base_sequence: 0, records: 100, base_offset };
    FlushRange {
        partition: at.clone(),
        epoch: 1,
        base_offset,
        records: 100,
        position: 0,
        bytes: 10_000,
        index_position: 10_000,
        index_bytes: 64,
        producers: vec![ProducerState { producer_id: 1, epoch: 0, batches: vec![batch; 5] }],
    }
}

fn report(what: &str, started: Instant, calls: u32) {
    let elapsed = started.elapsed();
    let micros = elapsed.as_secs_f64() * 1e6 / f64::from(calls);
    println!("{what:40} {micros:10.1} us {:10.0} /s", f64::from(calls) / elapsed.as_secs_f64());
}
