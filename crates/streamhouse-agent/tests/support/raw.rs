//! Connections that speak as little HTTP/2 as they like.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to an agent's gRPC port.
pub(crate) struct RawConnection(TcpStream);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEAD_BYTES: usize = 9;

impl RawConnection {
    pub(crate) async fn connect(address: SocketAddr) -> RawConnection {
        RawConnection(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Says hello as HTTP/2 asks for.
    pub(crate) async fn greet(&mut self) {
        self.send(PREFACE).await;
        self.send(&frame(SETTINGS, 0, 0, &[])).await;
    }

    /// Begins requests and sends nothing of them.
    pub(crate) async fn begin(&mut self, requests: u32) {
        for stream in streams(requests) {
            self.send(&frame(HEADERS, END_HEADERS, stream, &headers())).await;
        }
    }

    /// Begins requests, each of which states a message of this many bytes and sends a few.
    pub(crate) async fn half_open(&mut self, requests: u32, message_bytes: u32) {
        self.begin(requests).await;
        let data = [&[0], &message_bytes.to_be_bytes()[..], b"half"].concat();
        for stream in streams(requests) {
            self.send(&frame(DATA, 0, stream, &data)).await;
        }
    }

    /// Waits until the agent has read what was sent.
    pub(crate) async fn round_trip(&mut self) {
        self.send(&frame(PING, 0, 0, &[7; 8])).await;
        loop {
            let mut head = [0; FRAME_HEAD_BYTES];
            self.0.read_exact(&mut head).await.unwrap();
            let bytes = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; bytes as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            if (head[3], head[4] & ACK) == (PING, ACK) && payload == [7; 8] {
                return;
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The numbers of a client's first streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(count as usize)
}

/// A produce request's headers.
fn headers() -> Vec<u8> {
    let fields: [(&str, &str); 6] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/streamhouse.v1.Agent/Produce"),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    // Literal fields without indexing (RFC 7541, 6.2.2).
    let literal = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], literal(name), literal(value)].concat()).collect()
}
