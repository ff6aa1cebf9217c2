//! Accepted connections: how many there may be, what each must do in time, and who gives way when all places are taken.
//!
//! A place is not kept by who does nothing with it: a peer must greet in time, and when a new connection finds every place
//! taken, the one that has been idle for longest is closed for it. Where there is TLS, its handshake is a part of the
//! greeting: it goes on in the connection's own task, within the same time.

use crate::tls::{Acceptor, Stream};
use crate::watched::Watched;
use futures::task::AtomicWaker;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use streamhouse_hooks::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Pause after a connection could not be accepted, which without one would be tried without end (no file descriptor is
/// free, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long accepting has not failed when that is told to be over.
const CALM: Duration = Duration::from_secs(10);
/// How often a new connection looks for one that gives way.
const PLACE_INTERVAL: Duration = Duration::from_millis(50);

/// What a server asks of its connections.
pub(crate) struct Rules {
    /// The server's name in the log.
    pub(crate) server: &'static str,
    /// Most connections at a time.
    pub(crate) connections_max: usize,
    /// Bytes that a peer sends before it counts as one of the server's kind.
    pub(crate) greeting_bytes: usize,
    /// How long it may take to. A connection that has not done so then is closed.
    pub(crate) greeting_time: Duration,
    /// How long a connection has been idle at least before it gives way to a new one.
    pub(crate) idle_min: Duration,
}

/// The connections of a listener.
pub(crate) struct Incoming {
    listener: TcpListener,
    tls: Option<Arc<Watched<Acceptor>>>,
    places: Arc<Places>,
    /// When accepting last failed, which was told, if it is not over.
    failed: Option<Instant>,
}

impl Incoming {
    /// Accepts by these rules; `gauge` says how many are open.
    pub(crate) fn new(listener: TcpListener, rules: Rules, gauge: Option<Gauge>) -> Incoming {
        let free = Arc::new(Semaphore::new(rules.connections_max));
        let places = Places { rules, gauge, free, open: Mutex::new(Open::default()) };
        places.change(|_| {});
        Incoming { listener, tls: None, places: Arc::new(places), failed: None }
    }

    /// Lets connections speak TLS.
    pub(crate) fn with_tls(self, tls: Option<Arc<Watched<Acceptor>>>) -> Incoming {
        Incoming { tls, ..self }
    }

    /// The next connection, when there is a place for it.
    pub(crate) async fn next(&mut self) -> Connection {
        let stream = self.accept().await;
        // An acknowledgement is one small packet that somebody waits for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let place = self.places.take().await;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => tls.get().accept(stream),
        };
        Connection::new(stream, Arc::clone(&self.places), place)
    }

    async fn accept(&mut self) -> TcpStream {
        let server = self.places.rules.server;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if self.failed.take_if(|failed| failed.elapsed() >= CALM).is_some() {
                        tracing::info!(server, "connections are accepted again");
                    }
                    return stream;
                }
                Err(error) => {
                    if self.failed.replace(Instant::now()).is_none() {
                        tracing::warn!(server, %error, "connections cannot be accepted; closing idle ones and trying again");
                    }
                    // Most often there is no file descriptor for it; an idle connection has one.
                    self.places.close_longest_idle();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        (self.next().await, ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A server's places, free and taken.
struct Places {
    rules: Rules,
    gauge: Option<Gauge>,
    free: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    peers: Vec<Arc<Peer>>,
    /// All places were taken, and that was told.
    crowded: bool,
}

impl Places {
    /// A place: a free one, or else one that an idle connection gives up.
    async fn take(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return place;
        }
        self.tell_crowded();
        loop {
            self.close_longest_idle();
            if let Ok(place) = timeout(PLACE_INTERVAL, Arc::clone(&self.free).acquire_owned()).await {
                return place.expect("the semaphore is never closed");
            }
        }
    }

    fn tell_crowded(&self) {
        let Rules { server, connections_max, .. } = self.rules;
        let mut open = lock(&self.open);
        if !std::mem::replace(&mut open.crowded, true) {
            tracing::warn!(
                server,
                connections_max,
                "all connections that there may be are open; those that are idle for longest are closed for new ones"
            );
        }
    }

    fn close_longest_idle(&self) {
        let open = lock(&self.open);
        let idle = open.peers.iter().filter_map(|peer| Some((peer.idle_since()?, peer)));
        if let Some((since, peer)) = idle.min_by_key(|(since, _)| *since)
            && since.elapsed() >= self.rules.idle_min
        {
            peer.close();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Peer>>)) {
        let Rules { server, connections_max, .. } = self.rules;
        let mut open = lock(&self.open);
        change(&mut open.peers);
        // Under the lock, so that the gauge is set in the order of the changes.
        if let Some(gauge) = &self.gauge {
            gauge.set_now(open.peers.len() as u64);
        }
        // Told at half, so that it is not told anew with every connection.
        if open.crowded && open.peers.len() <= connections_max / 2 {
            open.crowded = false;
            tracing::info!(server, "there is room for connections again");
        }
    }
}

/// What is known of who is at the other end of a connection.
pub(crate) struct Peer {
    requests: Mutex<Requests>,
    closed: AtomicBool,
    /// Wakes the connection when it is closed.
    waker: AtomicWaker,
}

struct Requests {
    under_way: usize,
    /// When the last one ended, or the connection began.
    idle_since: Instant,
}

impl Peer {
    fn new() -> Peer {
        let requests = Requests { under_way: 0, idle_since: Instant::now() };
        Peer { requests: Mutex::new(requests), closed: AtomicBool::new(false), waker: AtomicWaker::new() }
    }

    /// Counts a request until what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        lock(&self.requests).under_way += 1;
        UnderWay(Arc::clone(self))
    }

    /// Since when there is no request; `None` when there is one, or the connection is being closed.
    fn idle_since(&self) -> Option<Instant> {
        let requests = lock(&self.requests);
        let is_idle = requests.under_way == 0 && !self.closed.load(Ordering::Relaxed);
        is_idle.then_some(requests.idle_since)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn check(&self) -> io::Result<()> {
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it was idle, and its place was needed"))
    }
}

/// A request under way on a connection, which is not idle as long as there is one.
pub(crate) struct UnderWay(Arc<Peer>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut requests = lock(&self.0.requests);
        requests.under_way -= 1;
        requests.idle_since = Instant::now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open connection, in its place.
pub(crate) struct Connection {
    stream: Stream,
    /// `None` when the peer has greeted.
    greeting: Option<Greeting>,
    peer: Arc<Peer>,
    places: Arc<Places>,
    _place: OwnedSemaphorePermit,
}

struct Greeting {
    bytes_left: usize,
    time: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: Stream, places: Arc<Places>, place: OwnedSemaphorePermit) -> Connection {
        let peer = Arc::new(Peer::new());
        places.change(|peers| peers.push(Arc::clone(&peer)));
        let Rules { greeting_bytes, greeting_time, .. } = places.rules;
        let greeting = Greeting { bytes_left: greeting_bytes, time: Box::pin(sleep(greeting_time)) };
        Connection { stream, greeting: Some(greeting), peer, places, _place: place }
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    fn received(&mut self, bytes: usize) {
        if let Some(greeting) = &mut self.greeting {
            greeting.bytes_left = greeting.bytes_left.saturating_sub(bytes);
        }
        self.greeting.take_if(|greeting| greeting.bytes_left == 0);
    }

    /// What came of a read or write, or that the connection is closed: it was idle, or the peer is late with its greeting,
    /// of which the handshake that any of them may wait for is a part.
    fn unless_closed<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            self.peer.waker.register(context.waker());
            if let Some(greeting) = &mut self.greeting
                && greeting.time.as_mut().poll(context).is_ready()
            {
                let late = io::Error::new(io::ErrorKind::TimedOut, "the peer did not greet in time");
                return Poll::Ready(Err(late));
            }
        }
        // After the waker is in place, so that nothing is missed.
        self.peer.check()?;
        polled
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.places.change(|peers| peers.retain(|peer| !Arc::ptr_eq(peer, &self.peer)));
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received(buffer.filled().len() - before);
        self.unless_closed(context, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_closed(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_closed(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.unless_closed(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn incoming(connections_max: usize, greeting_time: Duration) -> (Incoming, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let idle_min = Duration::ZERO;
        let rules = Rules { server: "test", connections_max, greeting_bytes: 3, greeting_time, idle_min };
        (Incoming::new(listener, rules, None), address)
    }

    #[tokio::test]
    async fn who_does_not_greet_in_time_is_closed() {
        let (mut incoming, address) = incoming(3, Duration::from_millis(50)).await;
        for (greeting, is_kept) in [("", false), ("ab", false), ("abc", true)] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(greeting.as_bytes()).await.unwrap();
            let mut connection = incoming.next().await;
            let mut received = [0; 8];
            let mut error = None;
            if is_kept {
                connection.read_exact(&mut received[..greeting.len()]).await.unwrap();
                assert!(timeout(Duration::from_millis(200), connection.read(&mut received)).await.is_err());
            } else {
                error = connection.read_exact(&mut received).await.err();
            }
            assert_eq!(error.map(|error| error.kind()), (!is_kept).then_some(io::ErrorKind::TimedOut));
        }
    }

    #[tokio::test]
    async fn the_longest_idle_gives_way_and_the_busy_stays() {
        let (mut incoming, address) = incoming(3, Duration::from_secs(60)).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut busy = incoming.next().await;
        let under_way = busy.peer().begin();
        let [mut idle, mut idle_later] = [incoming.next().await, incoming.next().await];
        drop(idle_later.peer().begin());
        clients.push(TcpStream::connect(address).await.unwrap());
        let gives_way = async {
            let error = idle.read(&mut [0]).await.unwrap_err();
            drop(idle);
            error.kind()
        };
        let (ended, _new) = tokio::join!(gives_way, incoming.next());
        assert_eq!(ended, io::ErrorKind::ConnectionAborted);
        drop(under_way);
        for kept in [&mut busy, &mut idle_later] {
            assert!(timeout(Duration::from_millis(1), kept.read(&mut [0])).await.is_err());
        }
        assert_eq!(lock(&incoming.places.open).peers.len(), 3);
    }
}
