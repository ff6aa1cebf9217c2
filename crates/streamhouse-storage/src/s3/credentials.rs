//! Credentials that a role gives, asked for with patience that ends.

use async_trait::async_trait;
use object_store::{
    Error, Result,
    aws::{AwsCredential, AwsCredentialProvider},
    client::CredentialProvider,
};
use std::{fmt, sync::Arc, time::Duration};

/// No credentials were given and none could be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN with temporary \
     ones (profiles in files are not read), or run where a role gives them: {problem}"
)]
pub(crate) struct NoCredentials {
    pub(crate) problem: String,
}

/// Credentials from where a role gives them: the instance's metadata service, a container's, or the token service.
/// Without one the address may swallow what is sent to it.
pub(crate) struct RoleCredentials {
    pub(crate) provider: AwsCredentialProvider,
    pub(crate) timeout: Duration,
}

impl fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleCredentials").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for RoleCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        let problem = match tokio::time::timeout(self.timeout, self.provider.get_credential()).await {
            Ok(Ok(credential)) => return Ok(credential),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("its service did not answer within {:?}", self.timeout),
        };
        Err(Error::Generic { store: "S3", source: NoCredentials { problem }.into() })
    }
}
