//! Where segments are, as people write it.

use crate::{Result, S3Settings, StorageError, create_local, open_local, s3};
use object_store::{ObjectStore, path::Path as ObjectPath};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

/// Characters of a bucket's name, least and most.
const BUCKET_CHARS: std::ops::RangeInclusive<usize> = 3..=63;

/// An object store's address: `s3://BUCKET/PREFIX`, `file:///DIRECTORY`, or the path of a directory.
///
/// Credentials and the endpoint of S3 are no part of it; they come from the `AWS_*` variables, see [`S3Settings`].
///
/// ```
/// use streamhouse_storage::ObjectStoreUrl;
///
/// let url: ObjectStoreUrl = "s3://logs/orders/".parse()?;
/// assert_eq!(url.to_string(), "s3://logs/orders");
/// assert!("gs://logs".parse::<ObjectStoreUrl>().is_err());
/// # Ok::<(), streamhouse_storage::StorageError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStoreUrl(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    S3 { bucket: String, prefix: ObjectPath },
}

impl ObjectStoreUrl {
    /// The object store in a directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self(Place::Directory(path.into()))
    }

    /// The directory, when the store is one.
    pub fn as_directory(&self) -> Option<&Path> {
        match &self.0 {
            Place::Directory(path) => Some(path),
            Place::S3 { .. } => None,
        }
    }

    /// Opens the store for those who read. A directory must be an object store already ([`open_local`]). For S3 nothing
    /// is asked yet: the first operation tells whether bucket and credentials are right. Blocks for a directory.
    ///
    /// # Errors
    ///
    /// As [`open_local`]; for S3 `Settings`, kind `Invalid`, when the `AWS_*` variables make no client.
    pub fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        self.open_with(&S3Settings::from_env())
    }

    /// As [`open`](Self::open), with settings for S3 that are not the process's environment.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(&self, settings: &S3Settings) -> Result<Arc<dyn ObjectStore>> {
        match &self.0 {
            Place::Directory(path) => open_local(path),
            Place::S3 { .. } => self.s3(settings),
        }
    }

    /// Opens the store for those who write. A directory is made when it is missing ([`create_local`]); a bucket is not:
    /// who may write segments into it need not be one who may make it. For S3 nothing is asked yet;
    /// [`SegmentStore::now_ms`](crate::SegmentStore::now_ms) is a first operation that proves the store writable.
    ///
    /// # Errors
    ///
    /// As [`create_local`]; for S3 `Settings`, kind `Invalid`, when the `AWS_*` variables make no client.
    pub fn create(&self) -> Result<Arc<dyn ObjectStore>> {
        self.create_with(&S3Settings::from_env())
    }

    /// As [`create`](Self::create), with settings for S3 that are not the process's environment.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_with(&self, settings: &S3Settings) -> Result<Arc<dyn ObjectStore>> {
        match &self.0 {
            Place::Directory(path) => create_local(path),
            Place::S3 { .. } => self.s3(settings),
        }
    }

    fn s3(&self, settings: &S3Settings) -> Result<Arc<dyn ObjectStore>> {
        let Place::S3 { bucket, prefix } = &self.0 else {
            return Err(self.unusable("it is a directory".to_owned()));
        };
        s3::connect(bucket, prefix, settings).map_err(|problem| self.unusable(problem))
    }

    fn unusable(&self, problem: String) -> StorageError {
        StorageError::Settings { url: self.to_string(), problem }
    }
}

impl fmt::Display for ObjectStoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Directory(path) => fmt::Display::fmt(&path.display(), f),
            Place::S3 { bucket, prefix } if prefix.as_ref().is_empty() => write!(f, "s3://{bucket}"),
            Place::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl FromStr for ObjectStoreUrl {
    type Err = StorageError;

    fn from_str(text: &str) -> Result<Self> {
        let place = match text.split_once(':') {
            _ if text.is_empty() => Err("it is empty".to_owned()),
            Some(("s3", rest)) => s3_place(rest),
            Some(("file", _)) => file_place(text),
            Some((scheme, rest)) if rest.starts_with("//") => Err(format!("{scheme} is none of its schemes")),
            _ => Ok(Place::Directory(text.into())),
        };
        // The text may hold a password.
        place.map(Self).map_err(|problem| StorageError::Url { problem })
    }
}

fn s3_place(rest: &str) -> Result<Place, String> {
    let rest = rest.strip_prefix("//").ok_or("s3: is not followed by //")?;
    if rest.contains('@') {
        return Err(
            "it has credentials in it, which belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into(),
        );
    }
    if rest.contains(['?', '#']) {
        return Err("it has a query or a fragment".into());
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_good = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || ".-".contains(char);
    if !BUCKET_CHARS.contains(&bucket.len()) || !bucket.chars().all(is_good) {
        let (least, most) = BUCKET_CHARS.into_inner();
        return Err(format!(
            "{bucket:?} is no bucket's name: those have {least} to {most} characters, all of them a-z, 0-9, '.' or '-'"
        ));
    }
    let prefix = ObjectPath::parse(prefix).map_err(|error| format!("its prefix cannot be used: {error}"))?;
    Ok(Place::S3 { bucket: bucket.to_owned(), prefix })
}

fn file_place(text: &str) -> Result<Place, String> {
    let url = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
    let is_plain = text.starts_with("file:///") && url.query().is_none() && url.fragment().is_none();
    match url.to_file_path() {
        Ok(path) if is_plain => Ok(Place::Directory(path)),
        _ => Err("file: must be followed by // and an absolute path".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ObjectStoreUrl> {
        text.parse()
    }

    #[test]
    fn urls_print_as_they_are_read() {
        for (text, printed) in [
            ("s3://logs", "s3://logs"),
            ("s3://logs/", "s3://logs"),
            ("s3://logs.eu-1/a/b c/", "s3://logs.eu-1/a/b c"),
            ("file:///var/lib/log%20s", "/var/lib/log s"),
            ("/var/lib/streamhouse", "/var/lib/streamhouse"),
            ("./streamhouse/objects", "./streamhouse/objects"),
            ("a:b", "a:b"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(url.to_string(), printed);
            assert_eq!(parse(printed).unwrap(), url);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        for (text, problem) in [
            ("", "it is empty"),
            ("gs://logs", "gs is none of its schemes"),
            ("http://localhost:9000/logs", "http is none of its schemes"),
            ("s3:logs", "not followed by //"),
            ("s3:///orders", "no bucket's name"),
            ("s3://Logs", "no bucket's name"),
            ("s3://lo/x", "no bucket's name"),
            ("s3://logs/a//b", "its prefix cannot be used"),
            ("s3://logs/../other", "its prefix cannot be used"),
            ("s3://logs?region=x", "a query"),
            ("file://host/logs", "absolute path"),
            ("file:logs", "absolute path"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("s3://BUCKET/PREFIX"), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = parse("s3://key:secret@logs/x").unwrap_err().to_string();
        assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
        assert!(!error.contains("secret@") && !error.contains("key:"), "{error}");
    }
}
