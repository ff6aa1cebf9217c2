//! The server as tests use it: a process, an S3 client that its environment configures, and faults.

#![expect(clippy::unwrap_used, reason = "tests")]

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use std::time::Duration;
use streamhouse_tests::S3Server;
use streamhouse_tests::s3::{BUCKET, FaultCounts, Faults, environment};

fn server(dir: &tempfile::TempDir) -> S3Server {
    let binary = env!("CARGO_BIN_EXE_s3-server").as_ref();
    S3Server::start(binary, &dir.path().join("objects"), 7, &dir.path().join("log")).unwrap()
}

/// A client that does not try again.
fn client(server: &S3Server) -> AmazonS3 {
    // The client asks for one even where it speaks plain HTTP. Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retries = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name(BUCKET).with_retry(retries);
    for (name, value) in environment(server.address()) {
        builder = builder.with_config(name.to_lowercase().parse().unwrap(), value);
    }
    builder.build().unwrap()
}

#[tokio::test]
async fn objects_are_kept_and_conditional_puts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir);
    let store = client(&server);
    let path = Path::from("some/object");
    let create = || store.put_opts(&path, PutPayload::from_static(b"payload"), PutMode::Create.into());
    create().await.unwrap();
    assert!(matches!(create().await.unwrap_err(), object_store::Error::AlreadyExists { .. }));
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "payload");
    assert_eq!(store.get_range(&path, 1..4).await.unwrap(), "ayl");
    store.delete(&path).await.unwrap();
    assert!(matches!(store.get(&path).await.unwrap_err(), object_store::Error::NotFound { .. }));
}

#[tokio::test]
async fn every_fault_shows_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(&dir);
    let store = client(&server);
    let path = Path::from("object");
    let put = || store.put(&path, PutPayload::from(vec![7; 100_000]));

    server.set(&Faults { slow_down_percent: 100, ..Faults::default() }).unwrap();
    assert!(put().await.unwrap_err().to_string().contains("503"));
    server.set(&Faults { error_percent: 100, ..Faults::default() }).unwrap();
    assert!(put().await.unwrap_err().to_string().contains("500"));
    server.set(&Faults { unanswered_percent: 100, ..Faults::default() }).unwrap();
    put().await.unwrap_err();
    // It was done all the same.
    server.set(&Faults { truncate_percent: 100, ..Faults::default() }).unwrap();
    let got = store.get(&path).await.unwrap();
    assert_eq!(got.meta.size, 100_000);
    got.bytes().await.unwrap_err();
    let stall = Duration::from_millis(1);
    server.set(&Faults { stall_percent: 100, stall, ..Faults::default() }).unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap().len(), 100_000);

    server.set(&Faults::default()).unwrap();
    put().await.unwrap();
    let counts = server.counts().unwrap();
    let expected =
        FaultCounts { requests: 6, slowed_down: 1, errors: 1, stalled: 1, truncated: 1, unanswered: 1 };
    assert_eq!(counts, expected);
}
