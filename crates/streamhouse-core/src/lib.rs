//! What every part of the log shares: ids, records, record batches, error kinds, limits and the clock. No I/O.

pub mod batch;
mod clock;
mod duration;
mod error;
mod id;
pub mod limits;
mod record;

pub use clock::{Clock, ManualClock, SystemClock};
pub use duration::AsTyped;
pub use error::ErrorKind;
pub use id::{AgentId, GroupId, InvalidName, Partition, SegmentId, TopicName, TopicPartition};
pub use record::{Header, Record};
