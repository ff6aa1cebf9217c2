//! A reader that follows every partition, with the code that consumers read with.

use crate::bug::Bug;
use crate::database::Database;
use crate::objects::Store;
use crate::producers::partition;
use crate::world::{Node, World, pause};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use std::sync::Arc;
use streamhouse_core::TopicPartition;
use streamhouse_hooks::{Instance, Role};
use streamhouse_metadata::{SegmentRange, SegmentRanges};
use streamhouse_storage::{PartitionReader, RangeLocation, SegmentStore};

/// Ranges asked for at once.
const RANGES_MAX: u32 = 4;
/// Longest pause between two looks.
const PAUSE_MS_MAX: u64 = 2000;
/// What one read takes at most.
const READ_RECORDS_MAX: usize = 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// The reader.
pub(crate) struct Reader {
    world: Arc<World>,
    database: Database,
    objects: Arc<Store>,
    cursors: Vec<(TopicPartition, u64, PartitionReader)>,
}

impl Reader {
    pub(crate) fn new(world: Arc<World>) -> Reader {
        let objects = Store::new(Arc::clone(&world), Node::Reader);
        let instance = Instance::new(Role::Consumer, "reader", "");
        let segments = SegmentStore::new(Arc::clone(&objects) as Arc<dyn ObjectStore>, &instance);
        let cursor =
            |number| (partition(number), 0, PartitionReader::new(segments.clone(), partition(number)));
        let cursors = (0..world.plan.partitions).map(cursor).collect();
        Reader { database: Database::new(Arc::clone(&world), Node::Reader), world, objects, cursors }
    }

    /// Reads, for ever.
    pub(crate) async fn follow(&mut self) {
        loop {
            pause(self.world.up_to_ms(PAUSE_MS_MAX)).await;
            self.catch_up().await;
        }
    }

    /// Reads every partition to its end.
    pub(crate) async fn catch_up(&mut self) {
        if self.world.bug == Some(Bug::ReadsUncommitted) {
            let newest = self.world.state().objects.newest().map(|(key, _)| Path::from(key.as_str()));
            if let Some(key) = newest {
                let _ = self.objects.get(&key).await;
            }
        }
        for (at, offset, reader) in &mut self.cursors {
            loop {
                let Ok(ranges) = self.database.ranges(at, *offset, RANGES_MAX).await else { break };
                if ranges.is_empty() {
                    break;
                }
                for range in ranges {
                    *offset = range.end_offset.min((*offset).max(range.base_offset));
                    if let Err(what) = read(&self.world, at, offset, reader, range).await {
                        return self.world.step(|state, _| state.witness.violated(5, what));
                    }
                }
            }
        }
    }

    /// Everything that there is was read.
    pub(crate) async fn ends(&mut self) {
        self.catch_up().await;
        for (at, offset, _) in &self.cursors {
            self.world.step(|state, _| {
                let end = state.witness.end(at);
                if *offset != end {
                    state.witness.violated(2, format!("{at} was read to {offset}, and ends at {end}"));
                }
            });
        }
    }
}

/// Reads a range to its end; what is wrong with it.
async fn read(
    world: &World,
    at: &TopicPartition,
    next: &mut u64,
    reader: &mut PartitionReader,
    range: SegmentRange,
) -> Result<(), String> {
    let SegmentRange {
        segment,
        object,
        base_offset,
        end_offset,
        position,
        bytes,
        index_position,
        index_bytes,
        ..
    } = range;
    let location = RangeLocation {
        segment,
        object,
        base_offset,
        end_offset,
        position,
        bytes,
        index_position,
        index_bytes,
    };
    let unreadable = |error| format!("{at} cannot be read: {error}");
    reader.open(location, *next).map_err(unreadable)?;
    while !reader.is_at_end() {
        let mut records = Vec::new();
        reader
            .read(READ_RECORDS_MAX, READ_BYTES_MAX, |offset, record| records.push((offset, record.value)))
            .await
            .map_err(unreadable)?;
        let state = world.state();
        for (offset, value) in records {
            if offset != *next || state.witness.record(at, offset) != Some(&value) {
                return Err(format!(
                    "{at} has another record at {offset} than was committed, or out of turn"
                ));
            }
            *next += 1;
        }
    }
    Ok(())
}
