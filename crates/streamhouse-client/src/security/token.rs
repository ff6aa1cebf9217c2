//! A bearer token, and the file it may come from.

use crate::error::{ClientError, Result};
use crate::lock;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tonic::metadata::AsciiMetadataValue;

/// How old what was read from a token file may get: a new token is used this soon.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Longest token: what servers take as one header.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Where the token comes from, and what it was last.
pub(super) struct TokenSource {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

struct Known {
    header: AsciiMetadataValue,
    read: Instant,
}

impl TokenSource {
    /// A token that stays as it is.
    pub(super) fn fixed(token: &str) -> Result<Self> {
        let header = header(token).map_err(|problem| {
            ClientError::Invalid(format!("the token {problem}; give it as the agents' token file has it"))
        })?;
        Ok(Self { file: None, known: Mutex::new(Known { header, read: Instant::now() }) })
    }

    /// The token in a file.
    pub(super) async fn file(path: &Path) -> Result<Self> {
        let header = read(path).await.map_err(ClientError::Invalid)?;
        let known = Mutex::new(Known { header, read: Instant::now() });
        Ok(Self { file: Some(path.to_owned()), known })
    }

    pub(super) fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// The header's value with the token as it is now, give or take [`AGE_MAX`].
    pub(super) async fn header(&self) -> AsciiMetadataValue {
        if let Some(path) = self.due() {
            self.read_again(path).await;
        }
        lock(&self.known).header.clone()
    }

    /// Whether the token is another than `sent` now; looks into the file.
    pub(super) async fn renewed(&self, sent: &AsciiMetadataValue) -> bool {
        if let Some(path) = &self.file {
            self.read_again(path).await;
        }
        *sent != lock(&self.known).header
    }

    /// The file, when it is time to look into it; the next caller does not look too.
    fn due(&self) -> Option<&Path> {
        let path = self.file.as_deref()?;
        let mut known = lock(&self.known);
        let is_due = known.read.elapsed() >= AGE_MAX;
        if is_due {
            known.read = Instant::now();
        }
        is_due.then_some(path)
    }

    /// A file that cannot be read, or has no token, may be about to be replaced: the token stays.
    async fn read_again(&self, path: &Path) {
        match read(path).await {
            Ok(header) => *lock(&self.known) = Known { header, read: Instant::now() },
            Err(problem) => tracing::warn!("{problem}; the token stays as it was"),
        }
    }
}

async fn read(path: &Path) -> Result<AsciiMetadataValue, String> {
    let place = path.display();
    let opened = tokio::fs::File::open(path).await;
    let mut text = String::new();
    let read = match opened {
        Ok(file) => file.take(TOKEN_BYTES_MAX + 2).read_to_string(&mut text).await,
        Err(error) => Err(error),
    };
    read.map_err(|error| {
        format!("the token file {place} cannot be read: {error}; give a readable file with a token")
    })?;
    header(text.trim())
        .map_err(|problem| format!("the token in {place} {problem}; write the token alone into it"))
}

/// The value of the `authorization` header, or what is wrong with the token as the rest of a sentence.
fn header(token: &str) -> Result<AsciiMetadataValue, String> {
    if token.is_empty() {
        return Err("is empty".to_owned());
    }
    if token.len() as u64 > TOKEN_BYTES_MAX {
        return Err(format!("is longer than {TOKEN_BYTES_MAX} bytes"));
    }
    let carried = token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = carried.then(|| AsciiMetadataValue::try_from(format!("Bearer {token}")).ok()).flatten();
    let mut value = value.ok_or("has characters other than visible ASCII")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(TokenSource::file(&path).await.err().unwrap().to_string().contains("cannot be read"));
        std::fs::write(&path, "\n").unwrap();
        assert!(TokenSource::file(&path).await.err().unwrap().to_string().contains("is empty"));

        std::fs::write(&path, "one\n").unwrap();
        let source = TokenSource::file(&path).await.unwrap();
        let first = source.header().await;
        assert_eq!(first, "Bearer one");
        assert!(!source.renewed(&first).await);
        std::fs::write(&path, "two\n").unwrap();
        assert!(source.renewed(&first).await);
        assert_eq!(source.header().await, "Bearer two");
        std::fs::remove_file(&path).unwrap();
        assert!(source.renewed(&first).await, "a file that is gone takes no token away");
        assert_eq!(source.header().await, "Bearer two");
    }

    #[tokio::test]
    async fn a_new_token_is_used_without_being_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let source = TokenSource::file(&path).await.unwrap();
        std::fs::write(&path, "two").unwrap();
        // However long the file took.
        lock(&source.known).read = Instant::now() + AGE_MAX;
        assert_eq!(source.header().await, "Bearer one", "a file is not read for each request");
        lock(&source.known).read = Instant::now() - AGE_MAX;
        assert_eq!(source.header().await, "Bearer two");
    }

    #[test]
    fn a_token_that_no_header_carries_is_refused() {
        for (token, says) in [("", "empty"), ("a b", "visible"), ("ü", "visible"), ("a\nb", "visible")] {
            assert!(header(token).unwrap_err().contains(says), "{token:?}");
        }
        assert!(header(&"x".repeat(TOKEN_BYTES_MAX as usize)).is_ok());
        assert!(header(&"x".repeat(TOKEN_BYTES_MAX as usize + 1)).unwrap_err().contains("longer"));
    }
}
