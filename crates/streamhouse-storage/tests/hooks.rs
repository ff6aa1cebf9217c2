//! Every object-store operation tells the hooks once: what it did, how many bytes moved, how it ended.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use futures::TryStreamExt;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use streamhouse_core::{
    ErrorKind, SegmentId, TopicName, TopicPartition,
    batch::{BatchBuilder, Compression},
};
use streamhouse_hooks::{Instance, Role};
use streamhouse_storage::{ObjectStoreUrl, S3Settings, SegmentBuilder, SegmentStore, create_local};
use support::s3::{BUCKET, Fault, S3Server};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

/// Operation, bytes, status.
type Seen = (String, u64, u64);

#[derive(Clone, Default)]
struct Observer(Arc<Mutex<Vec<Seen>>>);

impl<S: Subscriber> Layer<S> for Observer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "streamhouse::object" {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().expect("no test panicked").push(fields.0);
        }
    }
}

#[derive(Default)]
struct Fields(Seen);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "operation" {
            self.0.0 = value.to_owned();
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "bytes" => self.0.1 = value,
            "status" => self.0.2 = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[tokio::test]
async fn each_operation_is_told_once() {
    let observer = Observer::default();
    let _guard = tracing_subscriber::registry().with(observer.clone()).set_default();
    let dir = tempfile::tempdir().unwrap();
    let store =
        SegmentStore::new(create_local(dir.path()).unwrap(), &Instance::new(Role::Agent, "agent", ""));
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(0, None, b"value", &[]).unwrap();
    let mut builder = SegmentBuilder::new();
    let partition = TopicPartition { topic: TopicName::new("orders").unwrap(), partition: 0 };
    builder.add(partition, 0, vec![batch.finish(None)]).unwrap();
    let segment = builder.finish(SegmentId(1));
    let object = segment.object.as_str();

    store.put(&segment).await.unwrap();
    store.put(&segment).await.unwrap_err();
    store.get(object, 10..20).await.unwrap();
    store.size(object).await.unwrap();
    let listed: Vec<_> = store.list().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    store.delete(object).await.unwrap();
    store.get(object, 0..1).await.unwrap_err();

    let status = |kind: ErrorKind| u64::from(kind.number());
    let expected = [
        ("put", segment.bytes, 0),
        ("put", 0, status(ErrorKind::Invalid)),
        ("get", 10, 0),
        ("head", 0, 0),
        ("list", 0, 0),
        ("delete", 0, 0),
        ("get", 0, status(ErrorKind::NotFound)),
    ];
    let seen = observer.0.lock().unwrap().clone();
    assert_eq!(seen, expected.map(|(operation, bytes, status)| (operation.to_owned(), bytes, status)));
}

#[tokio::test]
async fn an_operation_is_told_once_however_often_it_is_tried() {
    let observer = Observer::default();
    let _guard = tracing_subscriber::registry().with(observer.clone()).set_default();
    let directory = tempfile::tempdir().unwrap();
    let server = S3Server::start(directory.path()).await;
    let url: ObjectStoreUrl = format!("s3://{BUCKET}").parse().unwrap();
    let mut settings = S3Settings::from_variables(server.variables());
    // A slow machine makes no attempt more.
    settings.limits.answer_timeout = Duration::from_secs(60);
    settings.limits.operation_timeout = Duration::from_secs(120);
    let objects = url.create_with(&settings).unwrap();
    let store = SegmentStore::new(objects, &support::segments::instance());
    let segment = support::segments::segment(1, 1, 1, 100);

    server.meet([Fault::Answer(503, "SlowDown"), Fault::AnswerLost]);
    store.put(&segment).await.unwrap();
    server.meet([Fault::Truncated]);
    store.get(&segment.object, 0..7).await.unwrap();

    assert_eq!(server.take_seen().len(), 4 + 2, "attempts, and a look at what is there");
    let seen = observer.0.lock().unwrap().clone();
    assert_eq!(seen, [("put".to_owned(), segment.bytes, 0), ("get".to_owned(), 7, 0)]);
}
