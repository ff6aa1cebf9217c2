//! What Prometheus scrapes: a page of the real encoder, over loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use streamhouse_probe::encode::Format;

use crate::observed::Observed;

/// A target that answers until the test ends.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    answered: Arc<Mutex<Vec<Format>>>,
}

impl Target {
    /// Answers in the format asked for, or always in `fixed`.
    pub(crate) fn start(observed: &Observed, fixed: Option<Format>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let answered = Arc::new(Mutex::new(Vec::new()));
        let pages = [Format::Text, Format::OpenMetrics, Format::Protobuf]
            .map(|format| (format, observed.page(format)));
        let answers = answered.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever hangs up early asks again.
                let Some(asked) = read_accept(&stream) else { continue };
                let format = fixed.unwrap_or_else(|| Format::negotiate(asked.iter().map(String::as_str)));
                let (_, page) = pages.iter().find(|(of, _)| *of == format).expect("there is one of each");
                // First: whoever has the answer may ask at once what it was.
                answers.lock().expect("no panic").push(format);
                let _ = answer(stream, format, page);
            }
        });
        Target { address, answered }
    }

    /// The formats answered in.
    pub(crate) fn answered(&self) -> Vec<Format> {
        let mut formats = self.answered.lock().expect("no panic").clone();
        formats.dedup();
        formats
    }
}

/// The `Accept` headers of a request.
fn read_accept(stream: &TcpStream) -> Option<Vec<String>> {
    let mut accept = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(accept);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("accept")
        {
            accept.push(value.trim().to_owned());
        }
    }
    None
}

fn answer(mut stream: TcpStream, format: Format, page: &[u8]) -> std::io::Result<()> {
    let (content_type, length) = (format.content_type(), page.len());
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(page)
}
