//! How a client shows who it is and knows whom it talks to: bearer tokens and TLS.

mod token;

use crate::error::{ClientError, Result};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, net::IpAddr, sync::Arc};
use streamhouse_hooks::{TraceContext, trace::TRACEPARENT};
use token::TokenSource;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a connection with requests on it is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a client sends with its requests to agents, and what it asks of them. The default is neither token nor TLS, which
/// agents accept on loopback.
///
/// ```
/// use streamhouse_client::ClientSecurity;
///
/// let security = ClientSecurity::default().token_file("/run/secrets/token").tls_ca("/etc/streamhouse/ca.pem");
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClientSecurity {
    token: Option<Token>,
    tls: bool,
    ca: Option<PathBuf>,
    domain: Option<String>,
    plain_token: bool,
}

#[derive(Clone)]
enum Token {
    Text(Arc<str>),
    File(PathBuf),
}

/// Never the token itself: what is printed ends up in logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Text(_) => f.write_str("Text(..)"),
            Token::File(path) => write!(f, "File({path:?})"),
        }
    }
}

impl ClientSecurity {
    /// Sends this bearer token with each request.
    pub fn token(mut self, token: impl AsRef<str>) -> Self {
        self.token = Some(Token::Text(token.as_ref().into()));
        self
    }

    /// Sends the bearer token that is in this file, and a new one soon after the file has changed: at once when an agent
    /// does not know the old one any more.
    pub fn token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(file.into()));
        self
    }

    /// Talks TLS, and only to agents whose certificate one of the system's authorities has signed, unless
    /// [`tls_ca`](Self::tls_ca) names another.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Talks TLS, and only to agents whose certificate was signed by one of the authorities in this PEM file, which is
    /// read once.
    pub fn tls_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls = true;
        self.ca = Some(file.into());
        self
    }

    /// The name that the agents' certificates must have. Default: the host that is connected to.
    pub fn tls_domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sends the token also in clear to other hosts. Whoever sees the network's traffic can then use it.
    pub fn insecure(mut self) -> Self {
        self.plain_token = true;
        self
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// `Invalid` for a file that cannot be used, or a token that no header can carry.
    pub(crate) async fn connector(&self) -> Result<Connector> {
        let token = match &self.token {
            None => None,
            Some(Token::Text(token)) => Some(TokenSource::fixed(token)?),
            Some(Token::File(path)) => Some(TokenSource::file(path).await?),
        };
        let tls = if self.tls { Some(self.tls_config().await?) } else { None };
        Ok(Connector { token: token.map(Arc::new), tls, plain_token: self.plain_token })
    }

    async fn tls_config(&self) -> Result<ClientTlsConfig> {
        let mut tls = match &self.ca {
            None => ClientTlsConfig::new().with_native_roots(),
            Some(path) => {
                let pem = tokio::fs::read(path).await.map_err(|error| {
                    ClientError::Invalid(format!(
                        "the certificates in {} cannot be read: {error}; give a PEM file with the authority that \
                         signed the agents' certificates",
                        path.display()
                    ))
                })?;
                if !pem.windows(PEM_CERTIFICATE.len()).any(|window| window == PEM_CERTIFICATE) {
                    return Err(ClientError::Invalid(format!(
                        "{} has no PEM certificate; give the one of the authority that signed the agents' certificates",
                        path.display()
                    )));
                }
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
        };
        if let Some(domain) = &self.domain {
            tls = tls.domain_name(domain);
        }
        Ok(tls)
    }
}

const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Makes connections to agents and says who asks. Clones share the token.
#[derive(Clone, Default)]
pub(crate) struct Connector {
    token: Option<Arc<TokenSource>>,
    tls: Option<ClientTlsConfig>,
    plain_token: bool,
}

/// The header that the token is in.
pub(crate) const AUTHORIZATION: &str = "authorization";

/// Why a request was not sent: a sentence.
pub(crate) type NotSent = Arc<str>;

impl Connector {
    /// A connection to `host:port` that comes about with the first request, and again after it broke.
    ///
    /// # Errors
    ///
    /// When the address or the TLS settings mean nothing, or the token would cross a network in clear.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, NotSent> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let unusable = |error: &dyn fmt::Display| {
            NotSent::from(format!(
                "the agent's address {address:?} is not usable: {error}; it must be HOST:PORT"
            ))
        };
        let uri: Uri = format!("{scheme}://{address}").parse().map_err(|error| unusable(&error))?;
        let host = uri.host().unwrap_or_default();
        if uri.port_u16().is_none() || host.is_empty() || uri.path() != "/" || address.ends_with('/') {
            return Err(unusable(&"it has no port, or more than host and port"));
        }
        if self.token.is_some() && self.tls.is_none() && !self.plain_token && !is_loopback(host) {
            return Err(format!(
                "the token was not sent to {address}: without TLS others can read it on its way; use TLS, or allow it \
                 as insecure"
            )
            .into());
        }
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let endpoint = match &self.tls {
            None => endpoint,
            Some(tls) => endpoint
                .tls_config(tls.clone())
                .map_err(|error| with_causes(format!("TLS cannot be used: {error}"), &error))?,
        };
        Ok(endpoint.connect_lazy())
    }

    /// A request with this message, the token, and the trace that is current.
    pub(crate) async fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert(AUTHORIZATION, token.header().await);
        }
        let trace = TraceContext::current().and_then(|context| context.to_string().parse().ok());
        if let Some(trace) = trace {
            request.metadata_mut().insert(TRACEPARENT, trace);
        }
        request
    }

    /// After an agent has refused the token that `sent` had: whether there is another now.
    pub(crate) async fn renewed(&self, sent: Option<&AsciiMetadataValue>) -> bool {
        match (&self.token, sent) {
            (Some(token), Some(sent)) => token.renewed(sent).await,
            _ => false,
        }
    }

    /// What to do when an agent does not accept who asks.
    pub(crate) fn advice(&self) -> &'static str {
        match &self.token {
            None => "give a token with `token_file`, or `--token-file`",
            Some(token) if token.is_file() => "put a valid token into the token file; it is read again",
            Some(_) => "start again with a valid token",
        }
    }
}

/// Whether what is sent there stays on this host.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a status says and what it came from, as one sentence: transports say little at the top.
pub(crate) fn sentence(status: &tonic::Status) -> String {
    with_causes(status.message().to_owned(), status)
}

/// What was said of an error, and whatever its causes add to that.
fn with_causes(mut said: String, error: &dyn std::error::Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_said = cause.to_string();
        if said.is_empty() {
            said = cause_said;
        } else if !said.contains(&cause_said) {
            said = format!("{said}: {cause_said}");
        }
        source = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_hosts_and_ports() {
        let connector = Connector::default();
        for good in ["localhost:9090", "127.0.0.1:1", "[::1]:9090", "agent-0.agents:9090"] {
            assert!(connector.channel(good).is_ok(), "{good}");
        }
        for bad in
            ["", "localhost", "localhost:", "http://localhost:1", "localhost:1/", "a b:1", ":1", "h:99999"]
        {
            let said = connector.channel(bad).err().unwrap_or_else(|| panic!("{bad:?} was taken"));
            assert!(said.contains("HOST:PORT"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_token_leaves_the_host_under_tls_alone() {
        let token = ClientSecurity::default().token("secret");
        let plain = token.connector().await.unwrap();
        for local in ["localhost:1", "127.0.0.1:1", "[::1]:1"] {
            assert!(plain.channel(local).is_ok(), "{local}");
        }
        let said = plain.channel("agent:1").err().unwrap();
        assert!(said.contains("use TLS"), "{said}");
        assert!(token.clone().insecure().connector().await.unwrap().channel("agent:1").is_ok());
        assert!(token.clone().tls().connector().await.unwrap().channel("agent:1").is_ok());
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[tokio::test]
    async fn files_that_are_no_certificates_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let refused =
            async || ClientSecurity::default().tls_ca(&file).connector().await.err().unwrap().to_string();
        assert!(refused().await.contains("cannot be read"));
        std::fs::write(&file, "hello").unwrap();
        assert!(refused().await.contains("no PEM certificate"));
    }
}
