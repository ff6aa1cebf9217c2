//! Who holds the partitions, and how often that is looked up.
//!
//! One lookup gives the holders of a whole topic and serves every lane of it that waits. Lookups of a topic never
//! overlap, and the pause between two grows while they leave a lane without a holder: a thousand partitions that move at
//! one time are no more work for the metadata store than one.

use crate::backoff::Backoff;
use crate::producer::lane::Lane;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use streamhouse_core::{AsTyped, ErrorKind, TopicName, TopicPartition};
use streamhouse_metadata::{MetadataError, PartitionInfo};

/// How long the metadata store may take to answer: longer than a remote one tries by itself, whose error says more.
const METADATA_TIMEOUT: Duration = Duration::from_secs(12);
const NO_HOLDER: &str =
    "no agent holds the partition's lease; start one, or look at the log of the one that should";

/// What the metadata store did not tell, and why.
#[derive(Clone, Debug)]
pub(crate) struct NotTold {
    pub(crate) kind: ErrorKind,
    pub(crate) cause: Arc<str>,
}

/// The holders of the topics' partitions, as far as they are known, and who waits to know more.
#[derive(Default)]
pub(crate) struct Holders {
    topics: HashMap<TopicName, Topic>,
}

#[derive(Default)]
struct Topic {
    /// By partition.
    addresses: Vec<Option<Arc<str>>>,
    /// Lanes that wait for a holder.
    waiting: Vec<Arc<Lane>>,
    /// A lookup is under way.
    asked: bool,
    /// Lookups in a row that left somebody waiting.
    failures: u32,
    /// No lookup before this time.
    not_before_ns: u64,
}

impl Holders {
    /// Where the partition's holder is, if that is known.
    pub(crate) fn address(&self, partition: &TopicPartition) -> Option<&Arc<str>> {
        self.topics.get(&partition.topic)?.addresses.get(partition.partition as usize)?.as_ref()
    }

    /// Every address that a partition points to.
    pub(crate) fn addresses(&self) -> HashSet<&str> {
        self.topics
            .values()
            .flat_map(|topic| topic.addresses.iter().flatten())
            .map(|address| &**address)
            .collect()
    }

    /// The holder is not where it was thought to be.
    pub(crate) fn forget(&mut self, partition: &TopicPartition) {
        let topic = self.topics.get_mut(&partition.topic);
        if let Some(holder) = topic.and_then(|topic| topic.addresses.get_mut(partition.partition as usize)) {
            *holder = None;
        }
    }

    /// Lets the lane wait for its holder.
    pub(crate) fn wait(&mut self, lane: &Arc<Lane>) {
        lane.ask();
        self.topics.entry(lane.partition.topic.clone()).or_default().waiting.push(Arc::clone(lane));
    }

    /// The topics to look up now, each until [`found`](Self::found), and when there will be more.
    pub(crate) fn due(&mut self, now_ns: u64) -> (Vec<TopicName>, Option<u64>) {
        let (mut due, mut next_ns) = (Vec::new(), None);
        for (name, topic) in &mut self.topics {
            // Who has given up on everything waits for nothing.
            topic.waiting.retain(|lane| {
                let waits = lane.pending() > 0;
                if !waits {
                    lane.answered(None);
                }
                waits
            });
            if topic.asked || topic.waiting.is_empty() {
                continue;
            }
            if topic.not_before_ns <= now_ns {
                topic.asked = true;
                due.push(name.clone());
            } else {
                next_ns = next_ns.into_iter().chain([topic.not_before_ns]).min();
            }
        }
        (due, next_ns)
    }

    /// Takes a lookup's answer. Gives the lanes that wait for something that will not come, and why.
    pub(crate) fn found(
        &mut self,
        name: &TopicName,
        found: Result<Vec<PartitionInfo>, NotTold>,
        now_ns: u64,
        backoff: &mut Backoff,
    ) -> Vec<(Arc<Lane>, NotTold)> {
        let Some(topic) = self.topics.get_mut(name) else { return Vec::new() };
        topic.asked = false;
        let mut in_vain = Vec::new();
        let cause: Arc<str> = match found {
            Ok(partitions) => {
                let addresses = partitions.into_iter().map(|info| Some(info.holder?.address.into()));
                topic.addresses = addresses.collect();
                NO_HOLDER.into()
            }
            // Asked again, it would say the same.
            Err(not_told) if matches!(not_told.kind, ErrorKind::Invalid | ErrorKind::NotFound) => {
                in_vain.extend(topic.waiting.drain(..).map(|lane| (lane, not_told.clone())));
                not_told.cause
            }
            Err(not_told) => not_told.cause,
        };
        topic.waiting.retain(|lane| {
            let is_known = matches!(topic.addresses.get(lane.partition.partition as usize), Some(Some(_)));
            if is_known {
                lane.answered(None);
            } else {
                lane.still_asking(&cause);
            }
            !is_known
        });
        topic.failures = if topic.waiting.is_empty() { 0 } else { topic.failures.saturating_add(1) };
        let pause = backoff.pause(topic.failures.max(1));
        topic.not_before_ns = now_ns.saturating_add(pause.as_nanos() as u64);
        in_vain
    }
}

/// What the metadata store answers, if it does in time.
pub(crate) async fn in_time<T>(asked: impl Future<Output = Result<T, MetadataError>>) -> Result<T, NotTold> {
    match tokio::time::timeout(METADATA_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| NotTold { kind: error.kind(), cause: error.to_string().into() }),
        Err(_) => {
            let cause = format!("the metadata store did not answer within {}", AsTyped(METADATA_TIMEOUT));
            Err(NotTold { kind: ErrorKind::Unavailable, cause: cause.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::{batch::NewRecord, builder::Config, partitioner::Sticky};
    use streamhouse_core::ManualClock;
    use streamhouse_hooks::{Instance, Role};
    use streamhouse_metadata::{LeaseHolder, Watermarks};

    const SECOND_NS: u64 = 1_000_000_000;

    /// A lane that has a record, so that it waits for something.
    fn lane(partition: u32) -> Arc<Lane> {
        let partition = TopicPartition { topic: TopicName::new("orders").unwrap(), partition };
        let lane =
            Lane::new(partition, Arc::new(Sticky::new(0, 1)), 7, &Instance::new(Role::Producer, "test", ""));
        let record = NewRecord { timestamp_ms: None, key: None, value: b"v", headers: &[] };
        lane.push(&record, (0, record.cost_bytes()), &Config::default(), &ManualClock::default()).unwrap();
        lane
    }

    fn infos(held: std::ops::Range<u32>) -> Vec<PartitionInfo> {
        let holder = || LeaseHolder { agent: "a".parse().unwrap(), address: "a:1".to_owned(), epoch: 1 };
        let info = |partition| PartitionInfo {
            partition,
            watermarks: Watermarks { log_start: 0, high_watermark: 0 },
            holder: held.contains(&partition).then(holder),
        };
        (0..1000).map(info).collect()
    }

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(8), 7)
    }

    #[test]
    fn a_thousand_partitions_are_one_lookup_and_the_next_waits_longer() {
        let (mut holders, mut backoff) = (Holders::default(), backoff());
        (0..1000).for_each(|partition| holders.wait(&lane(partition)));
        let (due, _) = holders.due(0);
        assert_eq!(due.len(), 1);
        assert_eq!(holders.due(0), (vec![], None), "lookups of a topic do not overlap");
        assert!(holders.found(&due[0], Ok(infos(0..999)), 0, &mut backoff).is_empty());
        assert_eq!(holders.address(&lane(998).partition).map(|address| &**address), Some("a:1"));
        let (none, next_ns) = holders.due(0);
        assert!(
            none.is_empty() && next_ns.unwrap() >= SECOND_NS / 2,
            "one is still without a holder: {next_ns:?}"
        );
        assert_eq!(holders.due(SECOND_NS).0.len(), 1);
        holders.found(&due[0], Ok(infos(0..0)), SECOND_NS, &mut backoff);
        assert!(holders.due(SECOND_NS).1.unwrap() >= 2 * SECOND_NS, "the second pause is longer");
        assert_eq!(holders.addresses().len(), 0);
    }

    #[test]
    fn who_may_not_ask_is_told_and_what_passes_is_asked_again() {
        let (mut holders, mut backoff) = (Holders::default(), backoff());
        holders.wait(&lane(0));
        let topic = holders.due(0).0.remove(0);
        let not_told = |kind| Err(NotTold { kind, cause: "because".into() });
        assert!(holders.found(&topic, not_told(ErrorKind::Unavailable), 0, &mut backoff).is_empty());
        assert_eq!(holders.due(SECOND_NS).0.len(), 1);
        let told = holders.found(&topic, not_told(ErrorKind::Invalid), SECOND_NS, &mut backoff);
        assert_eq!((told.len(), told[0].1.kind), (1, ErrorKind::Invalid));
        assert_eq!(holders.due(u64::MAX), (vec![], None), "nobody waits any more");
    }
}
