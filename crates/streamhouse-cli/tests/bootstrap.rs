//! Clients that have no access to the metadata store: everything goes through agents, with tokens and TLS where they are
//! asked for.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use clap::Parser;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use streamhouse_agent::{Agent, Config, Flags};
use streamhouse_client::{Admin, ClientSecurity, OffsetTarget, Producer, RemoteMetadataStore, Retention};
use streamhouse_core::ErrorKind;
use support::{Log, stderr, wait_until};
use tokio::net::TcpSocket;

const TOKENS: &str = "everything-everything produce,consume,admin\n\
                      only-consume-only-consume consume\n\
                      expired-expired-expired produce 2020-01-01T00:00:00Z\n";

/// An agent, and clients that know nothing but its address.
struct Running {
    log: Log,
    agent: Option<Agent>,
    runtime: tokio::runtime::Runtime,
    address: String,
}

impl Running {
    fn new(flags: &[String]) -> Running {
        let log = Log::new();
        let mut arguments = vec![
            "streamhouse-agent".to_owned(),
            "--agent-id=agent".to_owned(),
            "--grpc-listen-address=127.0.0.1:0".to_owned(),
            "--http-listen-address=127.0.0.1:0".to_owned(),
            format!("--metadata-path={}", log.path("metadata.db").display()),
            format!("--object-store-path={}", log.path("objects").display()),
        ];
        arguments.extend_from_slice(flags);
        let config = Config::try_from(Flags::parse_from(arguments)).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let agent = runtime.block_on(Agent::start(config)).unwrap();
        let address = agent.grpc_address().to_string();
        Running { log, agent: Some(agent), runtime, address }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.log.command(arguments);
        command.env_remove("STREAMHOUSE_METADATA_PATH").env("STREAMHOUSE_BOOTSTRAP", &self.address);
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, arguments: &[&str], says: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        says.iter()
            .for_each(|text| assert!(said.contains(text), "{arguments:?} does not say {text:?}: {said}"));
    }

    /// A file with a token.
    fn token(&self, token: &str) -> String {
        let path = self.log.path("token");
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.runtime.block_on(agent.shutdown());
        }
    }
}

#[test]
fn everything_works_through_an_agent() {
    let running = Running::new(&[]);
    running.ok(&["topic", "create", "orders", "--partitions", "2", "--retention", "7d"]);
    running.ok(&["topic", "set-retention", "orders", "--retention-bytes", "1GiB"]);
    let described: serde_json::Value =
        serde_json::from_str(&running.ok(&["topic", "describe", "orders", "--json"])).unwrap();
    assert_eq!(
        (&described["retention_ms"], &described["retention_bytes"]),
        (&json!(7 * 24 * 3_600_000), &json!(1 << 30))
    );
    running.ok(&["produce", "orders", "--generate", "1000"]);
    let read = ["consume", "orders", "--group", "g", "--quiet", "--max-records", "1000", "--json"];
    let summary: serde_json::Value = serde_json::from_str(&running.ok(&read)).unwrap();
    assert_eq!(summary["records"], 1000);
    let lag: serde_json::Value = serde_json::from_str(&running.ok(&["lag", "--json"])).unwrap();
    assert!(lag.as_array().unwrap().iter().all(|row| row["lag_records"] == 0), "{lag}");
    assert!(running.ok(&["groups", "list"]).contains('g'));
    running.ok(&["groups", "reset-offsets", "g", "--topic", "orders", "--to", "earliest"]);
    running.fails(&["topic", "create", "orders"], &["orders exists already"]);
    running.fails(&["topic", "describe", "missing"], &["missing does not exist"]);
    running.fails(&["topic", "list", "--metadata-path", "x"], &["two logs are named", "--bootstrap"]);
    running.fails(&["consume", "orders", "--group", "h", "--object-store-url", "x"], &["two object stores"]);

    running.fails(&["groups", "delete", "g"], &["group g has its place in 2 partitions", "--yes"]);
    let deleted: serde_json::Value =
        serde_json::from_str(&running.ok(&["groups", "delete", "g", "--yes", "--json"])).unwrap();
    assert_eq!(deleted, json!({"group": "g", "partitions": 2}));
    assert_eq!(running.ok(&["lag", "--json"]).trim(), "[]");
    running.fails(&["groups", "delete", "g", "--yes"], &["group g does not exist"]);
    running.ok(&read);

    running.fails(&["topic", "delete", "orders"], &["orders has 2 partitions with 1000 records", "--yes"]);
    let deleted: serde_json::Value =
        serde_json::from_str(&running.ok(&["topic", "delete", "orders", "--yes", "--json"])).unwrap();
    assert_eq!(deleted, json!({"name": "orders", "partitions": 2, "records": 1000}));
    assert_eq!(running.ok(&["lag", "--json"]).trim(), "[]", "what the group had committed goes too");
    for command in
        [&["produce", "orders", "--generate", "1"][..], &read, &["topic", "delete", "orders", "--yes"]]
    {
        running.fails(command, &["topic orders does not exist"]);
    }
}

#[test]
fn a_token_and_tls_let_in_who_may_and_say_why_others_may_not() {
    let authority = {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let (pem, key) = (file("agent.pem", &certificate.pem()), file("agent.key", &key.serialize_pem()));
    let ca = file("ca.pem", &authority.pem());
    let tokens = file("tokens", TOKENS);
    let running = Running::new(&[
        format!("--tokens-file={tokens}"),
        format!("--tls-cert={pem}"),
        format!("--tls-key={key}"),
    ]);
    let token = running.token("everything-everything");
    let secure = ["--tls-ca", &ca, "--tls-domain", "localhost", "--token-file", &token];
    running.ok(&[&["topic", "create", "orders"], &secure[..]].concat());
    running.ok(&[&["produce", "orders", "--generate", "10"], &secure[..]].concat());
    let read = ["consume", "orders", "--group", "g", "--quiet", "--max-records", "10"];
    running.ok(&[&read[..], &secure[..]].concat());

    running.fails(&["topic", "list", "--tls-ca", &ca, "--tls-domain", "localhost"], &["token"]);
    running.fails(
        &["topic", "list", "--tls-ca", &ca, "--tls-domain", "other", "--token-file", &token],
        &["no agent answered"],
    );
    running.fails(&["topic", "list", "--tls-ca", &tokens], &["no PEM certificate"]);
    running.fails(&["topic", "list", "--token-file", "/no/such/file"], &["token file", "cannot be read"]);
}

#[test]
fn scopes_and_expiry_are_said_at_once_and_a_renewed_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, TOKENS).unwrap();
    let running = Running::new(&[format!("--tokens-file={}", tokens.display())]);
    let file = running.token("everything-everything");
    running.ok(&["topic", "create", "orders", "--token-file", &file]);
    running.token("only-consume-only-consume");
    running.fails(&["topic", "create", "more", "--token-file", &file], &["admin"]);
    running.fails(&["topic", "delete", "orders", "--yes", "--token-file", &file], &["admin"]);
    running.fails(&["produce", "orders", "--generate", "1", "--token-file", &file], &["produce"]);
    running.token("expired-expired-expired");
    running.fails(&["topic", "list", "--token-file", &file], &["expired", "token file"]);

    running.token("everything-everything");
    running.runtime.block_on(async {
        let security = ClientSecurity::default().token_file(&file);
        let producer = Producer::builder().bootstrap(&running.address).security(security);
        // A record that is tried until it is given up would be so for an hour.
        let producer = producer.delivery_timeout(Duration::from_secs(3600)).build().await.unwrap();
        producer.send("orders", None, b"1", None).await.unwrap().await.unwrap();
        running.token("expired-expired-expired");
        // The file is read at most once a second, so some may still go through.
        let error = loop {
            match producer.send("orders", None, b"2", None).await.unwrap().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("put a valid token into the token file"), "{error}");
        running.token("everything-everything");
        producer.send("orders", None, b"3", None).await.unwrap().await.unwrap();
        producer.close().await.unwrap();
    });
}

#[test]
fn an_agent_that_is_gone_or_hangs_is_passed_over_and_named_when_nobody_answers() {
    let running = Running::new(&[]);
    // One address refuses, since it is bound and not listened on; one takes connections and never says a word.
    let refuses = TcpSocket::new_v4().unwrap();
    refuses.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = refuses.local_addr().unwrap().to_string();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = silent.local_addr().unwrap().to_string();
    running.runtime.block_on(async {
        for addresses in [
            format!("{gone},{}", running.address),
            format!("{hangs},{}", running.address),
            format!("{gone}, {hangs}, {}", running.address),
        ] {
            let builder = RemoteMetadataStore::builder(&addresses).call_timeout(Duration::from_secs(60));
            let admin = Admin::new(Arc::new(builder.build().await.unwrap()));
            admin.topics().await.unwrap_or_else(|error| panic!("{addresses}: {error}"));
        }
        let builder = RemoteMetadataStore::builder(format!("{gone},{hangs}"));
        let store = builder.call_timeout(Duration::from_secs(3)).build().await.unwrap();
        let error = Admin::new(Arc::new(store)).topics().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let said = error.to_string();
        assert!(said.contains("no agent answered") && said.contains(&hangs), "{said}");

        // What may not happen twice is not sent twice when its answer may be lost.
        let store = RemoteMetadataStore::builder(&hangs).call_timeout(Duration::from_millis(300));
        let admin = Admin::new(Arc::new(store.build().await.unwrap()));
        let error = admin.create_topic("orders", 1, Retention::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert!(error.to_string().contains("may exist now"), "{error}");
        // What was never sent is.
        let admin = Admin::bootstrap(format!("{gone},{}", running.address), ClientSecurity::default());
        admin.await.unwrap().create_topic("orders", 1, Retention::default()).await.unwrap();
    });
    for addresses in ["", ",", "localhost", "http://localhost:1"] {
        running.fails(&["topic", "list", "--bootstrap", addresses], &["HOST:PORT"]);
    }
}

#[test]
fn lists_of_the_largest_topic_fit_a_message() {
    let running = Running::new(&[]);
    running.runtime.block_on(async {
        let admin = Admin::bootstrap(&running.address, ClientSecurity::default()).await.unwrap();
        let topic = "t".repeat(249);
        admin.create_topic(&topic, 10_000, Retention::default()).await.unwrap();
        assert_eq!(admin.describe_topic(&topic).await.unwrap().partitions.len(), 10_000);
        let moved = admin.reset_offsets("g", &topic, None, OffsetTarget::Latest).await.unwrap();
        assert_eq!(moved.len(), 10_000);
        assert_eq!(admin.describe_group("g").await.unwrap().len(), 10_000);
    });
}

#[test]
fn a_producer_outlives_its_agent() {
    let mut running = Running::new(&[]);
    running.ok(&["topic", "create", "orders"]);
    let producer = running.runtime.block_on(async {
        let producer = Producer::builder().bootstrap(&running.address).build().await.unwrap();
        producer.send("orders", None, b"1", None).await.unwrap().await.unwrap();
        producer
    });
    let agent = running.agent.take().unwrap();
    running.runtime.block_on(agent.shutdown());
    let delivery = running.runtime.block_on(producer.send("orders", None, b"2", None)).unwrap();
    let address = running.address.clone();
    let config = Config::try_from(Flags::parse_from([
        "streamhouse-agent".to_owned(),
        "--agent-id=agent".to_owned(),
        format!("--grpc-listen-address={address}"),
        "--http-listen-address=127.0.0.1:0".to_owned(),
        format!("--metadata-path={}", running.log.path("metadata.db").display()),
        format!("--object-store-path={}", running.log.path("objects").display()),
    ]));
    let config = config.unwrap();
    let mut started = None;
    wait_until("the port to be free again", || {
        started = running.runtime.block_on(Agent::start(config.clone())).ok();
        started.is_some()
    });
    running.agent = started;
    assert_eq!(running.runtime.block_on(delivery).unwrap().offset, 1);
    running.runtime.block_on(producer.close()).unwrap();
}
