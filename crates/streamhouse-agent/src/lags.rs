//! How far behind every group is, as gauges of the agent that leases the partition: so the lag of a group of which nobody
//! runs any more stays visible.

use std::collections::HashMap;
use std::{sync::Arc, time::Duration};
use streamhouse_core::{GroupId, TopicPartition};
use streamhouse_hooks::{Gauge, GaugeId, Instance};
use streamhouse_metadata::{GroupOffset, MetadataStore};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Groups and partitions that have gauges, three each: with some room for others they fit what a probe serves of a process.
const LAGS_MAX: usize = 1500;

/// The task that publishes them.
pub(crate) struct Lags {
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) instance: Instance,
    /// What the agent leases, by topic and number.
    pub(crate) leases: watch::Receiver<Arc<[TopicPartition]>>,
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
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut published = Published::default();
        let mut failing = false;
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                changed = self.leases.changed() => match changed {
                    Ok(()) => {
                        published.retire(&self.leases.borrow_and_update());
                        continue;
                    }
                    Err(_) => return,
                },
            }
            let partitions = Arc::clone(&self.leases.borrow_and_update());
            let lags = match partitions.is_empty() {
                true => Ok(Vec::new()),
                false => self.metadata.group_lags(&partitions).await,
            };
            let failed = lags.is_err();
            match lags {
                Ok(lags) => published.update(lags, &self.instance),
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
    /// Takes back what is of partitions that the agent does not lease any more: their next holder publishes it.
    fn retire(&mut self, leased: &[TopicPartition]) {
        self.lags.retain(|(_, partition), _| leased.binary_search(partition).is_ok());
    }

    fn update(&mut self, lags: Vec<(GroupId, GroupOffset)>, instance: &Instance) {
        let count = lags.len();
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
                "more groups and partitions than have gauges: the lag of some is not shown"
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
        if let Some(committed) = offset.committed {
            let new = || gauge(instance, GaugeId::GroupCommittedOffset, key);
            self.committed.get_or_insert_with(new).set_now(committed);
        }
    }
}

fn gauge(instance: &Instance, id: GaugeId, (group, partition): &(GroupId, TopicPartition)) -> Gauge {
    let TopicPartition { topic, partition } = partition;
    instance.group_gauge(id, group.as_str(), topic.as_str(), Some(*partition))
}
