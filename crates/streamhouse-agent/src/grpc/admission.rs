//! Back-pressure: what requests may hold in memory.
//!
//! A request is let in, and its body read, only when there is room for a message of full size; once its size is known the
//! rest is given back, and its share when its last batch is answered. Requests that wait are not read: their producers
//! are stopped by HTTP/2's windows, each by that of its own stream.

use futures::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};
use streamhouse_core::limits::MESSAGE_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codegen::{Service, http};

/// What a batch takes in memory beside its bytes: its place in the request, in the flusher and in the answer.
const BATCH_OVERHEAD_BYTES: usize = 512;

/// A request's share of the unflushed bytes.
#[derive(Debug)]
pub(crate) struct Admission(OwnedSemaphorePermit);

impl Admission {
    /// Gives back what a request of so many batches, of `bytes` together, does not need.
    pub(crate) fn shrink(&mut self, batches: usize, bytes: usize) {
        let excess = self.0.num_permits().saturating_sub(bytes + batches * BATCH_OVERHEAD_BYTES);
        drop(self.0.split(excess));
    }
}

/// Lets requests into a service while there is room. The service finds an `Arc<Admission>`, its only owner, in the
/// request's extensions.
#[derive(Clone)]
pub(crate) struct Admitting<S> {
    inner: S,
    room: Arc<Semaphore>,
}

impl<S> Admitting<S> {
    /// Over `bytes_max` requests wait. It must be at least [`MESSAGE_BYTES_MAX`], or none would be let in.
    pub(crate) fn new(inner: S, bytes_max: u32) -> Admitting<S> {
        Admitting { inner, room: Arc::new(Semaphore::new(bytes_max as usize)) }
    }
}

impl<S, B> Service<http::Request<B>> for Admitting<S>
where
    S: Service<http::Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // The clone stays behind: it is the original that was polled ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let room = Arc::clone(&self.room);
        Box::pin(async move {
            let permit = room.acquire_many_owned(MESSAGE_BYTES_MAX as u32).await;
            let permit = permit.expect("the semaphore is never closed");
            request.extensions_mut().insert(Arc::new(Admission(permit)));
            inner.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_admission_keeps_what_its_request_holds() {
        let room = Arc::new(Semaphore::new(MESSAGE_BYTES_MAX));
        let permit = Arc::clone(&room).acquire_many_owned(MESSAGE_BYTES_MAX as u32).await.unwrap();
        let mut admission = Admission(permit);
        let needed = 1000 + 2 * BATCH_OVERHEAD_BYTES;
        admission.shrink(2, 1000);
        assert_eq!(room.available_permits(), MESSAGE_BYTES_MAX - needed);
        admission.shrink(2, 2000);
        assert_eq!(room.available_permits(), MESSAGE_BYTES_MAX - needed);
        drop(admission);
        assert_eq!(room.available_permits(), MESSAGE_BYTES_MAX);
    }

    /// Gives the request's admission back as its response.
    #[derive(Clone)]
    struct Inner;

    impl Service<http::Request<()>> for Inner {
        type Response = Arc<Admission>;
        type Error = ();
        type Future = std::future::Ready<Result<Arc<Admission>, ()>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, mut request: http::Request<()>) -> Self::Future {
            std::future::ready(request.extensions_mut().remove().ok_or(()))
        }
    }

    #[tokio::test]
    async fn requests_wait_while_there_is_no_room() {
        let mut service = Admitting::new(Inner, 2 * MESSAGE_BYTES_MAX as u32);
        let first = service.call(http::Request::new(())).await.unwrap();
        let mut first = Arc::into_inner(first).unwrap();
        let _second = service.call(http::Request::new(())).await.unwrap();
        let mut third = service.call(http::Request::new(()));
        assert!(futures::poll!(&mut third).is_pending());
        first.shrink(1, 1);
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        assert!(third.await.is_ok());
    }
}
