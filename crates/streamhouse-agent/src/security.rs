//! Who may connect to the gRPC port, and how: tokens, TLS, and the rule that other hosts need both.

use crate::auth::Tokens;
use crate::config::Flags;
use crate::tls::Acceptor;
use crate::watched::{FileError, Watched};
use futures::future::{Either, FutureExt, pending, select};
use std::{convert::Infallible as Never, net::SocketAddr, pin::pin, sync::Arc};

/// What guards the gRPC port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) tokens: Option<Arc<Watched<Tokens>>>,
    pub(crate) tls: Option<Arc<Watched<Acceptor>>>,
}

/// Why the gRPC port cannot be guarded as it was told, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The file of tokens cannot be used.
    #[error("--tokens-file {0}")]
    Tokens(#[source] FileError),
    /// The certificate or its key cannot be used.
    #[error("--tls-cert and --tls-key: {0}")]
    Tls(#[source] FileError),
    /// One of two that go together.
    #[error("{given} is given without {missing}; TLS needs a certificate and its key")]
    TlsHalf {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// Anybody could read and write.
    #[error(
        "--grpc-listen-address {address} is reached from other hosts: whoever can connect could {danger}. Add {flags}, or \
         --insecure if the network itself keeps others out"
    )]
    Open {
        /// The address.
        address: SocketAddr,
        /// What others could do.
        danger: &'static str,
        /// What to add.
        flags: &'static str,
    },
}

impl TryFrom<&Flags> for Security {
    type Error = SecurityError;

    fn try_from(flags: &Flags) -> Result<Security, SecurityError> {
        let tls = match (&flags.tls_cert, &flags.tls_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(vec![certificate.clone(), key.clone()]),
            (Some(_), None) => {
                return Err(SecurityError::TlsHalf { given: "--tls-cert", missing: "--tls-key" });
            }
            (None, Some(_)) => {
                return Err(SecurityError::TlsHalf { given: "--tls-key", missing: "--tls-cert" });
            }
        };
        let address = flags.grpc_listen_address;
        if !address.ip().to_canonical().is_loopback() && !flags.insecure {
            let (danger, flags) = match (tls.is_some(), flags.tokens_file.is_some()) {
                (true, true) => ("", ""),
                (true, false) => ("read and write everything", "--tokens-file FILE"),
                (false, true) => ("see tokens and records", "--tls-cert FILE --tls-key FILE"),
                (false, false) => {
                    ("read and write everything", "--tls-cert FILE --tls-key FILE --tokens-file FILE")
                }
            };
            if !flags.is_empty() {
                return Err(SecurityError::Open { address, danger, flags });
            }
        }
        let tls = tls.map(|files| Watched::open(files, Acceptor::read)).transpose();
        let tokens = flags.tokens_file.iter().cloned().map(|file| Watched::open(vec![file], Tokens::read));
        Ok(Security {
            tokens: tokens.last().transpose().map_err(SecurityError::Tokens)?.map(Arc::new),
            tls: tls.map_err(SecurityError::Tls)?.map(Arc::new),
        })
    }
}

impl Security {
    /// Reads the files again when they change. Never ends.
    pub(crate) async fn watch(self) -> Never {
        let tokens =
            self.tokens.map_or_else(|| pending().left_future(), |tokens| tokens.watch().right_future());
        let tls = self.tls.map_or_else(|| pending().left_future(), |tls| tls.watch().right_future());
        match select(pin!(tokens), pin!(tls)).await {
            Either::Left((never, _)) | Either::Right((never, _)) => never,
        }
    }
}
