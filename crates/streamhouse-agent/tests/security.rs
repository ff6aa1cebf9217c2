//! Who is let in, and what becomes of the others: the agent serves on after each.

mod support;

use std::time::Duration;
use streamhouse_agent::Agent;
use streamhouse_proto::v1::agent_client::AgentClient;
use streamhouse_proto::v1::metadata_client::MetadataClient;
use streamhouse_proto::v1::{
    CommitOffsetsRequest, CreateTopicRequest, ListTopicsRequest, NewProducerIdRequest, ProduceRequest,
};
use support::raw::RawConnection;
use support::security::{Authority, authorized, channel, producer, tls_agent, write};
use support::{Log, batch, get, large, until};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

/// Less than anything that a peer may not keep waiting for takes to end by itself.
const SOON: Duration = Duration::from_secs(4);
const TOKENS: &str = "\
    produceproduceproduce produce\n\
    consumeconsumeconsume consume\n\
    adminadminadminadmin admin\n\
    everythingeverything produce,consume,admin\n\
    expiredexpiredexpired produce,consume,admin 2020-01-01T00:00:00Z\n";

async fn agent_with_tokens(log: &Log) -> Agent {
    let path = write(log, "tokens", TOKENS);
    log.agent_with(&["--tokens-file", path.to_str().expect("a path in UTF-8")]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_over_tls_is_stored_and_whom_one_does_not_trust_is_not_spoken_to() {
    let (log, authority, other) = (Log::new(1).await, Authority::new(), Authority::new());
    let agent = tls_agent(&log, &authority, &[]).await;
    let address = agent.grpc_address();
    for tls in [None, Some(other.trusted()), Some(authority.trusted().domain_name("other"))] {
        let client = producer(channel(address, tls));
        assert!(timeout(SOON, client.try_one(batch(0, &["lost"], None))).await.unwrap().is_none());
        let client = producer(channel(address, Some(authority.trusted())));
        client.stored(batch(0, &["x"], None)).await;
    }
    assert_eq!(log.values(0).await, ["x"; 3]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_request_comes_over_tls_whole() {
    let (log, authority) = (Log::new(1).await, Authority::new());
    let agent = tls_agent(&log, &authority, &[]).await;
    let client = producer(channel(agent.grpc_address(), Some(authority.trusted())));
    client.stored(batch(0, &["first"], None)).await;
    let results = client.produce(vec![large(0, 1_000_000); 8]).await;
    assert!(results.iter().all(|result| result.status == 0), "{}", results[0].message);
    assert_eq!(log.values(0).await.iter().map(String::len).sum::<usize>(), 5 + 8_000_000);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_port_without_it_ends_and_others_are_served() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = producer(channel(agent.grpc_address(), Some(Authority::new().trusted())));
    let ended = timeout(Duration::from_secs(30), client.try_one(batch(0, &["lost"], None))).await;
    assert!(ended.expect("it is not kept waiting").is_none());
    let client = producer(channel(agent.grpc_address(), None));
    assert_eq!(client.stored(batch(0, &["x"], None)).await, 0);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_never_finished_keep_nobody_out() {
    let (log, authority) = (Log::new(1).await, Authority::new());
    let agent = tls_agent(&log, &authority, &["--connections-max", "8"]).await;
    let mut silent = Vec::new();
    // A record of a handshake with nothing behind its head, nothing at all, and what is no TLS.
    for hello in [&b"\x16\x03\x01\x02\x00\x01"[..], b"", b"\x16"].into_iter().cycle().take(24) {
        let mut connection = RawConnection::connect(agent.grpc_address()).await;
        connection.send(hello).await;
        silent.push(connection);
    }
    let client = producer(channel(agent.grpc_address(), Some(authority.trusted())));
    let stored = timeout(Duration::from_secs(30), client.stored(batch(0, &["x"], None))).await;
    assert_eq!(stored.expect("a producer is served"), 0);
    drop(silent);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_is_not_finished_in_time_is_ended() {
    let (log, authority) = (Log::new(1).await, Authority::new());
    let agent = tls_agent(&log, &authority, &[]).await;
    let mut silent = TcpStream::connect(agent.grpc_address()).await.unwrap();
    let ended = timeout(Duration::from_secs(30), silent.read(&mut [0])).await.expect("it is ended");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_without_a_restart() {
    let (log, old, new) = (Log::new(1).await, Authority::new(), Authority::new());
    let agent = tls_agent(&log, &old, &[]).await;
    new.issue(&log);
    until("the new certificate", async || {
        let client = producer(channel(agent.grpc_address(), Some(new.trusted())));
        client.try_one(batch(0, &["x"], None)).await.is_some()
    })
    .await;
    let client = producer(channel(agent.grpc_address(), Some(old.trusted())));
    assert!(client.try_one(batch(0, &["x"], None)).await.is_none());
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_good_token_is_refused_and_told_why() {
    let log = Log::new(1).await;
    let agent = agent_with_tokens(&log).await;
    let mut client = AgentClient::new(channel(agent.grpc_address(), None));
    let long = format!("Bearer {}", "x".repeat(10_000));
    let cases: [(&[&str], &str); 8] = [
        (&[], "authorization: Bearer TOKEN"),
        (&["Bearer unknownunknownunknown"], "none that this agent knows"),
        (&["Bearer expiredexpiredexpired"], "has expired"),
        (&["produceproduceproduce"], "is not `Bearer TOKEN`"),
        (&["Basic cHJvZHVjZTpwcm9kdWNl"], "is not `Bearer TOKEN`"),
        (&[""], "is not `Bearer TOKEN`"),
        (&[&long], "at most 512 characters"),
        (&["Bearer produceproduceproduce", "Bearer produceproduceproduce"], "is not `Bearer TOKEN`"),
    ];
    for (headers, said) in cases {
        let request = authorized(ProduceRequest { batches: vec![batch(0, &["lost"], None)] }, headers);
        let status = client.produce(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains(said), "{status}");
    }
    let token = ["Bearer produceproduceproduce"];
    let request = authorized(ProduceRequest { batches: vec![batch(0, &["x"], None)] }, &token);
    assert_eq!(client.produce(request).await.unwrap().into_inner().results[0].status, 0);
    assert_eq!(log.values(0).await, ["x"]);
    assert_eq!(get(agent.http_address(), "/health").await.0, 200, "watching needs no token");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_of_who_is_not_let_in_is_answered_unread() {
    let log = Log::new(1).await;
    let agent = agent_with_tokens(&log).await;
    let mut client = AgentClient::new(channel(agent.grpc_address(), None));
    for _ in 0..5 {
        let request = ProduceRequest { batches: vec![large(0, 1_000_000); 8] };
        let request = authorized(request, &["Bearer consumeconsumeconsume"]);
        let status = client.produce(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(
            status.message().contains("the scope produce; the one that was sent has consume"),
            "{status}"
        );
    }
    assert!(log.values(0).await.is_empty());
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scope_lets_in_to_what_is_its_own() {
    let log = Log::new(1).await;
    let agent = agent_with_tokens(&log).await;
    let tokens =
        ["produceproduceproduce", "consumeconsumeconsume", "adminadminadminadmin", "everythingeverything"];
    let may = [[true, false, false, true], [false, true, true, true], [false, false, true, true]];
    for (index, token) in tokens.into_iter().enumerate() {
        let mut client = MetadataClient::new(channel(agent.grpc_address(), None));
        let bearer = format!("Bearer {token}");
        let header = [bearer.as_str()];
        let create = CreateTopicRequest { name: format!("of-{index}"), partitions: 1, retention: None };
        let commit = CommitOffsetsRequest { group: "readers".into(), ..CommitOffsetsRequest::default() };
        let answers = [
            client.new_producer_id(authorized(NewProducerIdRequest {}, &header)).await.map(drop),
            client.commit_offsets(authorized(commit, &header)).await.map(drop),
            client.create_topic(authorized(create, &header)).await.map(drop),
        ];
        for (answer, may) in answers.into_iter().zip(may) {
            let code = answer.err().map(|status| status.code());
            assert_eq!(code == Some(Code::PermissionDenied), !may[index], "{token}: {code:?}");
        }
        client.list_topics(authorized(ListTopicsRequest {}, &header)).await.unwrap();
    }
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_change_without_a_restart_and_not_for_the_worse() {
    let log = Log::new(1).await;
    let agent = agent_with_tokens(&log).await;
    let client = MetadataClient::new(channel(agent.grpc_address(), None));
    let is_let_in = async |token: &str| {
        let bearer = format!("Bearer {token}");
        client.clone().list_topics(authorized(ListTopicsRequest {}, &[&bearer])).await.is_ok()
    };
    assert!(is_let_in("produceproduceproduce").await);
    write(&log, "tokens", "newnewnewnewnewnew produce\n");
    until("the new token", async || is_let_in("newnewnewnewnewnew").await).await;
    assert!(!is_let_in("produceproduceproduce").await);
    write(&log, "tokens", "what is this\n");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(is_let_in("newnewnewnewnewnew").await);
    agent.shutdown().await;
}
