//! `--web.config.file`, in the format that Prometheus' exporters share
//! (<https://prometheus.io/docs/prometheus/latest/configuration/https/>).
//!
//! A pure function of its text: whether the files that it names are there is seen when they are loaded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, budget, options};

use super::hash::{BadHash, Hash};

/// Largest configuration file.
pub const CONFIG_BYTES_MAX: usize = 256 << 10;
/// Most users: the file is read again whenever it changes.
const USERS_MAX: usize = 256;
/// Longest user name.
const USER_BYTES_MAX: usize = 256;
/// Response headers that may be set, those that other exporters let be set.
const HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("content-security-policy"),
    HeaderName::from_static("strict-transport-security"),
    HeaderName::from_static("x-content-type-options"),
    HeaderName::from_static("x-frame-options"),
    HeaderName::from_static("x-xss-protection"),
];

/// Who is let in, and how what is served is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// Without it nothing is encrypted.
    pub tls: Option<TlsConfig>,
    /// Password hashes by user. With none everybody is let in.
    pub users: BTreeMap<String, Hash>,
    /// Headers that each response has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain, PEM, as named in the file.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
    /// Lowest version.
    pub min_version: TlsVersion,
    /// Highest version.
    pub max_version: TlsVersion,
    /// Cipher suites by their IANA names; all when it is empty.
    pub cipher_suites: Vec<String>,
    /// Whether the server's order of them counts.
    pub prefer_server_cipher_suites: bool,
    /// Key exchange groups; all when it is empty.
    pub curves: Vec<Curve>,
}

/// Whether clients show certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for any.
    NotAsked,
    /// One that is shown must be signed by these authorities.
    IfGiven(PathBuf),
    /// Each must show one that these authorities have signed.
    Required(PathBuf),
}

impl ClientCertificates {
    /// The authorities that sign them.
    pub fn authorities(&self) -> Option<&PathBuf> {
        match self {
            ClientCertificates::NotAsked => None,
            ClientCertificates::IfGiven(file) | ClientCertificates::Required(file) => Some(file),
        }
    }
}

/// The versions of TLS that there is any use in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// Key exchange groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// Curve25519.
    X25519,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

/// What is wrong with a configuration. Says nothing of what the file holds but names of keys and users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is longer than any is.
    #[error("it has more than {CONFIG_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no YAML, or has other keys or types than the format.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// From 1; 0 when it is not known.
        line: u64,
        /// From 1; 0 when it is not known.
        column: u64,
        /// Why.
        message: String,
    },
    /// One key without the other.
    #[error("tls_server_config: {0}")]
    Tls(String),
    /// A header that may not be set, or a value that cannot be.
    #[error("http_server_config: headers: {0}")]
    Header(String),
    /// A user that nobody can be.
    #[error("basic_auth_users: {user}: {reason}")]
    User {
        /// The name.
        user: String,
        /// Why.
        reason: String,
    },
    /// More than any file has.
    #[error("basic_auth_users: more than {USERS_MAX} users")]
    TooManyUsers,
}

impl WebConfig {
    /// Reads a configuration. Names of files stay as they are written: they are relative to the file's directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the key and what to do.
    pub fn parse(text: &[u8]) -> Result<WebConfig, ConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge);
        }
        let raw: Option<Raw> = serde_saphyr::from_slice_with_options(text, reading()).map_err(malformed)?;
        let raw = raw.unwrap_or_default();
        Ok(WebConfig {
            tls: raw.tls_server_config.map(TlsConfig::try_from).transpose()?,
            users: users(raw.basic_auth_users.unwrap_or_default())?,
            headers: raw.http_server_config.map(headers).transpose()?.unwrap_or_default(),
        })
    }
}

/// Nothing that a file of this format needs, and no more than a file of this size can have.
fn reading() -> serde_saphyr::Options {
    options! {
        // It would show the lines around an error, and with them hashes.
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        budget: budget! { max_aliases: 0, max_anchors: 0, max_depth: 8, max_events: 8192 },
    }
}

fn malformed(error: serde_saphyr::Error) -> ConfigError {
    let (line, column) = error.location().map_or((0, 0), |location| (location.line(), location.column()));
    let text = error.without_snippet().to_string();
    ConfigError::Malformed { line, column, message: text.lines().next().unwrap_or_default().to_owned() }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    tls_server_config: Option<RawTls>,
    http_server_config: Option<RawHttp>,
    basic_auth_users: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_auth_type: Option<String>,
    client_ca_file: Option<PathBuf>,
    client_allowed_sans: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    /// Taken and of no effect: a scraper sends one request at a time.
    #[expect(dead_code, reason = "files that other exporters read have it")]
    http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

impl TryFrom<RawTls> for TlsConfig {
    type Error = ConfigError;

    fn try_from(raw: RawTls) -> Result<TlsConfig, ConfigError> {
        let wrong = |reason: &str| ConfigError::Tls(reason.to_owned());
        let (Some(cert_file), Some(key_file)) = (raw.cert_file, raw.key_file) else {
            return Err(wrong("name both cert_file and key_file"));
        };
        if raw.client_allowed_sans.is_some_and(|names| !names.is_empty()) {
            return Err(wrong(
                "client_allowed_sans is not supported: leave it out, and name in client_ca_file an authority that signs \
                 scrapers only",
            ));
        }
        let min_version = version("min_version", raw.min_version.as_deref(), TlsVersion::Tls12)?;
        let max_version = version("max_version", raw.max_version.as_deref(), TlsVersion::Tls13)?;
        if min_version > max_version {
            return Err(wrong("min_version is above max_version"));
        }
        Ok(TlsConfig {
            cert_file,
            key_file,
            clients: clients(raw.client_auth_type.as_deref(), raw.client_ca_file)?,
            min_version,
            max_version,
            cipher_suites: raw.cipher_suites.unwrap_or_default(),
            prefer_server_cipher_suites: raw.prefer_server_cipher_suites.unwrap_or(true),
            curves: raw
                .curve_preferences
                .unwrap_or_default()
                .iter()
                .map(|name| curve(name))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn version(key: &str, name: Option<&str>, otherwise: TlsVersion) -> Result<TlsVersion, ConfigError> {
    match name {
        None => Ok(otherwise),
        Some("TLS12") => Ok(TlsVersion::Tls12),
        Some("TLS13") => Ok(TlsVersion::Tls13),
        Some(_) => {
            Err(ConfigError::Tls(format!("{key} has to be TLS12 or TLS13; older versions are not safe")))
        }
    }
}

fn clients(kind: Option<&str>, authorities: Option<PathBuf>) -> Result<ClientCertificates, ConfigError> {
    let wrong = |reason: &str| Err(ConfigError::Tls(reason.to_owned()));
    match (kind, authorities) {
        (None | Some("" | "NoClientCert"), None) => Ok(ClientCertificates::NotAsked),
        (None | Some("" | "NoClientCert"), Some(_)) => wrong(
            "client_ca_file is of no use without client_auth_type; set it to RequireAndVerifyClientCert",
        ),
        (Some("VerifyClientCertIfGiven"), Some(authorities)) => Ok(ClientCertificates::IfGiven(authorities)),
        (Some("RequireAndVerifyClientCert"), Some(authorities)) => {
            Ok(ClientCertificates::Required(authorities))
        }
        (Some("VerifyClientCertIfGiven" | "RequireAndVerifyClientCert"), None) => {
            wrong("client_auth_type needs the authorities that sign clients: name them in client_ca_file")
        }
        (Some("RequestClientCert" | "RequireAnyClientCert"), _) => wrong(
            "client_auth_type asks for certificates that nobody verifies; take RequireAndVerifyClientCert",
        ),
        (Some(_), _) => wrong(
            "client_auth_type has to be NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert",
        ),
    }
}

fn curve(name: &str) -> Result<Curve, ConfigError> {
    match name {
        "X25519" => Ok(Curve::X25519),
        "CurveP256" => Ok(Curve::P256),
        "CurveP384" => Ok(Curve::P384),
        _ => Err(ConfigError::Tls("curve_preferences may have X25519, CurveP256 and CurveP384".to_owned())),
    }
}

fn headers(raw: RawHttp) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
    let header = |(name, value): (String, String)| {
        let wrong = |reason: &str| Err(ConfigError::Header(format!("{name:?} {reason}")));
        let known = HEADERS.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(&name));
        match (known, HeaderValue::from_str(&value)) {
            (Some(known), Ok(value)) => Ok((known, value)),
            (Some(_), Err(_)) => wrong("has a value with characters that no header may have"),
            (None, _) => wrong(
                "may not be set; known are Content-Security-Policy, Strict-Transport-Security, \
                                X-Content-Type-Options, X-Frame-Options and X-XSS-Protection",
            ),
        }
    };
    raw.headers.unwrap_or_default().into_iter().map(header).collect()
}

fn users(raw: BTreeMap<String, String>) -> Result<BTreeMap<String, Hash>, ConfigError> {
    if raw.len() > USERS_MAX {
        return Err(ConfigError::TooManyUsers);
    }
    let user = |(user, hash): (String, String)| {
        let wrong = |reason: String| ConfigError::User { user: user.chars().take(64).collect(), reason };
        if user.is_empty() || user.len() > USER_BYTES_MAX || user.contains(':') {
            return Err(wrong(format!("a user has 1 to {USER_BYTES_MAX} bytes and no colon")));
        }
        let hash = Hash::parse(&hash).map_err(|error: BadHash| wrong(error.to_string()))?;
        Ok((user, hash))
    };
    raw.into_iter().map(user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

    fn error(text: &str) -> String {
        WebConfig::parse(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let text = format!(
            "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  client_auth_type: RequireAndVerifyClientCert\n  \
             client_ca_file: ca.pem\n  min_version: TLS13\n  curve_preferences: [X25519, CurveP256]\n  \
             cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  prefer_server_cipher_suites: false\n\
             http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n\
             basic_auth_users:\n  ann: {HASH}\n  bob: '{HASH}'\n"
        );
        let config = WebConfig::parse(text.as_bytes()).expect("it is right");
        let tls = config.tls.expect("it has TLS");
        assert_eq!((tls.cert_file, tls.key_file), ("a.pem".into(), "a.key".into()));
        assert_eq!(tls.clients, ClientCertificates::Required("ca.pem".into()));
        assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls13, TlsVersion::Tls13));
        assert_eq!(tls.curves, [Curve::X25519, Curve::P256]);
        assert!(!tls.prefer_server_cipher_suites);
        assert_eq!(config.users.keys().collect::<Vec<_>>(), ["ann", "bob"]);
        assert_eq!(config.headers, [(HEADERS[3].clone(), HeaderValue::from_static("deny"))]);
    }

    #[test]
    fn an_empty_one_asks_for_nothing() {
        for text in [
            "",
            "{}",
            "# nothing\n",
            "basic_auth_users:\n",
            "basic_auth_users: {}\n",
            "http_server_config: {}\n",
        ] {
            assert_eq!(WebConfig::parse(text.as_bytes()), Ok(WebConfig::default()), "{text:?}");
        }
    }

    #[test]
    fn the_documented_one_is_right() {
        let text = include_bytes!("../../../docs/web-config.yml");
        let config = WebConfig::parse(text).expect("it is right");
        assert!(config.tls.is_some_and(|tls| tls.min_version == TlsVersion::Tls13));
        assert!(config.users["prometheus"].is_of(b"secret"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let tls = |rest: &str| format!("tls_server_config: {{cert_file: a, key_file: b, {rest}}}");
        for (text, said) in [
            ("tls_server_config: {cert_file: a}".to_owned(), "key_file"),
            ("tls_server_config: {key_file: a}".to_owned(), "cert_file"),
            ("tls_server_confg: {}".to_owned(), "tls_server_confg"),
            (tls("min_version: TLS10"), "min_version"),
            (tls("max_version: tls13"), "max_version"),
            (tls("min_version: TLS13, max_version: TLS12"), "min_version is above"),
            (tls("client_auth_type: RequireAndVerifyClientCert"), "client_ca_file"),
            (tls("client_ca_file: ca.pem"), "client_auth_type"),
            (tls("client_auth_type: RequireAnyClientCert"), "nobody verifies"),
            (tls("client_auth_type: Maybe"), "client_auth_type has to be"),
            (tls("client_allowed_sans: [x]"), "client_allowed_sans"),
            (tls("curve_preferences: [CurveP521]"), "curve_preferences"),
            ("http_server_config: {headers: {X-Other: 1}}".to_owned(), "X-Other"),
            ("http_server_config: {headers: {X-Frame-Options: \"a\\nb\"}}".to_owned(), "characters"),
            ("basic_auth_users: {ann: secret}".to_owned(), "htpasswd"),
            (format!("basic_auth_users: {{ann: {}}}", HASH.replace("$10$", "$31$")), "cost"),
            (format!("basic_auth_users: {{'a:b': {HASH}}}"), "colon"),
            (format!("basic_auth_users: {{'': {HASH}}}"), "bytes"),
            (format!("basic_auth_users: {{ann: {HASH}, ann: {HASH}}}"), "line 1"),
            ("a: [".to_owned(), "line"),
            ("[]".to_owned(), "line"),
        ] {
            let error = error(&text);
            assert!(error.contains(said), "{text}: {error}");
        }
        assert_eq!(WebConfig::parse(&vec![b'#'; CONFIG_BYTES_MAX + 1]), Err(ConfigError::TooLarge));
        assert!(matches!(WebConfig::parse(b"a: \xff"), Err(ConfigError::Malformed { .. })));
    }

    #[test]
    fn errors_and_logs_keep_secrets() {
        for text in [
            "basic_auth_users: {ann: correct-horse}",
            "basic_auth_users:\n  ann: correct-horse\n  bob: [",
            "basic_auth_users: [correct-horse]",
            "basic_auth_users: correct-horse",
            "tls_server_config: {cert_file: a, key_file: b, min_version: correct-horse}",
        ] {
            let error = error(text);
            assert!(!error.contains("correct-horse"), "{error}");
        }
        let config =
            WebConfig::parse(format!("basic_auth_users: {{ann: {HASH}}}").as_bytes()).expect("right");
        assert!(!format!("{config:?}").contains("QOauhQNb"));
    }

    #[test]
    fn yaml_that_grows_is_refused() {
        let bomb =
            "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a]\nbasic_auth_users: *b\n";
        assert!(WebConfig::parse(bomb.as_bytes()).is_err());
        let deep = "[".repeat(100_000);
        assert!(WebConfig::parse(deep.as_bytes()).is_err());
        let wide: String = (0..1_000).map(|user| format!("  u{user}: {HASH}\n")).collect();
        assert_eq!(
            WebConfig::parse(format!("basic_auth_users:\n{wide}").as_bytes()),
            Err(ConfigError::TooManyUsers)
        );
    }
}
