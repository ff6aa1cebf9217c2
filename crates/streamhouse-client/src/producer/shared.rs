//! What `send()` and the dispatcher share.

use crate::error::{ClientError, Result};
use crate::lock;
use crate::producer::batch::{NewRecord, SealedBatch};
use crate::producer::builder::Config;
use crate::producer::delivery::{Delivery, Outcome};
use crate::producer::lane::{Lane, Pushed, Wake, check_size};
use crate::producer::topics::{Topic, Topics};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use streamhouse_core::{Clock, Partition, TopicName};
use streamhouse_hooks::{Flush, Instance, Send, flush, send};
use streamhouse_metadata::ClientStore;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// A producer, without its handle.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn ClientStore>,
    pub(crate) instance: Instance,
    pub(crate) producer_id: u64,
    topics: RwLock<Topics>,
    /// A permit is a byte of the buffer. Fair: whoever waited first gets room first.
    pub(crate) buffer: Semaphore,
    /// Calls of `send()` that wait for room: while there are any, linger would only prolong it.
    waiting: AtomicUsize,
    /// Lanes that the dispatcher does not have on its list yet.
    enlisted: Mutex<Vec<Arc<Lane>>>,
    pub(crate) wake: Notify,
    /// A batch was sealed: the next `send()` lets other tasks run, for a loop that never awaits anything else.
    yield_due: AtomicBool,
    pub(crate) totals: Totals,
}

#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        store: Arc<dyn ClientStore>,
        instance: Instance,
        producer_id: u64,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            buffer: Semaphore::new(config.buffer_bytes),
            config,
            clock,
            store,
            instance,
            producer_id,
            topics: RwLock::default(),
            waiting: AtomicUsize::new(0),
            enlisted: Mutex::default(),
            wake: Notify::new(),
            yield_due: AtomicBool::new(false),
            totals: Totals::default(),
        })
    }

    pub(crate) fn topics(&self) -> RwLockReadGuard<'_, Topics> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn topics_mut(&self) -> RwLockWriteGuard<'_, Topics> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a record, or says why not.
    pub(crate) async fn send(
        &self,
        topic: &str,
        partition: Option<Partition>,
        record: NewRecord<'_>,
    ) -> Result<Delivery> {
        let sent_ns = self.clock.monotonic_ns();
        let cost_bytes = check_size(&record, self.config.buffer_bytes)?;
        if self.yield_due.load(Ordering::Relaxed) && self.yield_due.swap(false, Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        let room = match self.buffer.try_acquire_many(cost_bytes as u32) {
            Ok(room) => room,
            Err(_) => self.wait_for_room(cost_bytes as u32).await?,
        };
        // Nothing awaits between here and the return once the record is in: a call that is cancelled has sent nothing.
        loop {
            if let Some(delivery) = self.push(topic, partition, &record, (sent_ns, cost_bytes))? {
                room.forget();
                return Ok(delivery);
            }
            self.find_topic(topic).await?;
        }
    }

    /// Adds a record to its batch; `None` when the topic is not known here yet.
    fn push(
        &self,
        topic: &str,
        partition: Option<Partition>,
        record: &NewRecord<'_>,
        sent_and_cost: (u64, usize),
    ) -> Result<Option<Delivery>> {
        let topics = self.topics();
        if topics.closed {
            return Err(ClientError::Closed);
        }
        let Some(topic) = topics.by_name.get(topic) else { return Ok(None) };
        let lane = topic.lane(partition, record.key, &self.instance)?;
        let Pushed { delivery, sealed, wake } =
            lane.push(record, sent_and_cost, &self.config, &*self.clock)?;
        if sealed {
            self.yield_due.store(true, Ordering::Relaxed);
        }
        match wake {
            Wake::No => {}
            Wake::Now => self.wake.notify_one(),
            Wake::Enlist => {
                lock(&self.enlisted).push(Arc::clone(lane));
                self.wake.notify_one();
            }
        }
        Ok(Some(delivery))
    }

    #[cold]
    async fn find_topic(&self, topic: &str) -> Result<()> {
        let topic = self.store.topic(&TopicName::new(topic)?).await?;
        let mut topics = self.topics_mut();
        topics
            .by_name
            .entry(topic.name.as_str().into())
            .or_insert_with(|| Topic::new(topic.name, topic.partitions, self.producer_id));
        Ok(())
    }

    #[cold]
    async fn wait_for_room(&self, cost_bytes: u32) -> Result<SemaphorePermit<'_>> {
        let waiting = Waiting::new(&self.waiting);
        self.wake.notify_one();
        let waited = self.config.send_timeout;
        let acquired = tokio::time::timeout(waited, self.buffer.acquire_many(cost_bytes)).await;
        drop(waiting);
        match acquired {
            Ok(room) => room.map_err(|_| ClientError::Closed),
            Err(_) => Err(ClientError::BufferFull { buffer_bytes: self.config.buffer_bytes, waited }),
        }
    }

    /// Whether somebody waits for room in the buffer.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The lanes that were put on the list since the last call.
    pub(crate) fn take_enlisted(&self) -> Vec<Arc<Lane>> {
        std::mem::take(&mut *lock(&self.enlisted))
    }

    /// Accepts no more records; from the return on, none is added.
    pub(crate) fn close(&self) {
        self.topics_mut().closed = true;
    }

    /// Seals every open batch; one delivery for each batch that has not ended.
    pub(crate) fn seal_all(&self) -> Vec<Delivery> {
        let deliveries = self.topics().lanes().flat_map(|lane| lane.seal()).collect();
        self.wake.notify_one();
        deliveries
    }

    /// Ends a batch: events, counts, room in the buffer, then the deliveries, so that whoever awaits one finds everything
    /// else done.
    pub(crate) fn end(&self, lane: &Lane, batch: SealedBatch, result: Result<u64>) {
        let ended_ns = self.clock.monotonic_ns();
        let status = result.as_ref().err().map_or(0, |error| error.kind().number());
        let _entered = batch.trace.enter();
        let (records, bytes) = (batch.records() as u64, batch.record_bytes);
        send(&lane.scope, Send { records, bytes, sent_ns: &batch.sent_ns, ended_ns, status });
        flush(&lane.scope, Flush { records, bytes, started: batch.sealed, status });
        let total = if result.is_ok() { &self.totals.acknowledged } else { &self.totals.failed };
        total.fetch_add(records, Ordering::Relaxed);
        lane.ended(batch.records(), ended_ns);
        let SealedBatch { promise, cost_bytes, .. } = batch;
        self.buffer.add_permits(cost_bytes);
        promise.keep(match result {
            Ok(base_offset) => Outcome::Stored { base_offset, ended_ns },
            Err(error) => Outcome::Failed(error),
        });
        lane.kept(&promise);
    }

    /// The time until `at_ns`.
    pub(crate) fn until(&self, at_ns: u64) -> Duration {
        Duration::from_nanos(at_ns.saturating_sub(self.clock.monotonic_ns()))
    }
}

/// Counts a waiting call, also when it is cancelled.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
