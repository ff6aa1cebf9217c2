//! Certificates, tokens, and clients that have them.

use super::{Client, Log};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::SocketAddr;
use std::path::PathBuf;
use streamhouse_agent::Agent;
use streamhouse_proto::v1::agent_client::AgentClient;
use streamhouse_proto::v1::metadata_client::MetadataClient;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// The name that certificates are made for.
pub(crate) const HOST: &str = "localhost";

/// An authority that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for [`HOST`] and its key, as files of the log's directory.
    pub(crate) fn issue(&self, log: &Log) -> [PathBuf; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([HOST.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        [("agent.pem", certificate.pem()), ("agent.key", key.serialize_pem())]
            .map(|(name, content)| write(log, name, &content))
    }

    /// What a client that trusts the authority is told.
    pub(crate) fn trusted(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.0.pem())).domain_name(HOST)
    }
}

/// A file in the log's directory, replaced at once.
pub(crate) fn write(log: &Log, name: &str, content: &str) -> PathBuf {
    let (new, path) = (log.dir.path().join("new"), log.dir.path().join(name));
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

/// An agent with TLS.
pub(crate) async fn tls_agent(log: &Log, authority: &Authority, more: &[&str]) -> Agent {
    let [certificate, key] = authority.issue(log);
    let tls = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    Agent::start(log.config(&[&tls, more].concat())).await.unwrap()
}

/// A connection, not made before it is used.
pub(crate) fn channel(address: SocketAddr, tls: Option<ClientTlsConfig>) -> Channel {
    match tls {
        None => Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy(),
        Some(tls) => {
            let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
            endpoint.tls_config(tls).unwrap().connect_lazy()
        }
    }
}

pub(crate) fn producer(channel: Channel) -> Client {
    Client(AgentClient::new(channel))
}

pub(crate) fn metadata(address: SocketAddr) -> MetadataClient<Channel> {
    MetadataClient::new(channel(address, None))
}

/// A request with these `authorization` headers.
pub(crate) fn authorized<T>(message: T, headers: &[&str]) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let metadata: &mut MetadataMap = request.metadata_mut();
    for header in headers {
        metadata.append("authorization", header.parse().unwrap());
    }
    request
}
