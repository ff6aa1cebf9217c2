//! What the embedded store costs on this machine: `cargo run --release -p streamhouse-metadata --example metadata_cost`.
//!
//! Commits wait for the disk, so they are measured in the directory given as the argument, or else the system's one for
//! temporary files.

#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use streamhouse_core::{AgentId, GroupId, SegmentId, TopicPartition};
use streamhouse_metadata::*;

const COMMITS: u32 = 2000;
const READS: u32 = 20_000;
const PARTITIONS: u32 = 500;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let store = SqliteMetadataStore::new(directory.path().join("metadata.db")).await?;
    let agent: AgentId = "a".parse()?;
    let group: GroupId = "g".parse()?;
    let all: Vec<_> = (0..PARTITIONS)
        .map(|partition| Ok(TopicPartition { topic: "orders".parse()?, partition }))
        .collect::<Result<_, Box<dyn Error>>>()?;
    store.create_topic(&all[0].topic, PARTITIONS, Retention::default()).await?;
    store.register_agent(&agent, "127.0.0.1:50051").await?;
    store.acquire_leases(&agent, Duration::from_secs(3600), &all).await?;
    let flush = |number: u32, partitions: &[TopicPartition]| Flush {
        segment: SegmentId(number.into()),
        object: format!("segments/{number}"),
        object_bytes: 1 << 20,
        agent: agent.clone(),
        ranges: partitions.iter().map(|at| range(at, u64::from(number) * 100)).collect(),
    };

    let mut next = 0;
    for partitions in [&all[..1], &all] {
        let commits = if partitions.len() == 1 { COMMITS } else { COMMITS / 20 };
        // The partitions that had no commit yet begin where the first one is.
        let partitions = if partitions.len() == 1 { partitions } else { &partitions[1..] };
        if partitions.len() > 1 {
            next = 0;
        }
        let started = Instant::now();
        for _ in 0..commits {
            let mut flush = flush(next, partitions);
            flush.segment.0 += (partitions.len() as u128) << 64;
            let outcomes = store.commit_flush(&flush).await?;
            assert!(outcomes.iter().all(|outcome| *outcome == RangeOutcome::Committed));
            next += 1;
        }
        report(&format!("commit_flush of {} partitions", partitions.len()), started, commits);
    }

    let first = &all[0];
    let end = u64::from(COMMITS) * 100;
    let mut started = Instant::now();
    for read in 0..READS {
        let ranges = store.ranges(first, u64::from(read) * 9 % end, 1).await?;
        assert_eq!(ranges.len(), 1);
    }
    report("ranges, 1 of a partition with 2000", started, READS);
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
    started = Instant::now();
    for offset in 0..COMMITS {
        store
            .commit_offsets(
                &group,
                None,
                &[OffsetCommit { partition: first.clone(), offset: offset.into(), generation: 0 }],
            )
            .await?;
    }
    report("commit_offsets of 1 partition", started, COMMITS);
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
