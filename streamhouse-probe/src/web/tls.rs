//! The certificates of `--web.config.file`, loaded.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::config::{ClientCertificates, Curve, TlsConfig, TlsVersion};

/// Certificates or keys could not be used.
#[derive(Debug, thiserror::Error)]
#[error("tls_server_config: {0}")]
pub(super) struct TlsError(String);

/// Loads what a configuration names. `directory` is that of the configuration's file.
///
/// # Errors
///
/// [`TlsError`] names the file and what is wrong with it.
pub(super) fn load(config: &TlsConfig, directory: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |error: rustls::Error| TlsError(format!("certificate and key cannot be used: {error}"));
    let chain = certificates("cert_file", &directory.join(&config.cert_file))?;
    let key_file = directory.join(&config.key_file);
    let key = PrivateKeyDer::from_pem_file(&key_file)
        .map_err(|error| TlsError(format!("key_file {}: {error}", key_file.display())))?;
    let provider = Arc::new(provider(config)?);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(config))
        .map_err(wrong)?;
    let builder = match verifier(&config.clients, directory, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut loaded = builder.with_single_cert(chain, key).map_err(wrong)?;
    loaded.ignore_client_order = config.prefer_server_cipher_suites;
    Ok(Arc::new(loaded))
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError(format!("{key} {}: {reason}", file.display()));
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?.collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong("it holds no PEM certificate".to_owned())),
        Ok(all) => Ok(all),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// What the configuration leaves of the cryptography there is.
fn provider(config: &TlsConfig) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if !config.cipher_suites.is_empty() {
        let all = provider.cipher_suites.clone();
        let suite = |name: &String| {
            all.iter().copied().find(|suite| iana_name(suite) == *name).ok_or_else(|| {
                let known: Vec<String> = all.iter().map(iana_name).collect();
                TlsError(format!("cipher_suites: {name:?} is not among {}", known.join(", ")))
            })
        };
        let mut chosen: Vec<_> = config.cipher_suites.iter().map(suite).collect::<Result<_, _>>()?;
        // Those of TLS 1.3 cannot be chosen, as in other exporters: all of them are good.
        chosen.extend(
            all.iter()
                .filter(|suite| suite.tls13().is_some() && !chosen.contains(suite))
                .copied()
                .collect::<Vec<_>>(),
        );
        provider.cipher_suites = chosen;
    }
    if !config.curves.is_empty() {
        provider.kx_groups = config.curves.iter().map(|curve| group(*curve)).collect();
    }
    Ok(provider)
}

/// The name of a suite as the configuration has it: rustls writes TLS13 where the register of names has TLS.
fn iana_name(suite: &rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    match curve {
        Curve::X25519 => ring::kx_group::X25519,
        Curve::P256 => ring::kx_group::SECP256R1,
        Curve::P384 => ring::kx_group::SECP384R1,
    }
}

fn versions(config: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)];
    let chosen =
        all.into_iter().filter(|(version, _)| (config.min_version..=config.max_version).contains(version));
    chosen.map(|(_, version)| version).collect()
}

fn verifier(
    clients: &ClientCertificates,
    directory: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(file) = clients.authorities().map(|file| directory.join(file)) else { return Ok(None) };
    let required = matches!(clients, ClientCertificates::Required(_));
    let wrong = |reason: String| TlsError(format!("client_ca_file {}: {reason}", file.display()));
    let mut authorities = RootCertStore::empty();
    for certificate in certificates("client_ca_file", &file)? {
        authorities.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map(Some).map_err(|error| wrong(error.to_string()))
}
