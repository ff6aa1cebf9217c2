//! TLS: the certificate that the agent shows, and the handshake of a connection.

use crate::watched::{FileError, read};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// HTTP/2 is all that is spoken.
const PROTOCOL: &[u8] = b"h2";

/// Shakes hands with who connects.
pub(crate) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Reads the certificate chain from the first file and its key from the second, both PEM.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Acceptor, FileError> {
        let [certificate, key] = [&files[0], &files[1]];
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|error| FileError::new(certificate, format_args!("it is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(FileError::new(
                certificate,
                "it has no certificate; give a PEM file with the agent's certificate and those between it and its CA",
            ));
        }
        // What is wrong with it is said without anything of it.
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| {
            FileError::new(key, "it has no private key; give a PEM file with the certificate's key")
        })?;
        let unusable = |error: rustls::Error| {
            FileError::new(key, format_args!("it cannot be used with the certificate: {error}"))
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(unusable)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }

    /// A connection whose handshake is done by who reads and writes it: many go on at the same time.
    pub(crate) fn accept(&self, stream: TcpStream) -> Stream {
        Stream::Handshake(Box::new(self.0.accept(stream)))
    }
}

/// A connection's bytes, deciphered if need be.
pub(crate) enum Stream {
    Plain(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    /// The handshake failed, which was told.
    Failed,
}

/// What bytes can be read from and written to.
trait Bytes: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

impl Stream {
    /// What is read and written, when the handshake is done.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Bytes>>> {
        loop {
            match self {
                Stream::Plain(stream) => return Poll::Ready(Ok(Pin::new(stream))),
                Stream::Tls(stream) => return Poll::Ready(Ok(Pin::new(&mut **stream))),
                Stream::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Stream::Handshake(handshake) => match ready!(Pin::new(handshake).poll(context)) {
                    Ok(stream) => *self = Stream::Tls(Box::new(stream)),
                    Err(error) => {
                        *self = Stream::Failed;
                        return Poll::Ready(Err(error));
                    }
                },
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_bytes(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_bytes(context))?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_bytes(context))?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        // Both kinds do.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_bytes(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before the handshake is done there is nobody to say goodbye to.
        match &*self {
            Stream::Handshake(_) | Stream::Failed => Poll::Ready(Ok(())),
            Stream::Plain(_) | Stream::Tls(_) => ready!(self.poll_bytes(context))?.poll_shutdown(context),
        }
    }
}
