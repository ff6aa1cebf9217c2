//! What gRPC alone moves: produce requests to a server that answers them and does nothing else, over loopback TCP, client
//! and server on the cores of this machine. What an agent adds is measured against it.
#![expect(clippy::print_stdout, reason = "an example prints")]

use bytes::Bytes;
use std::{error::Error, sync::Arc, time::Instant};
use streamhouse_core::limits::MESSAGE_BYTES_MAX;
use streamhouse_proto::v1::agent_client::AgentClient;
use streamhouse_proto::v1::agent_server::{Agent, AgentServer};
use streamhouse_proto::v1::{BatchResult, ProduceBatch, ProduceRequest, ProduceResponse};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

/// A batch as full producers send it.
const BATCH_BYTES: usize = 128 << 10;
/// Batches of one request: one of each of four partitions.
const BATCHES: usize = 4;
/// Bytes sent.
const TOTAL_BYTES: usize = 2 << 30;
/// Requests that wait for their answer.
const IN_FLIGHT: usize = 5;

struct Nothing;

#[tonic::async_trait]
impl Agent for Nothing {
    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        let results = vec![BatchResult::default(); request.into_inner().batches.len()];
        Ok(Response::new(ProduceResponse { results }))
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // The windows and frames of an agent.
    let service = AgentServer::new(Nothing).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .initial_connection_window_size(16 << 20)
        .initial_stream_window_size(256 << 10)
        .max_frame_size(64 << 10)
        .serve_with_incoming(service, incoming);
    let server = tokio::spawn(server);
    let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
    let client = AgentClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);

    let batch = ProduceBatch {
        topic: "bench".into(),
        partition: 0,
        batch: Bytes::from(vec![0x5a; BATCH_BYTES]),
        record_bytes: BATCH_BYTES as u64,
        traceparent: String::new(),
    };
    let request = ProduceRequest { batches: vec![batch; BATCHES] };
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut answers = JoinSet::new();
    let start = Instant::now();
    for _ in 0..TOTAL_BYTES / (BATCH_BYTES * BATCHES) {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (mut client, request) = (client.clone(), request.clone());
        answers.spawn(async move {
            let answer = client.produce(request).await;
            drop(place);
            answer.map(drop)
        });
    }
    while let Some(answer) = answers.join_next().await {
        answer??;
    }
    let megabytes = TOTAL_BYTES as f64 / 1e6 / start.elapsed().as_secs_f64();
    println!("bare tonic: {megabytes:.0} MB/s, {:.1} million records/s of 100 bytes", megabytes / 107.0);
    server.abort();
    Ok(())
}
