//! Peers that keep what they take: other producers are served all the same.

mod support;

use std::time::Duration;
use streamhouse_agent::Agent;
use streamhouse_core::limits::MESSAGE_BYTES_MAX;
use support::process::AgentProcess;
use support::raw::RawConnection;
use support::{Client, Log, batch, get, kind};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Less than anything that a peer may not keep waiting for takes to end by itself.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_do_nothing_give_way() {
    let log = Log::new(1).await;
    let agent = Agent::start(log.config(&["--connections-max", "4"])).await.unwrap();
    let (mut idle, mut clients) = (Vec::new(), Vec::new());
    for greeting in ["", "PRI * HT", "not HTTP"] {
        let mut connection = RawConnection::connect(agent.grpc_address()).await;
        connection.send(greeting.as_bytes()).await;
        idle.push(connection);
    }
    // One that speaks the protocol, and only begins requests.
    let mut greeted = RawConnection::connect(agent.grpc_address()).await;
    greeted.greet().await;
    greeted.begin(3).await;
    greeted.round_trip().await;
    for offset in 0..3 {
        let served = async {
            let client = Client::connect(agent.grpc_address()).await;
            (client.stored(batch(0, &["x"], None)).await, client)
        };
        let (stored, client) = timeout(SOON, served).await.expect("a producer is served");
        assert_eq!(stored, offset);
        // Producers that stay connected and send nothing give way too.
        idle.push(RawConnection::connect(agent.grpc_address()).await);
        clients.push(client);
    }
    drop((idle, greeted, clients));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_never_finished_keep_no_other_out() {
    let log = Log::new(1).await;
    let agent = Agent::start(log.config(&["--unflushed-bytes-max", "18MiB"])).await.unwrap();
    let mut peer = RawConnection::connect(agent.grpc_address()).await;
    peer.greet().await;
    peer.half_open(8, MESSAGE_BYTES_MAX as u32).await;
    peer.round_trip().await;
    let client = Client::connect(agent.grpc_address()).await;
    let result = timeout(SOON, client.one(batch(0, &["x"], None))).await.expect("a producer is served");
    assert_eq!(kind(&result), None, "{}", result.message);
    drop(peer);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watching_the_agent_is_not_kept_from_others_by_idle_connections() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let mut idle = Vec::new();
    for _ in 0..70 {
        idle.push(TcpStream::connect(agent.http_address()).await.unwrap());
    }
    let answer = timeout(SOON, get(agent.http_address(), "/health")).await.expect("it is answered");
    assert_eq!(answer, (200, "ok\n".into()));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_may_open_as_many_files_as_it_is_allowed_to() {
    let log = Log::new(1).await;
    let agent = AgentProcess::start_with_files(&log, 100, 200);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("200"), "{files}");
    // More connections than files: when they are gone, the log is written as if nothing had been.
    let mut idle = Vec::new();
    for _ in 0..220 {
        idle.push(TcpStream::connect(agent.grpc_address).await.unwrap());
    }
    drop(idle);
    let served = async { Client::connect(agent.grpc_address).await.stored(batch(0, &["x"], None)).await };
    assert_eq!(timeout(SOON, served).await.expect("a producer is served"), 0);
}
