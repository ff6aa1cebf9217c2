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
        "--grpc-listen-address {address} is reached from other hosts: whoever can connect could {danger}. Add {missing}, or \
         --insecure if the network itself keeps others out"
    )]
    Open {
        /// The address.
        address: SocketAddr,
        /// What others could do.
        danger: &'static str,
        /// The flags to add.
        missing: &'static str,
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
        if let Some((danger, missing)) = missing(tls.is_some(), flags.tokens_file.is_some())
            && !flags.grpc_listen_address.ip().to_canonical().is_loopback()
        {
            let open = SecurityError::Open { address: flags.grpc_listen_address, danger, missing };
            if !flags.insecure {
                return Err(open);
            }
            tracing::warn!("--insecure: whoever can connect to {} can {danger}", flags.grpc_listen_address);
        }
        let tls = tls.map(|files| Watched::open(files, Acceptor::read)).transpose();
        let tokens =
            flags.tokens_file.clone().map(|file| Watched::open(vec![file], Tokens::read)).transpose();
        Ok(Security {
            tokens: tokens.map_err(SecurityError::Tokens)?.map(Arc::new),
            tls: tls.map_err(SecurityError::Tls)?.map(Arc::new),
        })
    }
}

/// What others can do where the port is not guarded, and the flags that keep them from it.
fn missing(tls: bool, tokens: bool) -> Option<(&'static str, &'static str)> {
    match (tls, tokens) {
        (true, true) => None,
        (true, false) => Some(("read and write everything", "--tokens-file FILE")),
        (false, true) => Some(("see tokens and records", "--tls-cert FILE --tls-key FILE")),
        (false, false) => {
            Some(("read and write everything", "--tls-cert FILE --tls-key FILE --tokens-file FILE"))
        }
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

#[cfg(test)]
mod tests {
    use crate::config::{Config, Flags};
    use clap::Parser;
    use std::{fs, path::Path};

    /// What is said of these flags, `DIR/` in them standing for the directory.
    fn refused(dir: &Path, flags: &str) -> Option<String> {
        let (file, program) = (format!("{}/", dir.display()), ["streamhouse-agent"]);
        let flags: Vec<_> = flags.split_whitespace().map(|flag| flag.replace("DIR/", &file)).collect();
        let flags = program.into_iter().chain(flags.iter().map(String::as_str));
        Config::try_from(Flags::try_parse_from(flags).unwrap()).err().map(|error| error.to_string())
    }

    /// A directory with good files, and bad ones.
    fn files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let [own, other] =
            [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
        let files = [
            ("cert", own.cert.pem()),
            ("key", own.signing_key.serialize_pem()),
            ("other-key", other.signing_key.serialize_pem()),
            ("tokens", "AAAAAAAAAAAAAAAA admin\n".to_owned()),
            ("bad-tokens", "AAAAAAAAAAAAAAAA admin\nsecretsecretsecret everything\n".to_owned()),
            ("damaged", own.cert.pem().replacen('M', "%", 1)),
            ("empty", String::new()),
        ];
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    #[test]
    fn tokens_and_tls_can_each_be_had_alone_where_nobody_else_can_connect() {
        let dir = files();
        for flags in [
            "",
            "--tokens-file DIR/tokens",
            "--tls-cert DIR/cert --tls-key DIR/key",
            "--grpc-listen-address [::1]:1 --tokens-file DIR/tokens",
            "--grpc-listen-address 127.9.9.9:1",
            "--grpc-listen-address 10.0.0.1:1 --tls-cert DIR/cert --tls-key DIR/key --tokens-file DIR/tokens",
            "--grpc-listen-address 10.0.0.1:1 --insecure",
            "--grpc-listen-address 10.0.0.1:1 --insecure --tokens-file DIR/tokens",
            "--http-listen-address 10.0.0.1:1",
        ] {
            assert_eq!(refused(dir.path(), flags), None, "{flags}");
        }
    }

    #[test]
    fn who_listens_to_other_hosts_is_told_what_is_missing() {
        let dir = files();
        let cases = [
            ("10.0.0.1:1", "Add --tls-cert FILE --tls-key FILE --tokens-file FILE, or --insecure"),
            ("[::]:1 --advertise-address a:1", "Add --tls-cert FILE --tls-key FILE --tokens-file FILE, or"),
            ("10.0.0.1:1 --tokens-file DIR/tokens", "Add --tls-cert FILE --tls-key FILE, or --insecure"),
            ("10.0.0.1:1 --tls-cert DIR/cert --tls-key DIR/key", "Add --tokens-file FILE, or --insecure"),
        ];
        for (flags, said) in cases {
            let message = refused(dir.path(), &format!("--grpc-listen-address {flags}")).unwrap();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = files();
        let cases = [
            ("--tls-cert DIR/cert", "--tls-cert is given without --tls-key"),
            ("--tls-key DIR/key --insecure", "--tls-key is given without --tls-cert"),
            ("--tls-cert DIR/none --tls-key DIR/key", "none: it cannot be read: No such file"),
            ("--tls-cert DIR/empty --tls-key DIR/key", "empty: it has no certificate"),
            ("--tls-cert DIR/key --tls-key DIR/key", "key: it has no certificate"),
            ("--tls-cert DIR/damaged --tls-key DIR/key", "damaged: it is not PEM"),
            ("--tls-cert DIR/cert --tls-key DIR/cert", "cert: it has no private key"),
            (
                "--tls-cert DIR/cert --tls-key DIR/other-key",
                "other-key: it cannot be used with the certificate",
            ),
            ("--tokens-file DIR/none", "--tokens-file"),
            ("--tokens-file DIR/", "it is not a file"),
            ("--tokens-file DIR/empty", "it has no token"),
            ("--tokens-file DIR/bad-tokens", "line 2: the second field is not a list of scopes"),
        ];
        for (flags, said) in cases {
            let message = refused(dir.path(), flags).unwrap();
            assert!(message.contains(said), "{message}");
            assert!(!message.contains("secretsecret"), "{message}");
        }
    }
}
