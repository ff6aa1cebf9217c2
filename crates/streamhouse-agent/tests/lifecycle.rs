//! Start, readiness, restart and shutdown.

mod support;

use sqlx::{Connection, Executor, SqliteConnection};
use std::process::{Command, Stdio};
use std::time::Duration;
use streamhouse_agent::{Agent, StartError};
use streamhouse_core::TopicName;
use streamhouse_hooks::GaugeId;
use streamhouse_metadata::{Agents, Retention, Topics};
use streamhouse_proto::v1::ProduceBatch;
use support::faults::PutFault;
use support::process::AgentProcess;
use support::{Client, Log, batch, get, kind, page, stamped, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_ready_when_it_leases_something() {
    let log = Log::new(0).await;
    let agent = log.agent().await;
    assert_eq!(get(agent.http_address(), "/health").await, (200, "ok\n".into()));
    let (status, body) = get(agent.http_address(), "/ready").await;
    assert_eq!(status, 503);
    assert!(body.contains("streamhouse topic create"), "{body}");

    log.metadata.create_topic(&TopicName::new("orders").unwrap(), 3, Retention::default()).await.unwrap();
    until("readiness", async || get(agent.http_address(), "/ready").await.0 == 200).await;
    assert_eq!(get(agent.http_address(), "/ready").await.1, "ready: 3 partitions leased\n");
    assert_eq!(get(agent.http_address(), "/other").await.0, 404);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_the_same_metadata_is_refused() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let refused = Agent::start(log.config(&["--agent-id", "second"])).await.err().unwrap().to_string();
    assert!(refused.contains("another agent (pid "), "{refused}");

    let mut binary = Command::new(env!("CARGO_BIN_EXE_streamhouse-agent"));
    let output = binary.args(log.flags(&[])).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("another agent (pid ") && said.contains("stop it"), "{said}");

    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(batch(0, &["the first still writes"], None)).await, 0);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_named_with_its_flag() {
    let log = Log::new(1).await;
    let new = tempfile::tempdir().unwrap();
    let place = |name: &str| new.path().join(name).display().to_string();
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap().to_string();
    for flag in ["--grpc-listen-address", "--http-listen-address"] {
        let mut flags = log.flags(&[]);
        let other_values = [
            (flag, address.clone()),
            ("--metadata-path", place("metadata.db")),
            ("--object-store-path", place("objects")),
        ];
        for (flag, value) in other_values {
            let at = flags.iter().position(|each| each == flag).unwrap();
            flags[at + 1] = value;
        }
        let program = std::iter::once("streamhouse-agent".to_owned());
        let flags = <streamhouse_agent::Flags as clap::Parser>::parse_from(program.chain(flags));
        let error = Agent::start(flags.try_into().unwrap()).await.err().unwrap();
        assert!(matches!(error, StartError::Bind { .. }));
        let message = error.to_string();
        assert!(message.contains(&address) && message.contains(flag), "{message}");
        assert!(message.contains("stop what listens there"), "{message}");
    }
    assert_eq!(
        std::fs::read_dir(new.path()).unwrap().count(),
        0,
        "an agent that cannot run leaves nothing behind"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_go_on_after_a_restart() {
    let log = Log::new(1).await;
    for round in 0..3 {
        let agent = log.agent().await;
        let client = Client::connect(agent.grpc_address()).await;
        assert_eq!(client.stored(batch(0, &["a", "b"], None)).await, round * 2);
        match round {
            // Dropped: it ends as if it were killed, and the next takes its leases over at once.
            0 => drop(agent),
            _ => agent.shutdown().await,
        }
    }
    assert_eq!(log.values(0).await, ["a", "b", "a", "b", "a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_answers_what_is_under_way_and_gives_the_leases_back() {
    let log = Log::new(1).await;
    let (agent, faults) = log.faulty_agent(&["--agent-id", "ends"]).await;
    let client = Client::connect(agent.grpc_address()).await;
    faults.puts([PutFault::SlowUntilTold]);
    let send = |batch: &ProduceBatch| {
        let (client, batch) = (client.clone(), batch.clone());
        tokio::spawn(async move { client.one(batch).await })
    };
    let batches = [stamped(0, 9, 0, "in flight"), stamped(0, 9, 1, "waits")];
    let in_flight = send(&batches[0]);
    faults.met.notified().await;
    let waits = send(&batches[1]);
    client.until_received("ends", &batches).await;

    let grpc_address = agent.grpc_address();
    let shutdown = tokio::spawn(agent.shutdown());
    until("the port to close", async || tokio::net::TcpStream::connect(grpc_address).await.is_err()).await;
    faults.told.notify_one();
    for (sent, offset) in [(in_flight, 0), (waits, 1)] {
        let result = sent.await.unwrap();
        assert_eq!((kind(&result), result.base_offset), (None, offset), "{}", result.message);
    }
    shutdown.await.unwrap();
    assert_eq!(log.values(0).await, ["in flight", "waits"]);
    let partitions = log.metadata.partitions(&TopicName::new("orders").unwrap()).await.unwrap();
    assert_eq!(partitions[0].holder, None);
    assert!(log.metadata.agents().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_ends_with_success_when_it_is_asked_to() {
    let log = Log::new(1).await;
    let mut agent = AgentProcess::start(&log);
    let client = Client::connect(agent.grpc_address).await;
    assert_eq!(client.stored(batch(0, &["a"], None)).await, 0);
    // With a connection open.
    assert_eq!(agent.terminate(), Some(0));
    assert!(log.metadata.agents().await.unwrap().is_empty());
    assert_eq!(log.values(0).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brief_lock_of_the_metadata_does_not_make_an_agent_not_ready() {
    let log = Log::new(1).await;
    let flags = ["--lease-term", "6s", "--heartbeat-interval", "100ms", "--agent-id", "locked-out"];
    let agent = log.agent_with(&flags).await;
    let ready = async || get(agent.http_address(), "/ready").await;
    until("readiness", async || ready().await.0 == 200).await;
    let renewals = || page::values(GaugeId::AgentLeaseRenewals, "locked-out").first().map(|one| one.value);
    let before = renewals();
    until("a renewal", async || renewals() != before).await;
    let mut other = SqliteConnection::connect(log.metadata_path().to_str().unwrap()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    // Longer than a renewal's turn, shorter than the term.
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        let (status, body) = ready().await;
        assert_eq!(status, 200, "{body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(ready().await.0, 200);
    agent.shutdown().await;
}
