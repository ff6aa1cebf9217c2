//! What a site's pointer arguments point to, in the memory of the observed process.

use crate::bucket;
use crate::limits::{GROUP_BYTES_MAX, INSTANCE_ID_BYTES_MAX};
use core::mem::{offset_of, size_of};

/// What kind of process or object a scope describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Role {
    /// An agent.
    Agent = 1,
    /// A producer.
    Producer = 2,
    /// A consumer.
    Consumer = 3,
}

impl Role {
    /// The value of the `role` label.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Agent => "agent",
            Role::Producer => "producer",
            Role::Consumer => "consumer",
        }
    }

    /// The role of a number, if there is one.
    pub const fn from_number(number: u32) -> Option<Role> {
        match number {
            1 => Some(Role::Agent),
            2 => Some(Role::Producer),
            3 => Some(Role::Consumer),
            _ => None,
        }
    }
}

/// The strings that all scopes of one agent, producer or consumer share. NUL-terminated.
#[repr(C)]
pub struct Owner {
    /// Agent or client id.
    pub instance_id: [u8; INSTANCE_ID_BYTES_MAX + 1],
    /// Consumer group; empty for agents and producers.
    pub group: [u8; GROUP_BYTES_MAX + 1],
}

/// The fixed part of a scope, which lies directly **before** the address that a site passes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeHead {
    /// Drawn at random by each process (a forked child draws anew): tells a process from a later one with its pid.
    pub nonce: u64,
    /// Never reused within a process.
    pub scope_id: u64,
    /// Address of the [`Owner`].
    pub owner: u64,
    /// Partition, or [`Scope::NO_PARTITION`].
    pub partition: u32,
    /// A [`Role`]'s number.
    pub role: u32,
}

/// Who and where: the head, then the topic, NUL-terminated and as long as it is.
///
/// Sites pass the address of `topic`, so that `str(arg0)` in bpftrace prints it; the head is found
/// [`Scope::TOPIC_OFFSET`] bytes before. Fixed size first and variable size last keeps a scope of a typical topic at 64
/// bytes, and the kernel program needs no search to find either part. It lives as long as the producer, consumer or
/// partition writer that it describes.
#[repr(C)]
pub struct Scope {
    /// The fixed part.
    pub head: ScopeHead,
    /// The topic and its NUL, as long as they are (a C flexible array member); just the NUL when the scope is a whole
    /// instance.
    pub topic: [u8; 0],
}

impl Scope {
    /// Distance from the start of the scope to the topic.
    pub const TOPIC_OFFSET: usize = size_of::<ScopeHead>();
    /// The scope is not of one partition.
    pub const NO_PARTITION: u32 = u32::MAX;
}

/// How many records of a batch fell into one bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// Index as [`bucket::of_ns`] gives it.
    pub bucket: u32,
    /// Records; at least 1.
    pub records: u32,
}

/// The latencies of a batch's records, binned: each bucket at most once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bins {
    /// How many of `bins` hold something.
    pub len: u64,
    /// The non-empty buckets, then whatever was there before.
    pub bins: [Bin; bucket::COUNT],
}

const _: () = {
    assert!(size_of::<Owner>() == 384);
    assert!(size_of::<ScopeHead>() == 32);
    assert!(offset_of!(ScopeHead, owner) == 16);
    assert!(offset_of!(ScopeHead, role) == 28);
    assert!(offset_of!(Scope, topic) == Scope::TOPIC_OFFSET);
    assert!(size_of::<Bin>() == 8);
    assert!(size_of::<Bins>() == 8 + 8 * bucket::COUNT);
};
