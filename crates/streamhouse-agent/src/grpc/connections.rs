//! Accepted connections: how many there are, and how many there may be.

use futures::{Stream, stream};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use streamhouse_hooks::{Gauge, GaugeId, Instance};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Pause after a connection could not be accepted, which without one would be tried without end (no file descriptor is
/// free, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts connections and bounds them.
#[derive(Clone)]
pub(crate) struct Connections {
    open: Arc<Open>,
    slots: Arc<Semaphore>,
}

struct Open {
    gauge: Gauge,
    /// Locked so that the gauge is set in the order of the changes; it happens once a connection.
    count: Mutex<u64>,
}

impl Connections {
    pub(crate) fn new(instance: &Instance, connections_max: u16) -> Connections {
        let gauge = instance.gauge(GaugeId::AgentActiveConnections, "", None);
        gauge.set_now(0);
        let open = Open { gauge, count: Mutex::new(0) };
        Connections { open: Arc::new(open), slots: Arc::new(Semaphore::new(connections_max.into())) }
    }

    /// The connections of a listener. While there are as many as there may be, none is accepted.
    pub(crate) fn accept(self, listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
        stream::unfold((self, listener), |(connections, listener)| async move {
            let slot = Arc::clone(&connections.slots).acquire_owned().await.ok()?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let connection = Connection::new(stream, Arc::clone(&connections.open), slot);
                        return Some((Ok(connection), (connections, listener)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
    }
}

impl Open {
    fn change(&self, change: impl FnOnce(u64) -> u64) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = change(*count);
        self.gauge.set_now(*count);
    }
}

/// A connection that is counted as long as it is open.
pub(crate) struct Connection {
    stream: TcpStream,
    open: Arc<Open>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, open: Arc<Open>, slot: OwnedSemaphorePermit) -> Connection {
        // An acknowledgement is one small packet that somebody waits for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        open.change(|count| count + 1);
        Connection { stream, open, _slot: slot }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.change(|count| count.saturating_sub(1));
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
