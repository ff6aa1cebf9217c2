//! Every maximum of the treaty, and why it is what it is.

use core::time::Duration;

/// Longest topic name, in bytes. Kafka's limit, so that names carry over.
pub const TOPIC_BYTES_MAX: usize = 249;
/// Longest group name, in bytes: fits a 256-byte field with its NUL.
pub const GROUP_BYTES_MAX: usize = 255;
/// Longest instance id, in bytes: fits a 128-byte field with its NUL. Host names are at most 64 bytes on Linux.
pub const INSTANCE_ID_BYTES_MAX: usize = 127;

/// Most records one hit may state; more is refused as clamped. A v2 record batch cannot hold more than 2^31, ours
/// hold far fewer.
pub const HIT_RECORDS_MAX: u64 = 1 << 24;
/// Most bytes one hit may state; more is refused as clamped.
pub const HIT_BYTES_MAX: u64 = 1 << 32;
/// Longest duration one hit (for `send`: one record of it) may state, in nanoseconds: 73 minutes.
pub const HIT_DURATION_NS_MAX: u64 = 1 << 42;

/// Capacity of [`crate::map::VALUES`]: (scope, site, detail) triples of all observed processes. One process's share is
/// enough for an agent of 1 000 partitions.
pub const VALUES_MAX: u32 = 12_288;
/// Capacity of [`crate::map::SIZES`]: one entry a producer partition.
pub const SIZES_MAX: u32 = 2048;
/// Capacity of [`crate::map::SCOPES`].
pub const SCOPES_MAX: u32 = 8192;
/// Capacity of [`crate::map::PROCESSES`]: observed processes at one time.
pub const PROCESSES_MAX: u32 = 1024;
/// Capacity of [`crate::map::TARGETS`]: files found attached through a second path while the probe runs.
pub const TARGETS_MAX: u32 = 1024;
/// One process may hold at most this part of a map: one eighth.
pub const PROCESS_SHARE: u32 = 8;

/// How long an agent may update nothing on its page: it stands still then, and what it says of other things than itself may
/// be another agent's to say by now. An agent updates its page with each sweep, which is once a minute at least.
pub const AGENT_SILENCE_MAX: Duration = Duration::from_secs(120);

/// Address space of an agent's state page, in bytes. Sparse: what counts is what is resident.
pub const AGENT_PAGE_BYTES: usize = 16 << 20;
/// Address space of a client's state page, in bytes.
pub const CLIENT_PAGE_BYTES: usize = 1 << 20;
