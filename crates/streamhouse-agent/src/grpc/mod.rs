//! The gRPC server: who is let in, admission of requests, the services.

mod admission;
mod arriving;
mod caller;
mod metadata;
mod service;
mod services;
mod told;

pub(crate) use admission::Admission;
pub(crate) use metadata::MetadataService;
pub(crate) use service::Service;

use crate::auth::{Gate, Gated};
use crate::config::Config;
use crate::connections::{Incoming, Rules};
use crate::security::Security;
use admission::{Admitting, Sizes};
use futures::stream;
use services::Services;
use std::{convert::Infallible as Never, future::Future, sync::Arc, time::Duration};
use streamhouse_core::SystemClock;
use streamhouse_core::limits::{
    MESSAGE_BYTES_MAX, METADATA_ANSWER_BYTES_MAX, METADATA_PARTS_MAX, METADATA_REQUEST_BYTES_MAX,
    REQUEST_BATCHES_MAX,
};
use streamhouse_hooks::{GaugeId, Instance};
use streamhouse_proto::v1::agent_server::AgentServer;
use streamhouse_proto::v1::metadata_server::MetadataServer;
use tokio::net::TcpListener;
use told::Told;
use tonic::transport::Server;

/// What one connection may send before the agent reads it: two full requests, so that a producer is never held up by a
/// round trip.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Requests under way on one connection; more wait in the producer.
const STREAMS_MAX: u32 = 64;
/// What one request may send before the agent reads it: its share of the connection's window. Were it more, requests that
/// are not let in yet could fill the connection's window, and those that are would wait for their own bodies for ever.
const STREAM_WINDOW_BYTES: u32 = CONNECTION_WINDOW_BYTES / STREAMS_MAX;
/// Largest HTTP/2 frame: fewer, larger frames cost less than the default of 16 KiB.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// How often a silent connection is asked whether its peer lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the peer may take to answer that.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Lease terms that a request may take from its first byte to its answer: the flush before it and its own are given up
/// within one each, and one is left to send it. Longer ones end in an error, so that a producer that stalls while it
/// sends does not keep others out.
const REQUEST_TERMS: u32 = 3;

/// HTTP/2's preface and the head of the SETTINGS frame that follows it: what any client begins with (RFC 9113, 3.4).
const GREETING_BYTES: usize = 24 + 9;
/// How long a client may take to send that.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// How long a producer's connection is left alone between two requests: producers are not played off against each other.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// How long nothing of a request may arrive that was let in, and takes room from others.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(5);

/// What a produce request takes in memory: a batch its place in the request, in the flusher and in the answer.
const PRODUCE_SIZES: Sizes =
    Sizes { message_bytes_max: MESSAGE_BYTES_MAX, parts_max: REQUEST_BATCHES_MAX, part_bytes: 512 };
/// What a metadata request takes: a partition its place as a message, as what the store takes, and in a query.
const METADATA_SIZES: Sizes =
    Sizes { message_bytes_max: METADATA_REQUEST_BYTES_MAX, parts_max: METADATA_PARTS_MAX, part_bytes: 256 };
/// Room for metadata requests: for many of usual size, or two of the largest.
const METADATA_ROOM_BYTES: u32 = 2 * MESSAGE_BYTES_MAX as u32;

/// What requests may use, and who may send them.
pub(crate) struct Limits {
    /// Open connections.
    pub(crate) connections_max: u16,
    /// Bytes of requests received and not yet answered.
    pub(crate) unflushed_bytes_max: u32,
    /// A request's time, from its first byte to its answer.
    pub(crate) request_time: Duration,
    /// Who may connect.
    pub(crate) security: Security,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Limits {
        Limits {
            connections_max: config.connections_max,
            unflushed_bytes_max: config.unflushed_bytes_max,
            request_time: config.lease_term * REQUEST_TERMS,
            security: config.security.clone(),
        }
    }
}

/// Serves until `stop`, then until every request under way is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    instance: Instance,
    service: Arc<Service>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let rules = Rules {
        server: "gRPC",
        connections_max: limits.connections_max.into(),
        greeting_bytes: GREETING_BYTES,
        greeting_time: GREETING_TIME,
        idle_min: IDLE_MIN,
    };
    let gauge = instance.gauge(GaugeId::AgentActiveConnections, "", None);
    let incoming = Incoming::new(listener, rules, Some(gauge)).with_tls(limits.security.tls.clone());
    let incoming = stream::unfold(incoming, async |mut incoming| {
        Some((Ok::<_, Never>(incoming.next().await), incoming))
    });
    let scope = Arc::new(instance.scope("", None));
    let gate = limits.security.tokens.clone().map(|tokens| Gate {
        tokens,
        clock: Arc::new(SystemClock),
        scope: Arc::clone(&scope),
    });
    let gated = Gated::new(services(service, limits.unflushed_bytes_max), gate);
    let served = Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .timeout(limits.request_time)
        .serve_with_incoming_shutdown(Told::new(gated, scope), incoming, stop);
    tokio::select! {
        served = served => served,
        never = limits.security.watch() => match never {},
    }
}

fn services(service: Arc<Service>, unflushed_bytes_max: u32) -> Services {
    let metadata = MetadataServer::new(MetadataService::new(Arc::clone(&service.metadata)))
        .max_decoding_message_size(METADATA_REQUEST_BYTES_MAX)
        .max_encoding_message_size(METADATA_ANSWER_BYTES_MAX);
    let agent = AgentServer::from_arc(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Services {
        agent: Admitting::new(agent, PRODUCE_SIZES, unflushed_bytes_max, BODY_SILENCE_MAX),
        metadata: Admitting::new(metadata, METADATA_SIZES, METADATA_ROOM_BYTES, BODY_SILENCE_MAX),
    }
}
