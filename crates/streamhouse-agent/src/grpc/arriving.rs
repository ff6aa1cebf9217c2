//! The body of a request that was let in, as it arrives.

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use streamhouse_core::AsTyped;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tonic::{Status, codegen::StdError};

/// What precedes a message: whether it is compressed, and its length
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
pub(super) const PREFIX_BYTES: usize = 5;

/// The length of a body's message, as its first frame states it: the largest when that is too short to say, and for one
/// that is larger, which will be refused.
pub(super) fn stated_bytes(first: Option<&Result<Frame<Bytes>, StdError>>, max: usize) -> usize {
    let Some(Ok(first)) = first else { return 0 };
    let Some(mut data) = first.data_ref().map(|data| &data[..]) else { return 0 };
    if data.len() < PREFIX_BYTES {
        return max;
    }
    data.advance(1);
    max.min(data.get_u32() as usize)
}

/// A body with its first frame read already. It ends in an error when more arrives than was stated, or nothing for too
/// long.
pub(crate) struct Arriving<B> {
    first: Option<Option<Result<Frame<Bytes>, StdError>>>,
    body: B,
    bytes_left: usize,
    silence_max: Duration,
    /// Since the last bytes.
    silence: Option<Pin<Box<Sleep>>>,
    /// Its connection's room for messages on their way, until this one has come.
    _turn: OwnedSemaphorePermit,
}

impl<B> Arriving<B> {
    pub(super) fn new(
        first: Option<Result<Frame<Bytes>, StdError>>,
        body: B,
        bytes_max: usize,
        silence_max: Duration,
        turn: OwnedSemaphorePermit,
    ) -> Arriving<B> {
        Arriving { first: Some(first), body, bytes_left: bytes_max, silence_max, silence: None, _turn: turn }
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = self.get_mut();
        let frame = match this.first.take() {
            Some(first) => first,
            None => match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(frame) => frame.map(|frame| frame.map_err(Into::into)),
                Poll::Pending => {
                    let silence_max = this.silence_max;
                    let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(silence_max)));
                    ready!(silence.as_mut().poll(context));
                    return Poll::Ready(Some(Err(stopped(silence_max).into())));
                }
            },
        };
        let Some(frame) = frame.transpose()? else { return Poll::Ready(None) };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if bytes > 0 {
            this.silence = None;
        }
        match this.bytes_left.checked_sub(bytes) {
            Some(left) => this.bytes_left = left,
            None => return Poll::Ready(Some(Err(too_long().into()))),
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

fn stopped(silence: Duration) -> Status {
    let silence = AsTyped(silence);
    Status::deadline_exceeded(format!("nothing of the request arrived for {silence}; send it again"))
}

fn too_long() -> Status {
    Status::invalid_argument(
        "a request is one message of the length that it states, and has more bytes than that; send what is in it in several \
         requests",
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use futures::future::poll_fn;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use streamhouse_core::limits::MESSAGE_BYTES_MAX;
    use tokio::sync::Semaphore;

    /// What precedes a message of this length.
    pub(in super::super) fn prefix(message_bytes: usize) -> Bytes {
        let length = (message_bytes as u32).to_be_bytes();
        Bytes::from([&[0], &length[..]].concat())
    }

    /// A body of frames that are there.
    pub(in super::super) struct Frames {
        frames: VecDeque<Bytes>,
        ends: bool,
    }

    impl Frames {
        /// One of which nothing comes after these frames.
        pub(in super::super) fn silent<const N: usize>(frames: [Bytes; N]) -> Frames {
            Frames { frames: frames.into(), ends: false }
        }
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = StdError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
            match self.frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    async fn arrive(mut rest: Frames, stated: usize) -> Result<Vec<u8>, Status> {
        let first = rest.frames.pop_front().map(|first| Ok(Frame::data(first)));
        let turn = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut body = Arriving::new(first, rest, stated, Duration::from_millis(20), turn);
        let mut received = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame = frame.map_err(|error| *error.downcast::<Status>().unwrap())?;
            received.extend(frame.into_data().unwrap());
        }
        Ok(received)
    }

    #[test]
    fn the_first_frame_states_the_length() {
        let stated = |data: Bytes| stated_bytes(Some(&Ok(Frame::data(data))), MESSAGE_BYTES_MAX);
        assert_eq!(stated(prefix(70_000)), 70_000);
        assert_eq!(stated(prefix(u32::MAX as usize)), MESSAGE_BYTES_MAX);
        assert_eq!(stated(prefix(0).slice(..4)), MESSAGE_BYTES_MAX);
        assert_eq!(stated_bytes(None, MESSAGE_BYTES_MAX), 0);
    }

    #[tokio::test]
    async fn a_body_passes_unless_it_stops_or_is_longer_than_stated() {
        let frames = || VecDeque::from([Bytes::from("ab"), Bytes::from("cd")]);
        let whole = Frames { frames: frames(), ends: true };
        assert_eq!(arrive(whole, 4).await.unwrap(), b"abcd");
        let longer = Frames { frames: frames(), ends: true };
        assert_eq!(arrive(longer, 3).await.unwrap_err().code(), tonic::Code::InvalidArgument);
        let stops = Frames { frames: frames(), ends: false };
        let status = arrive(stops, 4).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(status.message().contains("arrived for 20ms; send it again"), "{status}");
    }
}
