//! S3 that fails: what is tried again, how long it takes, and what is said in the end.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use futures::TryStreamExt;
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};
use streamhouse_core::ErrorKind;
use streamhouse_storage::{ObjectStoreUrl, S3Settings, SegmentStore, StorageError};
use support::{
    s3::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY},
    segments::{bytes_of, instance, segment},
};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpSocket};

struct Fixture {
    server: S3Server,
    store: SegmentStore,
    _directory: TempDir,
}

impl Fixture {
    /// A store that is patient with a slow machine and pauses little.
    async fn new() -> Self {
        Self::with_answer_timeout(Duration::from_secs(60)).await
    }

    async fn with_answer_timeout(timeout: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = S3Server::start(directory.path()).await;
        let store = store(settings(server.variables(), timeout));
        Self { server, store, _directory: directory }
    }

    /// Names of the objects as files.
    fn stored(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.server.files().join("segments")) else { return Vec::new() };
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn settings(variables: Vec<(&str, String)>, answer_timeout: Duration) -> S3Settings {
    let mut settings = S3Settings::from_variables(variables);
    settings.limits.answer_timeout = answer_timeout;
    settings.limits.backoff_min = Duration::from_millis(1);
    settings.limits.backoff_max = Duration::from_millis(20);
    settings.limits.retry_timeout = 2 * answer_timeout;
    settings.limits.operation_timeout = 10 * answer_timeout;
    settings
}

fn store(settings: S3Settings) -> SegmentStore {
    let url: ObjectStoreUrl = format!("s3://{BUCKET}").parse().unwrap();
    SegmentStore::new(url.create_with(&settings).unwrap(), &instance())
}

#[tokio::test]
async fn throttling_is_waited_out() {
    let Fixture { server, store, .. } = &Fixture::new().await;
    let segment = segment(1, 2, 2, 100);
    server.meet([Fault::Answer(503, "SlowDown"); 3]);
    store.put(&segment).await.unwrap();
    assert_eq!(server.take_seen(), [Method::PUT; 4]);
    server.meet([
        Fault::Answer(503, "SlowDown"),
        Fault::Answer(500, "InternalError"),
        Fault::Answer(429, ""),
    ]);
    assert_eq!(store.get(&segment.object, 0..segment.bytes).await.unwrap(), bytes_of(&segment));
    assert_eq!(server.take_seen(), [Method::GET; 4]);
    server.meet([Fault::Answer(503, "SlowDown")]);
    assert_eq!(store.list().try_collect::<Vec<_>>().await.unwrap().len(), 1);
    server.meet([Fault::Answer(503, "SlowDown")]);
    store.delete(&segment.object).await.unwrap();
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_has_stored_its_object_once() {
    let fixture = Fixture::new().await;
    for (id, fault) in [
        (1, Fault::AnswerLost),
        (2, Fault::AnswerReplaced(500, "InternalError")),
        (3, Fault::AnswerReplaced(503, "SlowDown")),
    ] {
        let segment = segment(id, 2, 2, 100);
        fixture.server.meet([fault]);
        fixture.store.put(&segment).await.unwrap();
        // Stored, refused because it is there, looked at.
        assert_eq!(fixture.server.take_seen(), [Method::PUT, Method::PUT, Method::HEAD], "{fault:?}");
        assert_eq!(fixture.store.get(&segment.object, 0..segment.bytes).await.unwrap(), bytes_of(&segment));
        fixture.server.take_seen();
    }
    assert_eq!(fixture.stored().len(), 3);
}

#[tokio::test]
async fn an_object_of_another_is_no_success_of_a_put_that_was_tried_again() {
    let Fixture { server, store, .. } = &Fixture::new().await;
    let (theirs, mut ours) = (segment(1, 1, 2, 100), segment(2, 1, 2, 200));
    ours.object = theirs.object.clone();
    store.put(&theirs).await.unwrap();
    server.meet([Fault::Answer(503, "SlowDown")]);
    let error = store.put(&ours).await.unwrap_err();
    assert!(matches!(error, StorageError::Exists { .. }), "{error}");
    assert_eq!(store.get(&theirs.object, 0..theirs.bytes).await.unwrap(), bytes_of(&theirs));
}

#[tokio::test]
async fn a_conflict_of_conditional_puts_is_tried_again() {
    let Fixture { server, store, .. } = &Fixture::new().await;
    server.meet([Fault::Answer(409, "ConditionalRequestConflict"); 2]);
    store.put(&segment(1, 1, 1, 100)).await.unwrap();
    assert_eq!(server.take_seen(), [Method::PUT; 3]);
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_asked_for_again() {
    let Fixture { server, store, .. } = &Fixture::new().await;
    let segment = segment(1, 2, 10, 10_000);
    store.put(&segment).await.unwrap();
    server.meet([Fault::Truncated, Fault::AnswerLost]);
    server.take_seen();
    assert_eq!(store.get(&segment.object, 0..segment.bytes).await.unwrap(), bytes_of(&segment));
    assert_eq!(server.take_seen(), [Method::GET; 3]);
    server.meet([Fault::Truncated]);
    assert_eq!(store.list().try_collect::<Vec<_>>().await.unwrap().len(), 1);
    assert_eq!(server.take_seen(), [Method::GET; 2]);
}

#[tokio::test]
async fn a_transfer_that_always_breaks_is_no_damage() {
    let Fixture { server, store, .. } = &Fixture::new().await;
    let segment = segment(1, 2, 10, 10_000);
    store.put(&segment).await.unwrap();
    server.meet([Fault::Truncated; 100]);
    let error = store.get(&segment.object, 0..segment.bytes).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the connection failed"), "{error}");
}

#[tokio::test]
async fn a_stalled_answer_is_asked_for_again() {
    // Long enough for a slow machine to answer in.
    let Fixture { server, store, .. } = &Fixture::with_answer_timeout(Duration::from_secs(3)).await;
    let segment = segment(1, 2, 10, 10_000);
    server.meet([Fault::Stalled]);
    store.put(&segment).await.unwrap();
    server.meet([Fault::BodyStalls]);
    assert_eq!(store.get(&segment.object, 0..segment.bytes).await.unwrap(), bytes_of(&segment));
    let seen = server.take_seen();
    for method in [Method::PUT, Method::GET] {
        assert!(seen.iter().filter(|seen| **seen == method).count() >= 2, "{seen:?}");
    }
}

#[tokio::test]
async fn a_server_that_stalls_for_good_ends_every_operation() {
    let Fixture { server, store, .. } = &Fixture::with_answer_timeout(Duration::from_millis(100)).await;
    server.meet([Fault::Stalled; 1000]);
    let segment = segment(1, 1, 1, 100);
    let results = [
        store.put(&segment).await,
        store.get(&segment.object, 0..1).await.map(drop),
        store.size(&segment.object).await.map(drop),
        store.delete(&segment.object).await,
        store.list().try_collect::<Vec<_>>().await.map(drop),
        store.now_ms().await.map(drop),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("within"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so() {
    // Bound and not listened on: nobody else gets it.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut variables = credentials();
    variables.push(("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")));
    let store = store(settings(variables, Duration::from_secs(60)));
    let error = store.put(&segment(1, 1, 1, 10)).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
    for part in [format!("127.0.0.1:{port}"), "Connection refused".to_owned()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
}

/// That the server's certificate would be checked is the TLS library's to test; here it is asked for one.
#[tokio::test]
async fn an_https_endpoint_is_spoken_to_in_tls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut variables = credentials();
    variables.push(("AWS_ENDPOINT_URL", format!("https://{}", listener.local_addr().unwrap())));
    let store = store(settings(variables, Duration::from_secs(60)));
    let first = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap()
    });
    let error = store.put(&segment(1, 1, 1, 10)).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
    assert_eq!(first.await.unwrap(), 22, "a TLS record of type handshake");
}

fn credentials() -> Vec<(&'static str, String)> {
    vec![("AWS_ACCESS_KEY_ID", "a".to_owned()), ("AWS_SECRET_ACCESS_KEY", "b".to_owned())]
}

#[tokio::test]
async fn wrong_credentials_and_a_missing_bucket_are_said_once_and_clearly() {
    let Fixture { server, _directory: directory, .. } = &Fixture::new().await;
    let segment = segment(1, 1, 1, 100);
    let with = |variable: (&'static str, String)| {
        let mut variables = server.variables();
        variables.push(variable);
        store(settings(variables, Duration::from_secs(60)))
    };
    let key = with(("AWS_ACCESS_KEY_ID", "nobody".to_owned())).put(&segment).await.unwrap_err();
    let secret =
        with(("AWS_SECRET_ACCESS_KEY", "a secret of mine".to_owned())).put(&segment).await.unwrap_err();
    assert_eq!(server.take_seen(), [Method::PUT; 2]);
    fs::remove_dir(directory.path().join(BUCKET)).unwrap();
    let bucket = store(settings(server.variables(), Duration::from_secs(60)));
    let list = bucket.list().try_collect::<Vec<_>>().await.unwrap_err();
    // This server would make the bucket.
    server.meet([Fault::Answer(404, "NoSuchBucket")]);
    let put = bucket.put(&segment).await.unwrap_err();
    assert_eq!(server.take_seen(), [Method::GET, Method::PUT]);
    for (error, sentence) in [
        (key, "correct AWS_ACCESS_KEY_ID"),
        (secret, "correct AWS_SECRET_ACCESS_KEY"),
        (put, "there is no such bucket; create it"),
        (list, "there is no such bucket; create it"),
    ] {
        assert!(matches!(error, StorageError::Refused { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(sentence), "{error}");
        assert!(!error.to_string().contains("secret of mine"), "{error}");
    }
}

#[tokio::test]
async fn a_full_server_is_said_so() {
    let Fixture { server, store, .. } = &Fixture::new().await;
    server.meet([Fault::Answer(507, "XMinioStorageFull"); 1000]);
    let error = store.put(&segment(1, 1, 1, 100)).await.unwrap_err();
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
}

/// As an instance's metadata service does.
async fn give_a_roles_key(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (key, secret) = (ACCESS_KEY, SECRET_KEY);
    let answer = match (request.method(), request.uri().path()) {
        (&Method::PUT, "/latest/api/token") => "a token".to_owned(),
        (_, "/latest/meta-data/iam/security-credentials/") => "writer".to_owned(),
        (_, "/latest/meta-data/iam/security-credentials/writer") => format!(
            r#"{{"AccessKeyId":"{key}","SecretAccessKey":"{secret}","Token":"","Expiration":"2999-01-01T00:00:00Z"}}"#
        ),
        _ => String::new(),
    };
    Ok(Response::new(answer))
}

#[tokio::test]
async fn a_roles_credentials_are_used_when_no_others_are_given() {
    let fixture = Fixture::new().await;
    let metadata = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut variables = fixture.server.variables();
    variables.truncate(1);
    variables.push(("AWS_METADATA_ENDPOINT", format!("http://{}", metadata.local_addr().unwrap())));
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = metadata.accept().await {
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(give_a_roles_key));
            tokio::spawn(connection);
        }
    });
    let mut settings = settings(variables, Duration::from_secs(60));
    settings.limits.credentials_timeout = Duration::from_secs(60);
    store(settings).put(&segment(1, 1, 1, 100)).await.unwrap();
    assert_eq!(fixture.stored().len(), 1);
    serving.abort();
}

#[tokio::test]
async fn without_credentials_the_error_names_the_variables_and_comes_soon() {
    // Takes connections and says nothing, as an address does that leads nowhere.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let metadata = format!("http://{}", silent.local_addr().unwrap());
    let mut settings = S3Settings::from_variables([("AWS_METADATA_ENDPOINT", metadata)]);
    settings.limits.credentials_timeout = Duration::from_millis(200);
    let (store, begun) = (store(settings), Instant::now());
    let error = store.put(&segment(1, 1, 1, 100)).await.unwrap_err();
    assert!(matches!(error, StorageError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
