//! Requests over real connections, to a probe without a kernel program.

use super::connections::CONNECTIONS_MAX;
use super::*;
use crate::room::Room;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Serves a probe without a kernel program; gives its address.
async fn start() -> (SocketAddr, Arc<Probe>) {
    let listener = listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let probe = Arc::new(Probe::new(Err("no kernel here".to_owned()), Room::default()));
    tokio::spawn(serve(listener, probe.clone(), Arc::new(Web::open()), ClassicBuckets::default()));
    (address, probe)
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

#[tokio::test]
async fn each_path_answers_as_documented() {
    let (address, probe) = start().await;
    let metrics = get(address, "/metrics").await;
    assert!(
        metrics.starts_with("HTTP/1.1 200") && metrics.contains(Format::Text.content_type()),
        "{metrics}"
    );
    assert!(metrics.contains("\nstreamhouse_probe_scrapes_total 0\n"), "{metrics}");
    assert!(get(address, "/metrics").await.contains("\nstreamhouse_probe_scrapes_total 1\n"));
    assert!(get(address, "/targets").await.ends_with("{\"targets\":[]}"));
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/").await.contains("<a href=\"/metrics\">"));
    assert!(get(address, "/etc/passwd").await.starts_with("HTTP/1.1 404"));
    assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
    probe.swept();
    assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
}

/// Opens a connection that never finishes its head.
async fn open_slow(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.expect("sent");
    stream
}

#[tokio::test]
async fn whoever_sends_no_head_keeps_nobody_out() {
    let (address, _probe) = start().await;
    let mut slow = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        slow.push(open_slow(address).await);
    }
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
    let (oldest, youngest) = (&slow[0], &slow[3 * CONNECTIONS_MAX - 1]);
    let closed = oldest.try_read(&mut [0; 64]);
    assert!(closed.as_ref().is_ok_and(|read| *read == 0) || is_reset(&closed), "{closed:?}");
    let waits = youngest.try_read(&mut [0; 64]).map_err(|error| error.kind());
    assert_eq!(waits, Err(std::io::ErrorKind::WouldBlock), "it loses its place to nobody");
}

/// Closed while what was sent lay unread.
fn is_reset(read: &std::io::Result<usize>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_no_head_is_cut_off() {
    let (address, _probe) = start().await;
    let mut stream = open_slow(address).await;
    let mut answer = Vec::new();
    // Closed, or closed with what was sent still unread.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn scrapes_at_the_same_time_take_their_turn() {
    let (address, _probe) = start().await;
    let pages = futures_of(8, || get(address, "/metrics")).await;
    let mut numbers: Vec<u64> = pages
        .iter()
        .map(|page| {
            let lines = page.lines().filter_map(|line| line.strip_prefix("streamhouse_probe_scrapes_total "));
            lines.map(|number| number.parse().expect("a number")).next().expect("served")
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

async fn futures_of<F>(count: usize, make: impl Fn() -> F) -> Vec<String>
where
    F: Future<Output = String> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(make())).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.expect("no panic"));
    }
    done
}

#[tokio::test]
async fn an_address_in_use_is_said() {
    let (address, _probe) = start().await;
    let error = listen(address).await.expect_err("in use").to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--web.listen-address"), "{error}");
}

#[tokio::test]
async fn other_methods_and_bodies_are_refused() {
    let (address, _probe) = start().await;
    for (request, expected) in [
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 405"),
        ("DELETE /targets HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405"),
        ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"),
        ("GET /metrics HTTP/1.1\r\n\r\n\r\n", "HTTP/1.1 200"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let answer = exchange(address, request.as_bytes()).await;
        assert!(answer.starts_with(expected), "{request}: {answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let answer = exchange(address, long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    let answer = exchange(address, many.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
}

/// What is answered to some bytes; nothing when the connection is cut.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    let mut answer = Vec::new();
    // Cut off while it is sent is an answer too.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn scrapes_wait_no_longer_than_whoever_asks() {
    let probe = Arc::new(Probe::new(Err("no kernel here".to_owned()), Room::default()));
    let turns = Arc::new(Semaphore::new(0));
    let served = Served { probe, buckets: ClassicBuckets::default(), turns: turns.clone() };
    let headers = HeaderMap::from_iter([(
        header::HeaderName::from_static(SCRAPE_TIMEOUT),
        header::HeaderValue::from_static("0.05"),
    )]);
    let answer = metrics(State(served.clone()), headers.clone()).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    turns.add_permits(1);
    assert_eq!(metrics(State(served.clone()), headers).await.status(), StatusCode::OK);
    // The turn is given back.
    assert_eq!(metrics(State(served), HeaderMap::new()).await.status(), StatusCode::OK);
}

#[test]
fn patience_is_what_is_stated_and_never_too_much() {
    let of = |value: &'static str| {
        let name = header::HeaderName::from_static(SCRAPE_TIMEOUT);
        patience(&HeaderMap::from_iter([(name, header::HeaderValue::from_static(value))]))
    };
    assert_eq!((of("2.5"), of("1e9"), of("0")), (Duration::from_millis(2500), TURN_TIMEOUT, Duration::ZERO));
    for wrong in ["", "-1", "NaN", "soon", "inf"] {
        assert_eq!(of(wrong), TURN_TIMEOUT, "{wrong}");
    }
}
