//! Who may read what is served, and how it is encrypted: `--web.config.file`.

pub mod config;
mod gate;
pub mod hash;
mod tls;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::http::HeaderValue;
use rustix::fs::Stat;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use config::{CONFIG_BYTES_MAX, ClientCertificates, ConfigError, WebConfig};
use gate::Gate;
use tls::TlsError;

/// How often it is looked whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The configuration in force.
#[derive(Debug)]
pub struct Web {
    /// `None` when there is no file: everybody is let in, nothing is encrypted.
    path: Option<PathBuf>,
    current: RwLock<Arc<Loaded>>,
    gate: Gate,
}

/// One version of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) config: WebConfig,
    pub(crate) tls: Option<Tls>,
    /// What the files were like when they were read.
    stamps: Vec<(PathBuf, Option<Stamp>)>,
}

/// Takes encrypted connections.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the web configuration {path}: {cause}")]
pub struct WebError {
    path: PathBuf,
    cause: WebErrorCause,
}

#[derive(Debug, thiserror::Error)]
enum WebErrorCause {
    #[error("{0}; --web.config.file names it")]
    Unreadable(#[from] std::io::Error),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Tls(#[from] TlsError),
}

impl Web {
    /// Without a configuration.
    pub fn open() -> Web {
        Web { path: None, current: RwLock::default(), gate: Gate::new() }
    }

    /// Reads a configuration and what it names.
    ///
    /// # Errors
    ///
    /// [`WebError`] names the file, the key and what to do.
    pub fn load(path: &Path) -> Result<Web, WebError> {
        let loaded = Loaded::load(path)?;
        Ok(Web { path: Some(path.to_owned()), current: RwLock::new(Arc::new(loaded)), gate: Gate::new() })
    }

    /// Whether everything that is served is encrypted and only users are let in.
    pub fn is_guarded(&self) -> bool {
        let current = self.current();
        let knows_clients = current
            .config
            .tls
            .as_ref()
            .is_some_and(|tls| matches!(tls.clients, ClientCertificates::Required(_)));
        current.tls.is_some() && (knows_clients || !current.config.users.is_empty())
    }

    /// Whether what is served is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.current().tls.is_some()
    }

    pub(crate) fn current(&self) -> Arc<Loaded> {
        self.current.read().expect("nothing panics while it is held").clone()
    }

    /// Whether an `Authorization` header lets a request in.
    pub(crate) async fn lets_in(&self, authorization: Option<&HeaderValue>) -> bool {
        self.gate.lets_in(&self.current().config.users, authorization).await
    }

    /// Takes in what changes in the files, for ever, once they stay as they are from one look to the next: a file that is
    /// just being written may lack what guards. A version that cannot be used is told of once, and the one before stays in
    /// force.
    pub async fn watch(&self) -> std::convert::Infallible {
        let Some(path) = &self.path else { return std::future::pending().await };
        let mut seen = self.current().stamps.clone();
        let mut last = seen.clone();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now: Vec<_> = seen.iter().map(|(file, _)| stamped(file.clone())).collect();
            let is_settled = now == std::mem::replace(&mut last, now.clone());
            if now == seen || !is_settled {
                continue;
            }
            match Loaded::load(path) {
                Ok(loaded) => {
                    seen.clone_from(&loaded.stamps);
                    *self.current.write().expect("nothing panics while it is held") = Arc::new(loaded);
                    info!("the web configuration has changed and is in force");
                }
                Err(error) => {
                    seen = now;
                    warn!("{error}; the version before stays in force");
                }
            }
        }
    }
}

impl Loaded {
    fn load(path: &Path) -> Result<Loaded, WebError> {
        let load = || -> Result<Loaded, WebErrorCause> {
            // Each stamp is taken before its file is read: what changes meanwhile is read again.
            let mut stamps = vec![stamped(path.to_owned())];
            let mut text = Vec::new();
            File::open(path)?.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
            let config = WebConfig::parse(&text)?;
            let directory = path.parent().unwrap_or(Path::new("."));
            stamps.extend(config.files().map(|file| stamped(directory.join(file))));
            let tls = config.tls.as_ref().map(|tls| tls::load(tls, directory)).transpose()?;
            Ok(Loaded { config, tls: tls.map(|tls| Tls(TlsAcceptor::from(tls))), stamps })
        };
        load().map_err(|cause| WebError { path: path.to_owned(), cause })
    }
}

/// What changes when a file does: its inode, size and time of change.
type Stamp = (u64, i64, i64, u64);

fn stamped(file: PathBuf) -> (PathBuf, Option<Stamp>) {
    let stamp = |stat: Stat| (stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    let stamp = rustix::fs::stat(&file).ok().map(stamp);
    (file, stamp)
}

impl WebConfig {
    /// The files it names, relative to its own directory.
    fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls
            .iter()
            .flat_map(|tls| [Some(&tls.cert_file), Some(&tls.key_file), tls.clients.authorities()])
            .flatten()
            .map(PathBuf::as_path)
    }
}
