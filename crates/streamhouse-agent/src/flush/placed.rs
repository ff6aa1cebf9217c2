//! A partition's batches that have their offsets and are not answered yet.

use super::window::ProducerEpoch;
use crate::append::Waiter;
use crate::error::WriteError;
use std::{collections::BTreeMap, sync::Arc};
use streamhouse_core::batch::ProducerStamp;
use streamhouse_hooks::{Scope, TraceContext};
use streamhouse_metadata::SequencedBatch;

/// Batches of one writer, with dense offsets, in one segment.
pub(super) struct PlacedBatches {
    /// [`PartitionWriter::id`](super::writer::PartitionWriter::id).
    pub(super) writer: u64,
    pub(super) epoch: u64,
    pub(super) base_offset: u64,
    scope: Arc<Scope>,
    batches: Vec<PlacedBatch>,
}

struct PlacedBatch {
    base_offset: u64,
    records: u32,
    stamp: Option<ProducerStamp>,
    waiter: Waiter,
}

impl PlacedBatches {
    pub(super) fn new(writer: u64, epoch: u64, base_offset: u64, scope: Arc<Scope>) -> PlacedBatches {
        PlacedBatches { writer, epoch, base_offset, scope, batches: Vec::new() }
    }

    pub(super) fn push(
        &mut self,
        base_offset: u64,
        records: u32,
        stamp: Option<ProducerStamp>,
        waiter: Waiter,
    ) {
        self.batches.push(PlacedBatch { base_offset, records, stamp, waiter });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The trace of the first batch that has one.
    pub(super) fn trace(&self) -> Option<TraceContext> {
        self.batches.iter().find_map(|batch| batch.waiter.event.trace)
    }

    /// Bytes of keys, values and headers, as the producers stated them.
    pub(super) fn record_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.waiter.event.bytes).sum()
    }

    /// The batches that carry a producer's sequence, by producer, in their order.
    pub(super) fn by_producer(&self) -> BTreeMap<ProducerEpoch, Vec<SequencedBatch>> {
        let mut by_producer = BTreeMap::<ProducerEpoch, Vec<SequencedBatch>>::new();
        for PlacedBatch { base_offset, records, stamp, .. } in &self.batches {
            if let Some(ProducerStamp { producer_id, epoch, base_sequence }) = *stamp {
                let (records, base_offset) = (*records, *base_offset);
                let batch = SequencedBatch { base_sequence, records, base_offset };
                by_producer.entry((producer_id, epoch)).or_default().push(batch);
            }
        }
        by_producer
    }

    /// Answers every batch with its offset.
    pub(super) fn acknowledge(self) {
        for batch in self.batches {
            batch.waiter.resolve(&self.scope, Ok(batch.base_offset));
        }
    }

    /// Answers every batch with the error.
    pub(super) fn fail(self, error: &WriteError) {
        for batch in self.batches {
            batch.waiter.resolve(&self.scope, Err(error.clone()));
        }
    }
}
