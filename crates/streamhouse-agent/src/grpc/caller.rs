//! Who a request comes from.

use crate::connections::{Connection, Peer, UnderWay};
use std::sync::Arc;
use streamhouse_core::limits::MESSAGE_BYTES_MAX;
use tokio::sync::Semaphore;
use tonic::transport::server::Connected;

/// A request's connection. The default is one that only this request is on.
#[derive(Clone)]
pub(crate) struct Caller {
    peer: Option<Arc<Peer>>,
    /// Room for messages on their way: for one of full size, however many requests.
    pub(super) arriving: Arc<Semaphore>,
}

impl Default for Caller {
    fn default() -> Caller {
        Caller { peer: None, arriving: Arc::new(Semaphore::new(MESSAGE_BYTES_MAX)) }
    }
}

impl Caller {
    /// Says that a request is under way until what is returned is dropped.
    pub(super) fn begin(&self) -> Option<UnderWay> {
        self.peer.as_ref().map(Peer::begin)
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller { peer: Some(Arc::clone(self.peer())), ..Caller::default() }
    }
}
