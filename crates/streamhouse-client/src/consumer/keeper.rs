//! Keeps a consumer in its group: a task that says that the consumer lives, and makes its changes.
//!
//! All calls that change the membership are made here, one after the other, so that what the consumer sees of the group
//! is never older than what it was told of its own claims; and they are made to their end, whoever stops waiting.

use super::seen::Seen;
use super::told::ToldByClaim;
use crate::error::{ClientError, Result};
use crate::lock;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamhouse_core::{AsTyped, ErrorKind, GroupId, MemberId, TopicName, TopicPartition};
use streamhouse_metadata::{Claimed, ClientStore, GroupView, MetadataError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// How soon the group is looked at again after it has changed, while a member does not hold what belongs to it. Doubles
/// up to the heartbeat interval.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Who is a member of what, and how its life is told.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) store: Arc<dyn ClientStore>,
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    /// Its topics and how many partitions each has.
    pub(crate) topics: Vec<(TopicName, u32)>,
    pub(crate) session: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) max_poll_interval: Duration,
}

/// How a member stands.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) place: Place,
    /// Until when its session holds at least.
    pub(crate) until: Instant,
    /// What the last heartbeat met, if it failed.
    pub(crate) trouble: Option<ClientError>,
}

/// Whether a member is in its group.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// It is, and this is how the group looks.
    In(Arc<Seen>),
    /// It is not, for this reason, and comes back only when told to join.
    Out(Arc<str>),
}

/// What the consumer wants done.
pub(crate) struct Order {
    pub(crate) deed: Deed,
    /// Gets the claims that came of it, once the standing shows them.
    pub(crate) done: oneshot::Sender<Result<Vec<Claimed>>>,
}

/// A change of the membership.
#[derive(Debug)]
pub(crate) enum Deed {
    Join,
    Change { release: Vec<TopicPartition>, claim: Vec<TopicPartition> },
    Leave,
}

/// The task's state.
pub(crate) struct Keeper {
    seat: Seat,
    orders: mpsc::UnboundedReceiver<Order>,
    standing: watch::Sender<Standing>,
    /// When the consumer was last used.
    used: Arc<Mutex<Instant>>,
    told: Arc<ToldByClaim>,
    /// When the group is looked at next; `None` while it is not a member.
    next: Option<Instant>,
    pause: Duration,
}

impl Keeper {
    pub(crate) fn new(
        seat: Seat,
        orders: mpsc::UnboundedReceiver<Order>,
        standing: watch::Sender<Standing>,
        used: Arc<Mutex<Instant>>,
        told: Arc<ToldByClaim>,
    ) -> Keeper {
        let pause = seat.heartbeat;
        Keeper { seat, orders, standing, used, told, next: None, pause }
    }

    /// Works until the consumer leaves, or is dropped: then it takes it out of the group.
    pub(crate) async fn run(mut self) {
        loop {
            let next = self.next;
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(Order { deed, done }) = order else { break };
                    let last = matches!(deed, Deed::Leave);
                    // Nobody waits any more for what a dropped consumer had begun.
                    let _ = done.send(self.act(deed).await);
                    if last {
                        return;
                    }
                }
                () = due => self.look().await,
            }
        }
        if let Err(error) = self.leave().await {
            let Seat { group, member, .. } = &self.seat;
            tracing::debug!(%group, %member, %error, "a dropped consumer's claims end with its session");
        }
    }

    async fn act(&mut self, deed: Deed) -> Result<Vec<Claimed>> {
        let done = match deed {
            Deed::Join => self.join().await.map(|()| Vec::new()),
            Deed::Change { release, claim } => self.change(&release, &claim).await,
            Deed::Leave => self.leave().await.map(|()| Vec::new()),
        };
        if let Err(error) = &done {
            self.failed(error);
        }
        done
    }

    async fn join(&mut self) -> Result<()> {
        let Seat { store, group, member, topics, session, .. } = &self.seat;
        let topics: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
        let asked = Instant::now();
        let view = store.join_group(group, member, &topics, *session).await?;
        self.publish(view, asked);
        Ok(())
    }

    async fn change(&mut self, release: &[TopicPartition], claim: &[TopicPartition]) -> Result<Vec<Claimed>> {
        let Seat { store, group, member, .. } = &self.seat;
        if !release.is_empty() {
            store.release_claims(group, member, release).await?;
        }
        let claimed = match claim {
            [] => Vec::new(),
            _ => store.claim_partitions(group, member, claim).await?,
        };
        self.heartbeat().await?;
        Ok(claimed)
    }

    async fn heartbeat(&mut self) -> Result<()> {
        let Seat { store, group, member, session, .. } = &self.seat;
        let asked = Instant::now();
        let view = store.heartbeat_member(group, member, *session).await?;
        self.publish(view, asked);
        Ok(())
    }

    /// Heartbeats; leaves for a consumer that is not used any more.
    async fn look(&mut self) {
        let idle = lock(&self.used).elapsed();
        let done = if idle > self.seat.max_poll_interval {
            let reason = format!("it was not polled for {}", AsTyped(self.seat.max_poll_interval));
            let left = self.leave().await;
            self.out(reason.into());
            left
        } else {
            self.heartbeat().await
        };
        if let Err(error) = done {
            self.failed(&error);
        }
    }

    async fn leave(&mut self) -> Result<()> {
        self.next = None;
        Ok(self.seat.store.leave_group(&self.seat.group, &self.seat.member).await?)
    }

    fn publish(&mut self, view: GroupView, asked: Instant) {
        let Seat { member, topics, session, heartbeat, .. } = &self.seat;
        let changed = match &self.standing.borrow().place {
            Place::In(seen) => seen.view != view,
            Place::Out(_) => true,
        };
        let seen = Seen::new(view, member, topics);
        self.told.retain(|partition, generation| seen.holds(partition, generation));
        self.pause = if seen.is_settled() {
            *heartbeat
        } else if changed {
            PAUSE_MIN.min(*heartbeat)
        } else {
            (*heartbeat).min(self.pause * 2)
        };
        self.next = Some(Instant::now() + self.pause);
        // The session was extended after `asked`, by a clock that goes as fast.
        let until = asked + *session;
        self.standing.send_replace(Standing { place: Place::In(Arc::new(seen)), until, trouble: None });
    }

    fn failed(&mut self, error: &ClientError) {
        if error.kind() == ErrorKind::Fenced {
            return self.out(reason(error));
        }
        if let Some(next) = &mut self.next {
            *next = Instant::now() + self.pause;
            self.pause = self.seat.heartbeat.min(self.pause * 2);
        }
        let Seat { group, member, .. } = &self.seat;
        tracing::warn!(%group, %member, %error, "a consumer could not reach its group; it tries again");
        self.standing.send_modify(|standing| standing.trouble = Some(error.clone()));
    }

    fn out(&mut self, reason: Arc<str>) {
        let Seat { group, member, .. } = &self.seat;
        tracing::warn!(%group, %member, %reason, "a consumer has lost its place in its group");
        self.next = None;
        self.told.retain(|_, _| false);
        let standing = Standing { place: Place::Out(reason), until: Instant::now(), trouble: None };
        self.standing.send_replace(standing);
    }
}

/// Why a member was fenced.
pub(crate) fn reason(error: &ClientError) -> Arc<str> {
    if let ClientError::Metadata(error) = error
        && let MetadataError::MemberFenced { reason, .. } = &**error
    {
        return reason.as_str().into();
    }
    error.to_string().into()
}
