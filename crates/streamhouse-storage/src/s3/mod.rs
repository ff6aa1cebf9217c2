//! S3, and what speaks its protocol, through object_store's client.
//!
//! - **An object is created once.** A put says `If-None-Match: *`, so the store refuses a second object under a key. A put
//!   whose answer is lost is sent again and then meets the object it made itself: see [`store`].
//! - **An answer counts when it is whole.** A body that is cut short or stalls is asked for again, and when that does not
//!   help the store is unavailable; nothing of it is ever taken for a damaged segment.
//! - **Everything is tried again that may succeed**: throttling (503 `SlowDown`, 429), other 5xx, connections that break,
//!   answers that do not come, conflicts of conditional puts; with exponential backoff and jitter.
//! - **Every operation has an end**, retries included: [`S3Limits`].

mod answer;
mod credentials;
mod http;
mod settings;
mod store;

pub use settings::{S3Limits, S3Settings};

pub(crate) use answer::{did_not_answer, is_full, refusal};
use object_store::{ObjectStore, path::Path, prefix::PrefixStore};
use std::sync::Arc;
use store::S3Store;

/// A client for the objects below `prefix` of a bucket. Asks for nothing. The error is what is wrong with the settings.
pub(crate) fn connect(
    bucket: &str,
    prefix: &Path,
    settings: &S3Settings,
) -> Result<Arc<dyn ObjectStore>, String> {
    let store = S3Store::new(settings.client(bucket)?, settings.limits.operation_timeout);
    if prefix.as_ref().is_empty() {
        return Ok(Arc::new(store));
    }
    Ok(Arc::new(PrefixStore::new(store, prefix.clone())))
}
