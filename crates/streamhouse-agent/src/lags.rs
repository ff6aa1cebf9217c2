//! How far behind every group is, as gauges of the agent that leases the partition: so the lag of a group of which nobody
//! runs any more stays visible.

use std::collections::HashMap;
use std::{cmp::Reverse, pin::pin, sync::Arc, time::Duration};
use streamhouse_core::{GroupId, TopicPartition};
use streamhouse_hooks::{Gauge, GaugeId, Instance};
use streamhouse_metadata::{GroupOffset, MetadataStore};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Groups and partitions that have gauges, three each: with some room for others they fit what a probe serves of a process.
const LAGS_MAX: usize = 1500;

type Leases = watch::Receiver<Arc<[TopicPartition]>>;

/// The task that publishes them.
pub(crate) struct Lags {
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) instance: Instance,
    /// What the agent leases, by topic and number.
    pub(crate) leases: Leases,
    /// From one look to the next.
    pub(crate) interval: Duration,
}

/// The gauges of a group on a partition.
struct Lag {
    records: Gauge,
    milliseconds: Gauge,
    /// Once the group has committed.
    committed: Option<Gauge>,
}

/// What is published.
#[derive(Default)]
struct Published {
    lags: HashMap<(GroupId, TopicPartition), Lag>,
    /// More were to be published than may be, and that was told.
    is_over: bool,
}

impl Lags {
    /// Publishes, until the agent has ended.
    pub(crate) async fn run(self) {
        let Lags { metadata, instance, mut leases, interval: every } = self;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut published = Published::default();
        let mut failing = false;
        while published.meanwhile(&mut leases, ticks.tick()).await.is_some() {
            let partitions = Arc::clone(&leases.borrow());
            let asked = async {
                match partitions.is_empty() {
                    true => Ok(Vec::new()),
                    false => metadata.group_lags(&partitions).await,
                }
            };
            let Some(lags) = published.meanwhile(&mut leases, asked).await else { return };
            let failed = lags.is_err();
            match lags {
                Ok(lags) => published.update(lags, &leases.borrow(), &instance),
                Err(error) if failing => tracing::debug!(%error, "the lag of groups is still not known"),
                Err(error) => {
                    tracing::warn!(%error, "the lag of groups is not known; what was known last stays published");
                }
            }
            failing = failed;
        }
    }
}

impl Published {
    /// Waits for `work`, and meanwhile takes back at once what is of partitions that the agent leases no more: their next
    /// holder publishes it. `None` when the agent has ended.
    async fn meanwhile<T>(&mut self, leases: &mut Leases, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                changed = leases.changed() => {
                    changed.ok()?;
                    let leased = leases.borrow_and_update();
                    self.lags.retain(|(_, partition), _| leased.binary_search(partition).is_ok());
                }
                done = &mut work => return Some(done),
            }
        }
    }

    fn update(
        &mut self,
        mut lags: Vec<(GroupId, GroupOffset)>,
        leased: &[TopicPartition],
        instance: &Instance,
    ) {
        // Some may have moved on since it was asked.
        lags.retain(|(_, offset)| leased.binary_search(&offset.partition).is_ok());
        let count = lags.len();
        if count > LAGS_MAX {
            lags.sort_by_key(|(_, offset)| Reverse(offset.lag_records));
        }
        let mut before = std::mem::take(&mut self.lags);
        for (group, offset) in lags.into_iter().take(LAGS_MAX) {
            let key = (group, offset.partition.clone());
            let mut lag = before.remove(&key).unwrap_or_else(|| Lag::new(instance, &key));
            lag.publish(instance, &key, &offset);
            self.lags.insert(key, lag);
        }
        let is_over = count > LAGS_MAX;
        if is_over && !self.is_over {
            tracing::warn!(
                count,
                max = LAGS_MAX,
                "more groups and partitions than have gauges: those that are least behind are not shown"
            );
        }
        self.is_over = is_over;
    }
}

impl Lag {
    fn new(instance: &Instance, key: &(GroupId, TopicPartition)) -> Lag {
        Lag {
            records: gauge(instance, GaugeId::GroupLagRecords, key),
            milliseconds: gauge(instance, GaugeId::GroupLagMilliseconds, key),
            committed: None,
        }
    }

    fn publish(&mut self, instance: &Instance, key: &(GroupId, TopicPartition), offset: &GroupOffset) {
        self.records.set_now(offset.lag_records);
        self.milliseconds.set_now(u64::try_from(offset.lag.as_millis()).unwrap_or(u64::MAX));
        let Some(committed) = offset.committed else {
            self.committed = None;
            return;
        };
        let new = || gauge(instance, GaugeId::GroupCommittedOffset, key);
        self.committed.get_or_insert_with(new).set_now(committed);
    }
}

fn gauge(instance: &Instance, id: GaugeId, (group, partition): &(GroupId, TopicPartition)) -> Gauge {
    let TopicPartition { topic, partition } = partition;
    instance.group_gauge(id, group.as_str(), topic.as_str(), Some(*partition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use streamhouse_hooks::Role;
    use streamhouse_metadata::Watermarks;
    use tokio::time::timeout;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: "orders".parse().unwrap(), partition }
    }

    fn lag(partition: u32, lag_records: u64) -> (GroupId, GroupOffset) {
        let offset = GroupOffset {
            partition: at(partition),
            committed: None,
            watermarks: Watermarks { log_start: 0, high_watermark: lag_records },
            lag_records,
            lag: Duration::ZERO,
        };
        ("billing".parse().unwrap(), offset)
    }

    fn partitions(published: &Published) -> Vec<u32> {
        let mut partitions: Vec<_> = published.lags.keys().map(|(_, at)| at.partition).collect();
        partitions.sort_unstable();
        partitions
    }

    #[tokio::test]
    async fn what_moves_on_is_taken_back_at_once_though_the_database_is_slow() {
        let instance = Instance::new(Role::Agent, "agent-1", "");
        let all: Vec<_> = (0..3).map(at).collect();
        let (leased, mut leases) = watch::channel::<Arc<[TopicPartition]>>(all.clone().into());
        let mut published = Published::default();
        published.update((0..3).map(|partition| lag(partition, 5)).collect(), &all, &instance);
        assert_eq!(partitions(&published), [0, 1, 2]);

        leased.send_replace(all[1..].into());
        let waits = published.meanwhile(&mut leases, pending::<()>());
        assert!(timeout(Duration::from_millis(20), waits).await.is_err(), "the database does not answer");
        assert_eq!(partitions(&published), [1, 2]);

        // An answer from before the next move does not bring back what has moved.
        leased.send_replace(all[2..].into());
        published.meanwhile(&mut leases, std::future::ready(())).await.unwrap();
        published.update(vec![lag(1, 5), lag(2, 6)], &leases.borrow(), &instance);
        assert_eq!(partitions(&published), [2]);
        drop(leased);
        assert_eq!(published.meanwhile(&mut leases, pending::<()>()).await, None);
    }

    #[test]
    fn of_too_many_those_that_are_furthest_behind_are_told() {
        let instance = Instance::new(Role::Agent, "agent-1", "");
        let count = LAGS_MAX as u32 + 10;
        let all: Vec<_> = (0..count).map(at).collect();
        let mut published = Published::default();
        published.update(
            (0..count).map(|partition| lag(partition, partition.into())).collect(),
            &all,
            &instance,
        );
        assert_eq!(partitions(&published), (10..count).collect::<Vec<_>>());
    }
}
