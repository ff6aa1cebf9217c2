//! One GET over loopback.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often a free address is drawn until one is new.
const DRAWS: usize = 100;

/// A loopback address that nobody listens on and that was not given before: one that is given is bound later.
///
/// # Errors
///
/// When no port is free.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    for _ in 0..DRAWS {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address) {
            return Ok(address);
        }
    }
    bail!("no port is free")
}

/// Status and body.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// Asks `http://<address><path>` and reads the answer to its end.
///
/// # Errors
///
/// When nobody listens, or the answer is not HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("nobody answers on http://{address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0 keeps the answer free of chunked framing.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading http://{address}{path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no head")?;
    let status = head.split(' ').nth(1).context("the answer has no status")?.parse()?;
    Ok(Response { status, body: body.to_owned() })
}

/// Whether an agent has started: it answers from its first moment on, also while it opens its stores.
///
/// # Errors
///
/// When it has not, or nobody listens.
pub(crate) fn has_started(agent: SocketAddr) -> Result<()> {
    let ready = get(agent, "/ready")?;
    ensure!(!ready.body.contains("the agent starts"), "/ready says {}: {}", ready.status, ready.body);
    Ok(())
}

/// Whether an agent takes records.
///
/// # Errors
///
/// When it does not, or nobody listens.
pub(crate) fn is_ready(agent: SocketAddr) -> Result<()> {
    let ready = get(agent, "/ready")?;
    ensure!(ready.status == 200, "/ready says {}: {}", ready.status, ready.body);
    Ok(())
}
