//! Segments on an object store: their format, who writes them and who reads them.
//!
//! A flush of an agent becomes one object with the batches of many partitions in it ([`SegmentBuilder`]); consumers read
//! their partitions' ranges straight from the store ([`PartitionReader`]). Both go through a [`SegmentStore`], which
//! tells the hooks of every operation. The format is described at [`segment`]. The store itself is a directory or an S3
//! bucket: [`ObjectStoreUrl`].

mod error;
mod local;
mod reader;
mod s3;
pub mod segment;
mod store;
#[cfg(test)]
mod testing;
mod url;

pub use error::{Result, StorageError};
pub use local::{create_local, open_local};
pub use reader::{PartitionReader, RangeLocation, Taken};
pub use s3::{S3Limits, S3Settings};
pub use segment::{RangeLayout, Segment, SegmentBuilder, SegmentSummary, verify_segment};
pub use store::{CLOCK_OBJECT, SegmentStore, StoredObject};
pub use url::ObjectStoreUrl;
