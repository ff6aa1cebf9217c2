//! A batch on its way from the request to its answer.

use crate::{error::WriteError, grpc::Admission, unflushed::Ticket};
use bytes::Bytes;
use std::sync::Arc;
use streamhouse_core::{TopicPartition, batch::ProducerStamp};
use streamhouse_hooks::{Scope, Started, TraceContext, Write, write};
use tokio::sync::oneshot;

/// A checked batch and where it belongs.
pub(crate) struct Append {
    pub(crate) partition: TopicPartition,
    pub(crate) batch: Batch,
}

/// A checked batch: its bytes are a slice of the request's receive buffer and are not touched until they are stored.
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) records: u32,
    pub(crate) stamp: Option<ProducerStamp>,
    pub(crate) waiter: Waiter,
}

/// Who waits for a batch's outcome: the offset of its first record, or why it was not written.
pub(crate) struct Waiter {
    pub(crate) event: Event,
    pub(crate) reply: oneshot::Sender<Result<u64, WriteError>>,
    /// Held until the request's last batch is answered.
    pub(crate) _held: Arc<Held>,
}

/// What a request holds: its share of the unflushed bytes, and its place among what is unflushed.
pub(crate) struct Held {
    pub(crate) _admission: Option<Admission>,
    pub(crate) _unflushed: Ticket,
}

/// What the `write` hook is told of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) started: Started,
    pub(crate) trace: Option<TraceContext>,
}

impl Event {
    /// Tells whoever looks how the batch ended: 0 or an error kind's number.
    pub(crate) fn fire(self, scope: &Scope, status: u8) {
        let _entered = self.trace.map(TraceContext::enter);
        write(scope, Write { records: self.records, bytes: self.bytes, started: self.started, status });
    }
}

impl Waiter {
    /// Answers, and tells whoever looks. A requester that went away misses nothing: its retry finds the batch.
    pub(crate) fn resolve(self, scope: &Scope, result: Result<u64, WriteError>) {
        let status = result.as_ref().map_or_else(|error| error.kind().number(), |_| 0);
        self.event.fire(scope, status);
        let _ = self.reply.send(result);
    }

    /// Answers without an event: the service finds out more and tells.
    pub(crate) fn refuse(self, error: WriteError) {
        let _ = self.reply.send(Err(error));
    }

    /// The waiter of a batch that was received before: it stores nothing, so its event counts no records.
    pub(crate) fn of_retry(mut self) -> Waiter {
        self.event.records = 0;
        self.event.bytes = 0;
        self
    }
}
