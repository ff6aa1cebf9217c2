//! Where the log is: the flags that name its stores, and what opens them.

use anyhow::{Result, bail, ensure};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use streamhouse_client::{Admin, ClientSecurity, ClientStore, RemoteMetadataStore};
use streamhouse_metadata::MetadataUrl;
use streamhouse_storage::{ObjectStoreUrl, StorageError};

const METADATA_PATH: &str = "./streamhouse/metadata.db";
const OBJECT_STORE_PATH: &str = "./streamhouse/objects";

/// Where the log is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which log")]
pub(crate) struct Places {
    /// Agents that answer for the metadata store, so that no access to it is needed; any of them will do.
    #[arg(long, global = true, value_name = "HOST:PORT,..", env = "STREAMHOUSE_BOOTSTRAP")]
    bootstrap: Option<String>,
    /// The metadata store itself: postgres://USER@HOST/DATABASE, or the path of an SQLite file.
    #[arg(long, global = true, value_name = "URL", env = "STREAMHOUSE_METADATA_URL", hide_env_values = true)]
    metadata_url: Option<MetadataUrl>,
    /// The metadata store itself: an SQLite file [default: ./streamhouse/metadata.db].
    #[arg(long, global = true, value_name = "FILE", env = "STREAMHOUSE_METADATA_PATH")]
    metadata_path: Option<PathBuf>,
    /// The object store: s3://BUCKET/PREFIX, with credentials from the AWS_* variables, or a directory.
    #[arg(long, global = true, value_name = "URL", env = "STREAMHOUSE_OBJECT_STORE_URL")]
    object_store_url: Option<ObjectStoreUrl>,
    /// The object store: a directory [default: ./streamhouse/objects].
    #[arg(long, global = true, value_name = "DIR", env = "STREAMHOUSE_OBJECT_STORE_PATH")]
    object_store_path: Option<PathBuf>,
    /// File with the bearer token for agents; read again when it changes.
    #[arg(long, global = true, value_name = "FILE", env = "STREAMHOUSE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Talk TLS to agents whose certificate one of the system's authorities has signed.
    #[arg(long, global = true)]
    tls: bool,
    /// Talk TLS to agents whose certificate an authority in this PEM file has signed.
    #[arg(long, global = true, value_name = "FILE", env = "STREAMHOUSE_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// The name that the agents' certificates have, when it is not the host that is connected to.
    #[arg(long, global = true, value_name = "NAME", env = "STREAMHOUSE_TLS_DOMAIN")]
    tls_domain: Option<String>,
    /// Send the token also in clear to other hosts.
    #[arg(long, global = true, env = "STREAMHOUSE_INSECURE")]
    insecure: bool,
}

/// What answers for the metadata.
enum Metadata {
    Agents(String),
    Store(MetadataUrl),
}

impl Places {
    /// The metadata store, which must be there: a mistyped path must not look like an empty log.
    pub(crate) async fn metadata(&self) -> Result<Arc<dyn ClientStore>> {
        self.check_metadata_exists()?;
        self.metadata_or_new().await
    }

    /// The metadata store, made if need be.
    pub(crate) async fn metadata_or_new(&self) -> Result<Arc<dyn ClientStore>> {
        match self.which()? {
            Metadata::Agents(addresses) => self.agents(addresses).await,
            Metadata::Store(url) => Ok(url.open().await?),
        }
    }

    /// What manages topics and groups of an existing metadata store.
    pub(crate) async fn admin(&self) -> Result<Admin> {
        Ok(Admin::new(self.metadata().await?))
    }

    /// What only looks at them: whoever may read the store may do so.
    pub(crate) async fn viewer(&self) -> Result<Admin> {
        self.check_metadata_exists()?;
        Ok(Admin::new(match self.which()? {
            Metadata::Agents(addresses) => self.agents(addresses).await?,
            Metadata::Store(url) => url.open_read_only().await?,
        }))
    }

    /// Token and TLS for connections to agents.
    pub(crate) fn security(&self) -> ClientSecurity {
        let mut security = ClientSecurity::default();
        if let Some(file) = &self.token_file {
            security = security.token_file(file);
        }
        if self.tls {
            security = security.tls();
        }
        if let Some(file) = &self.tls_ca {
            security = security.tls_ca(file);
        }
        if let Some(domain) = &self.tls_domain {
            security = security.tls_domain(domain);
        }
        if self.insecure { security.insecure() } else { security }
    }

    async fn agents(&self, addresses: String) -> Result<Arc<dyn ClientStore>> {
        let store = RemoteMetadataStore::builder(addresses).security(self.security()).build().await?;
        Ok(Arc::new(store))
    }

    fn which(&self) -> Result<Metadata> {
        match (&self.bootstrap, &self.metadata_url, &self.metadata_path) {
            (Some(addresses), None, None) => Ok(Metadata::Agents(addresses.clone())),
            (None, Some(url), None) => Ok(Metadata::Store(url.clone())),
            (None, None, Some(path)) => Ok(Metadata::Store(MetadataUrl::Sqlite(path.clone()))),
            (None, None, None) => Ok(Metadata::Store(MetadataUrl::Sqlite(METADATA_PATH.into()))),
            _ => bail!(
                "two logs are named; give one of --bootstrap (STREAMHOUSE_BOOTSTRAP), --metadata-url \
                 (STREAMHOUSE_METADATA_URL) and --metadata-path (STREAMHOUSE_METADATA_PATH)"
            ),
        }
    }

    /// What else may be wrong with the path is found when it is opened.
    fn check_metadata_exists(&self) -> Result<()> {
        if let Metadata::Store(MetadataUrl::Sqlite(path)) = self.which()? {
            ensure!(
                path.try_exists().unwrap_or(true),
                "there is no metadata store at {}; give an agent's address with --bootstrap, or its metadata store with \
                 --metadata-path or STREAMHOUSE_METADATA_PATH, or begin a new one with `streamhouse topic create`",
                path.display()
            );
        }
        Ok(())
    }

    /// Where the object store is.
    pub(crate) fn object_store(&self) -> Result<ObjectStoreUrl> {
        match (&self.object_store_url, &self.object_store_path) {
            (Some(url), None) => Ok(url.clone()),
            (None, path) => {
                Ok(ObjectStoreUrl::directory(path.clone().unwrap_or_else(|| OBJECT_STORE_PATH.into())))
            }
            (Some(_), Some(_)) => bail!(
                "two object stores are named; give one of --object-store-url (STREAMHOUSE_OBJECT_STORE_URL) and \
                 --object-store-path (STREAMHOUSE_OBJECT_STORE_PATH)"
            ),
        }
    }

    /// The object store, which must be there too.
    pub(crate) fn objects(&self) -> Result<Arc<dyn object_store::ObjectStore>> {
        match self.object_store()?.open() {
            Err(StorageError::Missing { path }) => bail!(
                "there is no object store in {}; give the agent's with --object-store-path or \
                 STREAMHOUSE_OBJECT_STORE_PATH, or --object-store-url, or start an agent, which creates it",
                path.display()
            ),
            opened => Ok(opened?),
        }
    }
}
