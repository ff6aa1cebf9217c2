//! A probe without a kernel program, served with a configuration.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use streamhouse_probe::encode::ClassicBuckets;
use streamhouse_probe::http;
use streamhouse_probe::probe::Probe;
use streamhouse_probe::room::Room;
use streamhouse_probe::web::Web;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::files::Files;

/// The `Authorization` header of a user.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Served while the test runs.
pub(crate) struct Served {
    address: SocketAddr,
}

impl Served {
    pub(crate) async fn start(files: &Files) -> Served {
        let web = Arc::new(Web::load(&files.config()).expect("the configuration is right"));
        let listener = http::listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let probe = Arc::new(Probe::new(Err("no kernel here".to_owned()), Room::default()));
        tokio::spawn({
            let web = web.clone();
            async move { web.watch().await }
        });
        tokio::spawn(async move { http::serve(listener, probe, web, ClassicBuckets::default()).await });
        Served { address }
    }

    /// Where it is served, over TLS.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The answer to a request for the page, over TLS.
    pub(crate) async fn get(
        &self,
        client: &Arc<ClientConfig>,
        authorization: Option<&str>,
    ) -> io::Result<String> {
        let stream = TcpStream::connect(self.address).await?;
        let host = "localhost".try_into().expect("a name");
        ask(TlsConnector::from(client.clone()).connect(host, stream).await?, authorization).await
    }

    /// The same without.
    pub(crate) async fn get_plain(&self) -> String {
        let stream = TcpStream::connect(self.address).await.expect("listening");
        ask(stream, None).await.unwrap_or_default()
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    authorization: Option<&str>,
) -> io::Result<String> {
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
