//! What every part of the log shares: ids, records, record batches, error kinds, limits and the clock. No I/O.

pub mod balance;
pub mod batch;
mod clock;
mod error;
mod id;
pub mod limits;
mod message;
mod record;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::ErrorKind;
pub use id::{AgentId, GroupId, InvalidName, MemberId, Partition, SegmentId, TopicName, TopicPartition};
pub use message::{AsTyped, Counted};
pub use record::{Header, Record};
