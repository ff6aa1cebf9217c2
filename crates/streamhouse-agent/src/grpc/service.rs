//! `Produce`: checks batches, hands them to the flusher, answers when each is in the log or refused.

use super::Admission;
use crate::append::{Append, Batch, Event, Held, Waiter};
use crate::error::WriteError;
use crate::flush::Command;
use crate::unflushed::Unflushed;
use bytes::Bytes;
use std::sync::Arc;
use streamhouse_core::batch::BatchHeader;
use streamhouse_core::limits::{BATCH_BYTES_MAX, REQUEST_BYTES_MAX};
use streamhouse_core::{AgentId, TopicName, TopicPartition};
use streamhouse_hooks::{Scope, TraceContext, write};
use streamhouse_metadata::{MetadataError, MetadataStore};
use streamhouse_proto::v1::agent_server::Agent;
use streamhouse_proto::v1::{BatchResult, ProduceBatch, ProduceRequest, ProduceResponse};
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::{Request, Response, Status};

/// The gRPC service. One, shared by all connections.
pub(crate) struct Service {
    pub(crate) agent: AgentId,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) flusher: mpsc::Sender<Command>,
    /// Wakes the lease keeper: somebody wants a partition that nobody leases.
    pub(crate) wanted: Arc<Notify>,
    /// For batches that no partition writer has seen.
    pub(crate) scope: Scope,
    pub(crate) unflushed: Arc<Unflushed>,
}

/// A batch of a request: refused, or on its way.
enum Outcome {
    Refused(Event, WriteError),
    Waits(Event, oneshot::Receiver<Result<u64, WriteError>>),
}

#[tonic::async_trait]
impl Agent for Service {
    async fn produce(
        &self,
        mut request: Request<ProduceRequest>,
    ) -> Result<Response<ProduceResponse>, Status> {
        let started = write::start();
        let admission = request.extensions_mut().remove::<Arc<Admission>>();
        let batches = request.into_inner().batches;
        let bytes: usize = batches.iter().map(|batch| batch.batch.len()).sum();
        let mut admission = admission.and_then(Arc::into_inner);
        if let Some(admission) = &mut admission {
            admission.shrink(batches.len());
        }
        let held = Arc::new(Held { _admission: admission, _unflushed: self.unflushed.begin(bytes) });
        let trace = TraceContext::current();
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut appends = Vec::with_capacity(batches.len());
        for batch in batches {
            let own = TraceContext::parse(&batch.traceparent);
            let mut event = Event { records: 0, bytes: batch.record_bytes, started, trace: own.or(trace) };
            match check(batch, bytes, &mut event) {
                Ok((partition, header, bytes)) => {
                    let (reply, outcome) = oneshot::channel();
                    let waiter = Waiter { event, reply, _held: Arc::clone(&held) };
                    let batch = Batch { bytes, records: header.records, stamp: header.producer, waiter };
                    appends.push(Append { partition, batch });
                    outcomes.push(Outcome::Waits(event, outcome));
                }
                Err(error) => outcomes.push(Outcome::Refused(event, error)),
            }
        }
        drop(held);
        // Without a flusher the waiters are dropped, which answers them.
        let _ = self.flusher.send(Command::Append(appends)).await;
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            results.push(self.result(outcome).await);
        }
        Ok(Response::new(ProduceResponse { results }))
    }
}

/// What can be checked of a batch without knowing its partition. The records are counted as soon as they are known.
fn check(
    batch: ProduceBatch,
    request_bytes: usize,
    event: &mut Event,
) -> Result<(TopicPartition, BatchHeader, Bytes), WriteError> {
    let ProduceBatch { topic, partition, batch, .. } = batch;
    if request_bytes > REQUEST_BYTES_MAX {
        return Err(WriteError::RequestTooLarge { bytes: request_bytes });
    }
    if batch.len() > BATCH_BYTES_MAX {
        return Err(WriteError::BatchTooLarge { bytes: batch.len() });
    }
    let header = BatchHeader::check(&batch)?;
    event.records = header.records.into();
    let topic = TopicName::new(&topic)?;
    Ok((TopicPartition { topic, partition }, header, batch))
}

impl Service {
    async fn result(&self, outcome: Outcome) -> BatchResult {
        let error = match outcome {
            Outcome::Refused(event, error) => self.refused(event, error),
            Outcome::Waits(event, outcome) => match outcome.await {
                Ok(Ok(base_offset)) => {
                    return BatchResult { status: 0, message: String::new(), base_offset };
                }
                Ok(Err(WriteError::NotLeased(partition))) => {
                    self.refused(event, self.why_not_leased(partition).await)
                }
                Ok(Err(error)) => error,
                // The flusher ended before it came to this batch.
                Err(_) => self.refused(event, WriteError::ShuttingDown),
            },
        };
        BatchResult { status: error.kind().number().into(), message: error.to_string(), base_offset: 0 }
    }

    /// Tells whoever looks of a batch that no partition writer has seen.
    fn refused(&self, event: Event, error: WriteError) -> WriteError {
        event.fire(&self.scope, error.kind().number());
        error
    }

    /// Whether the partition exists, and who leases it.
    async fn why_not_leased(&self, partition: TopicPartition) -> WriteError {
        let partitions = match self.metadata.partitions(&partition.topic).await {
            Ok(partitions) => partitions,
            Err(error) => return WriteError::Lookup(Arc::new(error)),
        };
        let Some(info) = partitions.iter().find(|info| info.partition == partition.partition) else {
            let (topic, partitions) = (partition.topic.to_string(), partitions.len() as u32);
            let error =
                MetadataError::PartitionNotFound { topic, partition: partition.partition, partitions };
            return WriteError::Lookup(Arc::new(error));
        };
        match &info.holder {
            Some(holder) if holder.agent != self.agent => WriteError::HeldElsewhere {
                partition,
                holder: holder.agent.to_string(),
                address: holder.address.clone(),
            },
            // Also when the lease is this agent's and its writer is not there yet, or not any more.
            Some(_) | None => {
                self.wanted.notify_one();
                WriteError::Unassigned(partition)
            }
        }
    }
}
