//! A consumer's side of its membership: what it asks of the keeper, and what it learns from it.

use super::keeper::{Deed, Keeper, Order, Place, Seat, Standing};
use super::told::ToldByClaim;
use crate::error::{ClientError, Result};
use crate::lock;
use std::sync::{Arc, Mutex};
use streamhouse_core::{MemberId, TopicName, TopicPartition};
use streamhouse_metadata::Claimed;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// A place in a group. When it is dropped, the consumer leaves the group as soon as its runtime comes to it.
pub(crate) struct Membership {
    pub(crate) seat: Seat,
    /// At most one waits: an order is given when the one before it is done.
    orders: mpsc::UnboundedSender<Order>,
    standing: watch::Receiver<Standing>,
    /// Whether the standing has changed since the consumer last acted on it.
    behind: bool,
    /// An order's answer that is waited for, also across cancelled calls.
    pending: Option<oneshot::Receiver<Result<Vec<Claimed>>>>,
    used: Arc<Mutex<Instant>>,
    /// What is told of claimed partitions.
    pub(crate) told: Arc<ToldByClaim>,
}

impl Membership {
    /// Starts the keeper. The consumer is not in the group before it has joined.
    pub(crate) fn start(seat: Seat) -> Membership {
        let (orders, received) = mpsc::unbounded_channel();
        let now = Instant::now();
        let place = Place::Out("it has not joined yet".into());
        let (publisher, standing) = watch::channel(Standing { place, until: now, trouble: None });
        let (used, told) = (Arc::new(Mutex::new(now)), Arc::<ToldByClaim>::default());
        let keeper = Keeper::new(seat.clone(), received, publisher, Arc::clone(&used), Arc::clone(&told));
        tokio::spawn(keeper.run());
        Membership { seat, orders, standing, behind: true, pending: None, used, told }
    }

    /// Tells the keeper that the consumer is in use.
    pub(crate) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    /// The place in the group, when it has to be acted on: since [`acted`](Self::acted) there was news.
    pub(crate) fn news(&mut self) -> Option<Place> {
        self.behind |= self.standing.has_changed().unwrap_or(true);
        self.behind.then(|| self.standing.borrow_and_update().place.clone())
    }

    /// What was learnt so far has been acted on.
    pub(crate) fn acted(&mut self) {
        self.behind = false;
    }

    /// What was learnt may not be so any more: it is to be acted on again.
    pub(crate) fn suspect(&mut self) {
        self.behind = true;
    }

    /// Waits for news. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        match self.standing.changed().await {
            Ok(()) => self.behind = true,
            Err(_) => std::future::pending().await,
        }
    }

    /// The place in the group now.
    pub(crate) fn place(&self) -> Place {
        self.standing.borrow().place.clone()
    }

    /// Whether what the consumer has claimed is its own for sure: it is in the group, and was heard of within the session.
    pub(crate) fn holds(&self) -> bool {
        let standing = self.standing.borrow();
        matches!(standing.place, Place::In(_)) && Instant::now() < standing.until
    }

    /// What keeps the member from hearing of the group.
    pub(crate) fn trouble(&self) -> Result<()> {
        self.standing.borrow().trouble.clone().map_or(Ok(()), Err)
    }

    /// Has something done; [`done`](Self::done) waits for it. What was ordered before must be done.
    pub(crate) fn order(&mut self, deed: Deed) {
        let (done, pending) = oneshot::channel();
        // Without a keeper the answer never comes, which `done` tells.
        let _ = self.orders.send(Order { deed, done });
        self.pending = Some(pending);
    }

    /// Waits until what was ordered is done; gives the claims that came of it. Cancel safe.
    pub(crate) async fn done(&mut self) -> Result<Vec<Claimed>> {
        let Some(pending) = &mut self.pending else { return Ok(Vec::new()) };
        let answer = pending.await;
        self.pending = None;
        answer.unwrap_or(Err(ClientError::Closed))
    }

    /// Whether the partition is one of those that the members share.
    pub(crate) fn may_read(&self, partition: &TopicPartition) -> bool {
        let of_it = |(topic, partitions): &(TopicName, u32)| {
            *topic == partition.topic && partition.partition < *partitions
        };
        self.seat.topics.iter().any(of_it)
    }

    /// Who reads the partition, as far as is known.
    pub(crate) fn reader(&self, partition: &TopicPartition) -> Option<MemberId> {
        match &self.standing.borrow().place {
            Place::In(seen) => seen.reader(partition).cloned(),
            Place::Out(_) => None,
        }
    }
}
