//! Segments on an object store: their format, who writes them and who reads them.
//!
//! A flush of an agent becomes one object with the batches of many partitions in it ([`SegmentBuilder`]); consumers read
//! their partitions' ranges straight from the store ([`PartitionReader`]). Both go through a [`SegmentStore`], which
//! tells the hooks of every operation. The format is described at [`segment`].

mod error;
mod local;
mod reader;
pub mod segment;
mod store;
#[cfg(test)]
mod testing;

pub use error::{Result, StorageError};
pub use local::{create_local, open_local};
pub use reader::{PartitionReader, RangeLocation, Taken};
pub use segment::{RangeLayout, Segment, SegmentBuilder, SegmentSummary, verify_segment};
pub use store::{SegmentStore, StoredObject};
