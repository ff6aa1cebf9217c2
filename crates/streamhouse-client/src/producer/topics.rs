//! The topics a producer has sent to.

use crate::producer::{
    lane::Lane,
    partitioner::{self, Sticky},
};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use streamhouse_core::{Partition, TopicName, TopicPartition};
use streamhouse_hooks::Instance;
use streamhouse_metadata::MetadataError;

/// What `send()` looks up. It holds the read lock while it adds its record, so that whoever has had the write lock to
/// set `closed` knows that no record comes any more.
#[derive(Default)]
pub(crate) struct Topics {
    pub(crate) by_name: HashMap<Box<str>, Topic>,
    pub(crate) closed: bool,
}

/// A topic with a lane for each partition that was used.
pub(crate) struct Topic {
    name: TopicName,
    lanes: Box<[OnceLock<Arc<Lane>>]>,
    sticky: Arc<Sticky>,
    producer_id: u64,
}

impl Topics {
    /// Every lane that was used.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.by_name.values().flat_map(|topic| topic.lanes.iter().filter_map(OnceLock::get))
    }
}

impl Topic {
    pub(crate) fn new(name: TopicName, partitions: u32, producer_id: u64) -> Self {
        // Producers begin at different partitions, so that many small ones spread.
        let start = (producer_id % u64::from(partitions.max(1))) as u32;
        Self {
            name,
            lanes: (0..partitions).map(|_| OnceLock::new()).collect(),
            sticky: Arc::new(Sticky::new(start, partitions.max(1))),
            producer_id,
        }
    }

    /// The lane of a record: of the partition asked for, else its key's, else the sticky one.
    pub(crate) fn lane(
        &self,
        partition: Option<Partition>,
        key: Option<&[u8]>,
        instance: &Instance,
    ) -> Result<&Arc<Lane>, MetadataError> {
        let partitions = self.lanes.len() as u32;
        let number = match (partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partitioner::of_key(key, partitions),
            (None, None) => self.sticky.current(),
        };
        let Some(lane) = self.lanes.get(number as usize) else {
            let topic = self.name.to_string();
            return Err(MetadataError::PartitionNotFound { topic, partition: number, partitions });
        };
        Ok(lane.get_or_init(|| {
            let partition = TopicPartition { topic: self.name.clone(), partition: number };
            Lane::new(partition, Arc::clone(&self.sticky), self.producer_id, instance)
        }))
    }
}
