//! Random histories of leases, commits and topics that are deleted, against a model of a few lines.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const PARTITIONS: u32 = 3;
const AGENTS: [&str; 2] = ["a", "b"];

/// One step of a history. Agents and partitions are indices.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Acquire {
        agent: usize,
        wanted: BTreeSet<u32>,
    },
    Renew {
        agent: usize,
        partition: u32,
        stale: bool,
    },
    Expire {
        partition: u32,
    },
    ExpireAll,
    Release {
        agent: usize,
    },
    Commit {
        agent: usize,
        ranges: HashMap<u32, Written>,
    },
    RepeatLastCommit,
    /// The topic is deleted and created anew.
    Recreate,
    Upkeep,
}

/// One range of a commit: how far its epoch is behind, how far its offset is off, its records.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    epochs_behind: u64,
    offset_ahead: i64,
    records: u64,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let agent = 0..AGENTS.len();
    let partition = 0..PARTITIONS;
    let written =
        (prop_oneof![4 => Just(0u64), 1 => Just(1)], prop_oneof![4 => Just(0i64), 1 => -1..=1i64], 1..5u64)
            .prop_map(|(epochs_behind, offset_ahead, records)| Written {
                epochs_behind,
                offset_ahead,
                records,
            });
    let ranges = proptest::collection::hash_map(partition.clone(), written, 1..=PARTITIONS as usize);
    let step = prop_oneof![
        3 => (agent.clone(), proptest::collection::btree_set(partition.clone(), 0..=PARTITIONS as usize))
            .prop_map(|(agent, wanted)| Step::Acquire { agent, wanted }),
        2 => (agent.clone(), partition.clone(), any::<bool>())
            .prop_map(|(agent, partition, stale)| Step::Renew { agent, partition, stale }),
        1 => partition.prop_map(|partition| Step::Expire { partition }),
        1 => Just(Step::ExpireAll),
        1 => agent.clone().prop_map(|agent| Step::Release { agent }),
        6 => (agent, ranges).prop_map(|(agent, ranges)| Step::Commit { agent, ranges }),
        1 => Just(Step::RepeatLastCommit),
        1 => Just(Step::Recreate),
        1 => Just(Step::Upkeep),
    ];
    vec(step, 1..40)
}

/// What the model knows of a partition.
#[derive(Clone, Debug, Default)]
struct Expected {
    epoch: u64,
    holder: Option<usize>,
    /// `(base_offset, end_offset)` of what was committed.
    ranges: Vec<(u64, u64)>,
}

impl Expected {
    fn high_watermark(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.1)
    }
}

/// Runs a history on an empty store and compares it with the model after every step.
pub(crate) async fn check(store: &dyn MetadataStore, steps: &[Step]) {
    create(store, "orders", PARTITIONS).await.unwrap();
    for name in AGENTS {
        store.register_agent(&agent(name), "host:1").await.unwrap();
    }
    let mut model = vec![Expected::default(); PARTITIONS as usize];
    let mut last: Option<(Flush, Vec<RangeOutcome>)> = None;
    for step in steps {
        match step {
            Step::Commit { agent, ranges } => last = Some(commit(store, &mut model, *agent, ranges).await),
            Step::RepeatLastCommit => {
                if let Some((flush, outcomes)) = &last {
                    assert_eq!(store.commit_flush(flush).await.unwrap(), *outcomes);
                    assert_eq!(store.flush_outcome(flush).await.unwrap().as_ref(), Some(outcomes));
                }
            }
            Step::Recreate => {
                store.delete_topic(&topic("orders")).await.unwrap();
                create(store, "orders", PARTITIONS).await.unwrap();
                for partition in &mut model {
                    // Its epoch stays: what has it is of the topic before.
                    partition.holder = None;
                    partition.ranges.clear();
                }
                if let Some((_, outcomes)) = &mut last {
                    outcomes.fill(FENCED);
                }
            }
            Step::Upkeep => assert_eq!(store.apply_retention().await.unwrap(), []),
            lease => change_leases(store, &mut model, lease).await,
        }
        compare(store, &model).await;
    }
}

async fn change_leases(store: &dyn MetadataStore, model: &mut [Expected], step: &Step) {
    match *step {
        Step::Acquire { agent: index, ref wanted } => {
            let free = wanted.iter().filter(|number| model[**number as usize].holder.is_none()).count();
            let asked: Vec<_> = wanted.iter().map(|number| at("orders", *number)).collect();
            let granted = store.acquire_leases(&agent(AGENTS[index]), HOUR, &asked).await.unwrap();
            assert_eq!(granted.len(), free);
            for lease in granted {
                let partition = &mut model[lease.partition.partition as usize];
                assert_eq!(partition.holder, None, "{} was held", lease.partition);
                assert!(lease.epoch > partition.epoch);
                assert_eq!(lease.watermarks.high_watermark, partition.high_watermark());
                partition.epoch = lease.epoch;
                partition.holder = Some(index);
            }
        }
        Step::Renew { agent: index, partition, stale } => {
            let expected = &model[partition as usize];
            let holds = expected.holder == Some(index) && !stale;
            let lease = (at("orders", partition), expected.epoch.saturating_sub(u64::from(stale)));
            let renewed = store.renew_leases(&agent(AGENTS[index]), &[lease], HOUR).await.unwrap();
            assert_eq!(renewed.len(), usize::from(holds));
        }
        Step::Expire { partition } => {
            let expected = &mut model[partition as usize];
            if let Some(index) = expected.holder.take() {
                expire(store, AGENTS[index], &at("orders", partition), expected.epoch).await;
            }
        }
        Step::ExpireAll => {
            store.expire_all_leases().await.unwrap();
            model.iter_mut().for_each(|partition| partition.holder = None);
        }
        Step::Release { agent: index } => {
            store.release_all_leases(&agent(AGENTS[index])).await.unwrap();
            model.iter_mut().filter(|held| held.holder == Some(index)).for_each(|held| held.holder = None);
        }
        Step::Commit { .. } | Step::RepeatLastCommit | Step::Recreate | Step::Upkeep => {
            unreachable!("no change of leases")
        }
    }
}

async fn commit(
    store: &dyn MetadataStore,
    model: &mut [Expected],
    agent: usize,
    ranges: &HashMap<u32, Written>,
) -> (Flush, Vec<RangeOutcome>) {
    let mut written = Vec::new();
    let mut outcomes = Vec::new();
    for (&number, Written { epochs_behind, offset_ahead, records }) in ranges {
        let partition = &mut model[number as usize];
        let epoch = partition.epoch.saturating_sub(*epochs_behind);
        let base_offset = partition.high_watermark().saturating_add_signed(*offset_ahead);
        written.push(range(&at("orders", number), epoch, base_offset, *records));
        // Invariant 1 (the first two) and invariant 2 (the third).
        let stands = partition.holder == Some(agent)
            && partition.epoch == epoch
            && partition.high_watermark() == base_offset;
        if stands {
            partition.ranges.push((base_offset, base_offset + records));
        }
        outcomes.push(if stands { COMMITTED } else { FENCED });
    }
    let flush = flush(AGENTS[agent], written);
    assert_eq!(store.commit_flush(&flush).await.unwrap(), outcomes, "{flush:?}");
    (flush, outcomes)
}

async fn compare(store: &dyn MetadataStore, model: &[Expected]) {
    let partitions = store.partitions(&topic("orders")).await.unwrap();
    for (partition, expected) in partitions.iter().zip(model) {
        let holder = partition.holder.as_ref().map(|holder| (holder.agent.as_str(), holder.epoch));
        assert_eq!(holder, expected.holder.map(|index| (AGENTS[index], expected.epoch)));
        assert_eq!(partition.watermarks.high_watermark, expected.high_watermark());
        let ranges = store.ranges(&at("orders", partition.partition), 0, u32::MAX).await.unwrap();
        let read: Vec<_> = ranges.iter().map(|range| (range.base_offset, range.end_offset)).collect();
        assert_eq!(read, expected.ranges, "dense, complete and in order");
    }
}

/// Runs many histories, each by `run`. A failing one is printed in full.
pub(crate) fn run_histories(run: impl Fn(&[Step])) {
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| run(&steps));
}
