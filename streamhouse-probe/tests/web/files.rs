//! A configuration, its certificates, and clients that know them.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// A user with the password "secret", hashed by the C library (crypt(5), prefix `$2y$`) as `htpasswd -B` does.
pub(crate) const USERS: &str =
    "basic_auth_users: {ann: $2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW}\n";

/// The bcrypt hash of a password.
pub(crate) fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).expect("hashed")
}

/// A directory with a configuration.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    /// With an authority, and certificates of a server and of two clients, one of which the authority does not know.
    pub(crate) fn new() -> Files {
        let files = Files { directory: TempDir::new().expect("a temporary directory") };
        files.renew();
        files
    }

    /// Makes all certificates anew.
    pub(crate) fn renew(&self) {
        let authority = authority();
        self.write("ca.pem", &authority.pem());
        self.issue("server", &authority);
        self.issue("client", &authority);
        self.issue("foreign", &self::authority());
    }

    fn issue(&self, name: &str, authority: &CertifiedIssuer<'static, KeyPair>) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, authority).expect("signed");
        // The key first: a pair that does not fit is not taken, and looked at again.
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &certificate.pem());
    }

    /// In one step: whoever reads at any moment has the old text or the new one.
    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        let new = path.with_added_extension("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, path).expect("renamed");
    }

    pub(crate) fn write_config(&self, text: &str) {
        self.write("web.yml", text);
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("web.yml")
    }

    /// The section of TLS, with other keys.
    pub(crate) fn tls(&self, rest: &str) -> String {
        format!("tls_server_config: {{cert_file: server.pem, key_file: server.key, {rest}}}\n")
    }

    /// A client that trusts the authority, with a certificate if one is named.
    pub(crate) fn client(&self, certificate: Option<&str>) -> Arc<ClientConfig> {
        let path = |name: String| self.directory.path().join(name);
        let chain =
            |name: &str| vec![CertificateDer::from_pem_file(path(format!("{name}.pem"))).expect("PEM")];
        let mut roots = RootCertStore::empty();
        roots.add(chain("ca").remove(0)).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("there are versions")
            .with_root_certificates(roots);
        Arc::new(match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(path(format!("{name}.key"))).expect("PEM");
                builder.with_client_auth_cert(chain(name), key).expect("they fit")
            }
        })
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}
