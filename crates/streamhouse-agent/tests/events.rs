//! What whoever looks is told: one `write` a batch, one `commit` a flush, one `request` a gRPC request. Alone in its process, which it listens to.

mod support;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use streamhouse_core::ErrorKind;
use streamhouse_proto::v1::GetTopicRequest;
use streamhouse_proto::v1::metadata_client::MetadataClient;
use support::{Client, Log, batch, damaged, kind, stamped};
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The `write`, `commit` and `request` events, as they came.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Told>>>);

/// One event: its noun and fields.
#[derive(Clone, Debug)]
struct Told {
    noun: &'static str,
    fields: HashMap<&'static str, String>,
}

impl Told {
    fn number(&self, field: &str) -> u64 {
        self.fields[field].parse().expect("a number")
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber> Layer<S> for Heard {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let noun = match event.metadata().target() {
            "streamhouse::write" => "write",
            "streamhouse::commit" => "commit",
            "streamhouse::request" => "request",
            _ => return,
        };
        let mut heard = Told { noun, fields: HashMap::new() };
        event.record(&mut heard);
        self.0.lock().expect("no listener panics").push(heard);
    }
}

impl Heard {
    fn take(&self, noun: &str) -> Vec<Told> {
        let mut heard = self.0.lock().expect("no listener panics");
        heard.extract_if(.., |each| each.noun == noun).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_batch_and_every_flush_is_told_once() {
    let heard = Heard::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(heard.clone())).unwrap();
    let log = Log::new(2).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;

    let results =
        client.produce(vec![batch(0, &["12345", "123"], None), batch(1, &["1"], None), damaged(0)]).await;
    assert_eq!(kind(&results[2]), Some(ErrorKind::Corrupt));
    let mut writes = heard.take("write");
    writes.sort_by_key(|write| (write.number("status"), write.number("records")));
    let told: Vec<_> = writes
        .iter()
        .map(|write| (write.number("status"), write.number("records"), write.number("bytes")))
        .collect();
    assert_eq!(told, [(0, 1, 1), (0, 2, 8), (u64::from(ErrorKind::Corrupt.number()), 0, 5)]);
    assert_eq!(writes[1].fields["topic"], "\"orders\"");
    assert_eq!(writes[2].fields["topic"], "\"\"");
    let commits = heard.take("commit");
    assert_eq!(commits.iter().map(|commit| commit.number("records")).sum::<u64>(), 3);
    assert_eq!(commits.iter().map(|commit| commit.number("bytes")).sum::<u64>(), 9);
    assert!(commits.iter().all(|commit| commit.number("status") == 0));

    // A retry is a batch of a request and stores nothing.
    for records in [1, 0] {
        assert_eq!(client.one(stamped(1, 9, 0, "x")).await.base_offset, 1);
        let writes = heard.take("write");
        assert_eq!(writes.len(), 1);
        assert_eq!((writes[0].number("records"), writes[0].number("bytes")), (records, records));
        assert_eq!(heard.take("commit").len() as u64, records);
    }
    let produced = heard.take("request");
    assert_eq!(produced.len(), 3);
    assert!(produced.iter().all(|each| each.fields["method"] == "\"Produce\"" && each.number("status") == 0));

    // A request that fails is told with the kind of its error, and one that there is not as another one.
    let channel = Endpoint::from_shared(format!("http://{}", agent.grpc_address())).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut metadata = MetadataClient::new(channel.clone());
    let unknown = GetTopicRequest { name: "nobody".into() };
    metadata.get_topic(unknown).await.expect_err("there is no such topic");
    let mut other = Grpc::new(channel);
    other.ready().await.unwrap();
    let path = PathAndQuery::from_static("/streamhouse.v1.Agent/Consume");
    let codec = ProstCodec::<GetTopicRequest, GetTopicRequest>::default();
    let asked = Request::new(GetTopicRequest::default());
    other.unary(asked, path, codec).await.expect_err("there is no such method");
    let told: Vec<_> = heard
        .take("request")
        .iter()
        .map(|each| (each.fields["method"].clone(), each.number("status")))
        .collect();
    let numbers = [ErrorKind::NotFound, ErrorKind::Invalid].map(|kind| u64::from(kind.number()));
    assert_eq!(told, [("\"GetTopic\"".to_owned(), numbers[0]), ("\"Other\"".to_owned(), numbers[1])]);
    agent.shutdown().await;
}
