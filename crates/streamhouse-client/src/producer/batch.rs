//! A batch on its way: open, sealed, stamped, ended.

use crate::error::{ClientError, Result};
use crate::producer::delivery::{Delivery, Promise};
use bytes::Bytes;
use std::sync::Arc;
use streamhouse_core::{
    Clock, Header, TopicPartition,
    batch::{BatchBuilder, Compression, ProducerStamp},
};
use streamhouse_hooks::{Started, TraceContext, flush};

/// What a record costs in the buffer beyond its own bytes: its framing, the time of its `send()`, and the slack of both
/// vectors.
const RECORD_OVERHEAD_BYTES: usize = 48;

/// A record that is being sent.
pub(crate) struct NewRecord<'a> {
    /// `None`: the time of the `send()`.
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: &'a [u8],
    pub(crate) headers: &'a [Header],
}

impl NewRecord<'_> {
    /// Bytes of the buffer it takes until it is acknowledged.
    pub(crate) fn cost_bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|header| header.name.len() + header.value.len() + 8).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.len() + headers + RECORD_OVERHEAD_BYTES
    }
}

/// A batch that takes records.
pub(crate) struct OpenBatch {
    builder: BatchBuilder,
    promise: Arc<Promise>,
    sent_ns: Vec<u64>,
    cost_bytes: usize,
    /// The two clocks, read together: what dates every record without a second reading.
    anchor_ms: i64,
    anchor_ns: u64,
    /// Of whoever sent its first record.
    trace: Option<TraceContext>,
}

impl OpenBatch {
    /// An empty batch with room for `bytes` and `records` before it has to grow.
    pub(crate) fn new(
        partition: TopicPartition,
        compression: Compression,
        (bytes, records): (usize, usize),
        clock: &dyn Clock,
    ) -> Self {
        Self {
            builder: BatchBuilder::with_capacity(compression, bytes),
            promise: Promise::new(partition),
            sent_ns: Vec::with_capacity(records),
            cost_bytes: 0,
            anchor_ms: clock.unix_ms(),
            anchor_ns: clock.monotonic_ns(),
            trace: TraceContext::current(),
        }
    }

    pub(crate) fn fits(&self, record: &NewRecord<'_>, batch_bytes: usize) -> bool {
        self.builder.fits(record.key, record.value, record.headers, batch_bytes)
    }

    /// # Errors
    ///
    /// When the record fits no batch; this one is as it was.
    pub(crate) fn push(
        &mut self,
        record: &NewRecord<'_>,
        sent_ns: u64,
        cost_bytes: usize,
    ) -> Result<Delivery> {
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| {
            let since_anchor_ns = sent_ns.wrapping_sub(self.anchor_ns) as i64;
            self.anchor_ms + since_anchor_ns.div_euclid(1_000_000)
        });
        self.builder.push(timestamp_ms, record.key, record.value, record.headers)?;
        let delivery = self.promise.delivery(self.sent_ns.len() as u32, sent_ns);
        self.sent_ns.push(sent_ns);
        self.cost_bytes += cost_bytes;
        Ok(delivery)
    }

    pub(crate) fn records(&self) -> usize {
        self.sent_ns.len()
    }

    pub(crate) fn encoded_bytes(&self) -> usize {
        self.builder.encoded_len()
    }

    /// When its first record was sent.
    pub(crate) fn opened_ns(&self) -> u64 {
        self.sent_ns.first().copied().unwrap_or(self.anchor_ns)
    }

    pub(crate) fn seal(self) -> SealedBatch {
        SealedBatch {
            record_bytes: self.builder.record_bytes(),
            content: Content::Unstamped(self.builder),
            promise: self.promise,
            sent_ns: self.sent_ns,
            cost_bytes: self.cost_bytes,
            sealed: flush::start(),
            trace: self.trace.unwrap_or_else(TraceContext::new),
        }
    }
}

/// A batch that takes no more records and waits for its acknowledgement.
pub(crate) struct SealedBatch {
    content: Content,
    pub(crate) promise: Arc<Promise>,
    /// When each record was sent.
    pub(crate) sent_ns: Vec<u64>,
    /// Keys, values and headers.
    pub(crate) record_bytes: u64,
    pub(crate) cost_bytes: usize,
    pub(crate) sealed: Started,
    /// What its requests and events belong to.
    pub(crate) trace: TraceContext,
}

/// The bytes of a batch get their sequence when they are first sent, not when they are sealed: a batch that expires
/// before leaves no gap.
enum Content {
    Unstamped(BatchBuilder),
    /// Sent before, or about to be; without bytes only while they are finished outside of the lane's lock.
    Stamped {
        stamp: ProducerStamp,
        bytes: Bytes,
    },
}

/// A batch's content, taken to be finished.
pub(crate) enum Draft {
    Unstamped(BatchBuilder, ProducerStamp),
    /// It was sent before: a retry sends the same bytes.
    Finished(Bytes),
}

impl Draft {
    /// Checksum and compression: what takes time and needs no lock.
    pub(crate) fn finish(self) -> Bytes {
        match self {
            Draft::Unstamped(builder, stamp) => builder.finish(Some(stamp)),
            Draft::Finished(bytes) => bytes,
        }
    }
}

impl SealedBatch {
    pub(crate) fn records(&self) -> usize {
        self.sent_ns.len()
    }

    /// When its first record was sent.
    pub(crate) fn opened_ns(&self) -> u64 {
        self.sent_ns.first().copied().unwrap_or_default()
    }

    /// What it was first sent with, if it was sent.
    pub(crate) fn stamp(&self) -> Option<ProducerStamp> {
        match &self.content {
            Content::Unstamped(_) => None,
            Content::Stamped { stamp, .. } => Some(*stamp),
        }
    }

    /// Bytes on the wire, at most.
    pub(crate) fn wire_bytes_max(&self) -> usize {
        match &self.content {
            Content::Unstamped(builder) => builder.encoded_len(),
            Content::Stamped { bytes, .. } => bytes.len(),
        }
    }

    /// Takes the content to be finished with `stamp`, unless it has its stamp already.
    pub(crate) fn draft(&mut self, stamp: ProducerStamp) -> Draft {
        let taken = Content::Stamped { stamp, bytes: Bytes::new() };
        match std::mem::replace(&mut self.content, taken) {
            Content::Unstamped(builder) => Draft::Unstamped(builder, stamp),
            Content::Stamped { stamp, bytes } => {
                self.content = Content::Stamped { stamp, bytes: bytes.clone() };
                Draft::Finished(bytes)
            }
        }
    }

    /// Keeps the finished bytes for a retry.
    pub(crate) fn finished(&mut self, finished: Bytes) {
        if let Content::Stamped { bytes, .. } = &mut self.content {
            *bytes = finished;
        }
    }
}

/// A sealed batch and the error it failed with.
pub(crate) type FailedBatch = (SealedBatch, ClientError);
