//! Asking a running probe, for the commands that show what it sees.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::header::ACCEPT;
use reqwest::{Certificate, StatusCode, Url};
use tokio::runtime::Runtime;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of an answer: far more than a page of all the series that may be served.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which probe to ask, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Ask {
    /// Where the probe serves.
    #[arg(long, env = "STREAMHOUSE_PROBE_URL", default_value = "http://127.0.0.1:9465")]
    url: Url,
    /// The certificate authority of a probe that serves TLS, in PEM; else those that this machine trusts.
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// The user to be let in as.
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// The file with the user's password.
    #[arg(long, value_name = "PATH", requires = "user")]
    password_file: Option<PathBuf>,
}

/// Asks one probe.
#[derive(Debug)]
pub struct Client {
    url: Url,
    user: Option<(String, String)>,
    http: reqwest::Client,
    runtime: Runtime,
}

impl Client {
    /// Reads the files that `ask` names.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or holds no certificate.
    pub fn new(ask: &Ask) -> anyhow::Result<Client> {
        // It stands already when something else in this process uses TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut http = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy();
        if let Some(path) = &ask.ca_file {
            let authorities = Certificate::from_pem_bundle(&read(path)?)
                .with_context(|| format!("{} holds no certificate in PEM", path.display()))?;
            http = http.tls_certs_only(authorities);
        }
        let user = match (&ask.user, &ask.password_file) {
            (Some(user), Some(path)) => {
                let password = String::from_utf8(read(path)?).context("the password is not UTF-8")?;
                Some((user.clone(), password.trim_end_matches(['\r', '\n']).to_owned()))
            }
            _ => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Client { url: ask.url.clone(), user, http: http.build()?, runtime })
    }

    /// Where it asks, without what could be a secret.
    pub fn address(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}://{}:{port}", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }

    /// What the probe answers at `path`, in the format that `accept` names.
    ///
    /// # Errors
    ///
    /// When the probe cannot be reached or refuses; says what to do.
    pub fn get(&self, path: &str, accept: &str) -> anyhow::Result<Vec<u8>> {
        self.runtime.block_on(self.ask(path, accept))
    }

    async fn ask(&self, path: &str, accept: &str) -> anyhow::Result<Vec<u8>> {
        let mut request = self.http.get(self.url.join(path)?).header(ACCEPT, accept);
        if let Some((user, password)) = &self.user {
            request = request.basic_auth(user, Some(password));
        }
        let unreachable = || {
            let address = self.address();
            format!(
                "no probe answers at {address}: start one with `streamhouse-probe run`, or say where it is with --url"
            )
        };
        let mut response = request.send().await.with_context(unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                bail!("the probe lets in users only: give --user and --password-file")
            }
            status => bail!("the probe answers {status} at {path}"),
        }
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await? {
            if answer.len() + part.len() > ANSWER_BYTES_MAX {
                bail!("the answer has more than {} MiB; that is no probe", ANSWER_BYTES_MAX >> 20);
            }
            answer.extend_from_slice(&part);
        }
        Ok(answer)
    }
}
