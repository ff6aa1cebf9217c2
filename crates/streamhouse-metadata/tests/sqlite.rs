//! The embedded store does what every metadata store must do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance;

use conformance::conformance;
use streamhouse_metadata::{MetadataStore, SqliteMetadataStore};
use tempfile::TempDir;

struct Fixture {
    store: SqliteMetadataStore,
    _directory: TempDir,
}

impl Fixture {
    fn store(&self) -> &dyn MetadataStore {
        &self.store
    }
}

async fn open() -> Fixture {
    let directory = TempDir::new().unwrap();
    let store = SqliteMetadataStore::new(directory.path().join("metadata.db")).await.unwrap();
    Fixture { store, _directory: directory }
}

conformance!(open);
