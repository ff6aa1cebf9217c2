//! Back-pressure: what requests may hold in memory.
//!
//! A request states the length of its message in its first bytes. It is let in, and the rest of it read, when there is room
//! for that much; its share is given back when its last batch is answered. Requests that wait are not read: their
//! producers are stopped by HTTP/2's windows, each by that of its own stream.
//!
//! Room that is held for what does not come is held from everybody, so it is bounded: messages that one connection may have
//! on their way together have the size of one full message, and a message that stops arriving ends in an error.

use super::arriving::{Arriving, PREFIX_BYTES, stated_bytes};
use super::caller::Caller;
use bytes::Bytes;
use futures::future::{BoxFuture, poll_fn};
use hyper::body::Body;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use streamhouse_core::limits::MESSAGE_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codegen::{Service, StdError, http};

/// The fewest bytes that a part takes of a message.
const PART_BYTES_MIN: usize = 2;

/// What a service's requests may take.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Largest message; at most [`MESSAGE_BYTES_MAX`].
    pub(super) message_bytes_max: usize,
    /// Most parts of a message.
    pub(super) parts_max: usize,
    /// What a part takes in memory beside its bytes.
    pub(super) part_bytes: usize,
}

impl Sizes {
    /// What a message of this many bytes may take. Never more than a connection, or a service, has room for.
    fn reserved_bytes(self, message_bytes: usize) -> usize {
        let parts = (message_bytes / PART_BYTES_MIN).min(self.parts_max);
        (message_bytes + parts * self.part_bytes).min(MESSAGE_BYTES_MAX)
    }
}

/// A request's share of the unflushed bytes.
#[derive(Debug)]
pub(crate) struct Admission {
    permit: OwnedSemaphorePermit,
    message_bytes: usize,
    part_bytes: usize,
}

impl Admission {
    /// Gives back what a request of so many batches does not need. It keeps the whole message, since a slice of a message
    /// keeps all of it in memory.
    pub(crate) fn shrink(&mut self, batches: usize) {
        let needed = self.message_bytes + batches * self.part_bytes;
        drop(self.permit.split(self.permit.num_permits().saturating_sub(needed)));
    }
}

/// Lets requests into a service while there is room. The service finds an `Arc<Admission>`, its only owner, in the
/// request's extensions.
#[derive(Clone)]
pub(crate) struct Admitting<S> {
    inner: S,
    sizes: Sizes,
    room: Arc<Semaphore>,
    silence_max: Duration,
}

impl<S> Admitting<S> {
    /// Over `bytes_max` requests wait. It must be at least [`MESSAGE_BYTES_MAX`], or a full one would never be let in. A
    /// request that was let in and of which nothing arrives for `silence_max` fails.
    pub(super) fn new(inner: S, sizes: Sizes, bytes_max: u32, silence_max: Duration) -> Admitting<S> {
        Admitting { inner, sizes, room: Arc::new(Semaphore::new(bytes_max as usize)), silence_max }
    }
}

impl<S, B> Service<http::Request<B>> for Admitting<S>
where
    S: Service<http::Request<Arriving<B>>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The clone stays behind: it is the original that was polled ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (sizes, room, silence_max) = (self.sizes, Arc::clone(&self.room), self.silence_max);
        Box::pin(async move {
            let (mut parts, mut body) = request.into_parts();
            let caller = parts.extensions.remove::<Caller>().unwrap_or_default();
            let first = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            let first = first.map(|frame| frame.map_err(Into::into));
            // Not before: a connection that only begins requests is as idle as one that does not.
            let _under_way = caller.begin();
            let message_bytes = stated_bytes(first.as_ref(), sizes.message_bytes_max);
            let bytes = sizes.reserved_bytes(message_bytes) as u32;
            let turn = acquire(caller.arriving, bytes).await;
            let permit = acquire(room, bytes).await;
            parts.extensions.insert(Arc::new(Admission {
                permit,
                message_bytes,
                part_bytes: sizes.part_bytes,
            }));
            let body = Arriving::new(first, body, message_bytes + PREFIX_BYTES, silence_max, turn);
            inner.call(http::Request::from_parts(parts, body)).await
        })
    }
}

async fn acquire(semaphore: Arc<Semaphore>, bytes: u32) -> OwnedSemaphorePermit {
    semaphore.acquire_many_owned(bytes).await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use super::super::PRODUCE_SIZES;
    use super::super::arriving::tests::{Frames, prefix};
    use super::*;

    /// Gives the request's admission and body back as its response.
    #[derive(Clone)]
    struct Inner;

    type Let = (Admission, Arriving<Frames>);

    impl Service<http::Request<Arriving<Frames>>> for Inner {
        type Response = Let;
        type Error = ();
        type Future = std::future::Ready<Result<Let, ()>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, mut request: http::Request<Arriving<Frames>>) -> Self::Future {
            let admission = request.extensions_mut().remove::<Arc<Admission>>().and_then(Arc::into_inner);
            std::future::ready(admission.map(|admission| (admission, request.into_body())).ok_or(()))
        }
    }

    fn admitting() -> Admitting<Inner> {
        Admitting::new(Inner, PRODUCE_SIZES, 2 * MESSAGE_BYTES_MAX as u32, Duration::from_secs(60))
    }

    /// A request on a connection that states this much and sends nothing more.
    fn half_open(caller: &Caller, message_bytes: usize) -> http::Request<Frames> {
        let mut request = http::Request::new(Frames::silent([prefix(message_bytes)]));
        request.extensions_mut().insert(caller.clone());
        request
    }

    #[tokio::test]
    async fn a_request_keeps_its_whole_message_until_it_is_answered() {
        let mut service = admitting();
        let room = Arc::clone(&service.room);
        let (caller, total) = (Caller::default(), 2 * MESSAGE_BYTES_MAX);
        let (mut admission, body) = service.call(half_open(&caller, 1 << 20)).await.unwrap();
        drop(body);
        assert_eq!(
            room.available_permits(),
            total - (1 << 20) - PRODUCE_SIZES.parts_max * PRODUCE_SIZES.part_bytes
        );
        admission.shrink(2);
        assert_eq!(room.available_permits(), total - (1 << 20) - 2 * PRODUCE_SIZES.part_bytes);
        admission.shrink(3);
        assert_eq!(room.available_permits(), total - (1 << 20) - 2 * PRODUCE_SIZES.part_bytes);
        drop(admission);
        assert_eq!(room.available_permits(), total);
    }

    #[tokio::test]
    async fn requests_wait_while_there_is_no_room() {
        let mut service = admitting();
        let mut let_in = Vec::new();
        for _ in 0..2 {
            let (admission, _) =
                service.call(half_open(&Caller::default(), MESSAGE_BYTES_MAX)).await.unwrap();
            let_in.push(admission);
        }
        let mut third = service.call(half_open(&Caller::default(), 1000));
        assert!(futures::poll!(&mut third).is_pending());
        let_in.pop();
        assert!(third.await.is_ok());
    }

    #[tokio::test]
    async fn one_connection_holds_room_for_one_full_message_that_has_not_come() {
        let mut service = admitting();
        let caller = Caller::default();
        let first = service.call(half_open(&caller, MESSAGE_BYTES_MAX)).await.unwrap();
        let mut second = service.call(half_open(&caller, 1000));
        assert!(futures::poll!(&mut second).is_pending());
        // Another connection is not kept out.
        assert!(service.call(half_open(&Caller::default(), 1000)).await.is_ok());
        // When the message has come, or will not, it is the next one's turn.
        let (_admission, body) = first;
        drop(body);
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn what_states_nothing_holds_nothing() {
        let mut service = admitting();
        let mut silent = service.call(http::Request::new(Frames::silent([])));
        assert!(futures::poll!(&mut silent).is_pending());
        assert_eq!(service.room.available_permits(), 2 * MESSAGE_BYTES_MAX);
    }
}
