//! Families → the page that Prometheus scrapes, in the [format](Format) that is asked for.
//!
//! Families stand in the order of the catalog and series in the order of their labels, so that equal numbers give equal
//! bytes. Why not the encoders of prometheus-client is said in docs/adr/0010.

mod format;
mod number;
#[allow(missing_docs, reason = "the fields are those of metrics.proto, which documents them")]
pub mod protobuf;
mod text;

pub use format::Format;

use crate::{ClassicBuckets, Families};
use text::Dialect;

/// The page.
pub fn write(families: &Families, format: Format, buckets: ClassicBuckets) -> Vec<u8> {
    match format {
        Format::Text => text::write(families, buckets, Dialect::Prometheus).into_bytes(),
        Format::OpenMetrics => text::write(families, buckets, Dialect::OpenMetrics).into_bytes(),
        Format::Protobuf => protobuf::write(families, buckets),
    }
}
