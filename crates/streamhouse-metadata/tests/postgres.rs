//! The shared store does what every metadata store must do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance;

use conformance::conformance;
use streamhouse_metadata::{MetadataStore, PostgresMetadataStore};
use streamhouse_tests::postgres::test_database;

struct Fixture {
    store: PostgresMetadataStore,
}

impl Fixture {
    fn store(&self) -> &dyn MetadataStore {
        &self.store
    }
}

async fn open() -> Fixture {
    let url = test_database("conformance").unwrap();
    Fixture { store: PostgresMetadataStore::connect(&url).await.unwrap() }
}

conformance!(open);
