//! Sites of this test's own, whose arguments can be anything.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use streamhouse_abi::limits::{GROUP_BYTES_MAX, INSTANCE_ID_BYTES_MAX, TOPIC_BYTES_MAX};
use streamhouse_abi::{OwnPage, Owner, Role, ScopeHead, Site};
use streamhouse_probe::attach::SiteOffsets;
use streamhouse_probe::files::own_offset;

/// A site with its eight arguments where the treaty wants them. Written out instead of taken from the hooks, which keep
/// arguments honest: the first six arguments of a C function are already in their registers.
#[cfg(target_arch = "x86_64")]
macro_rules! raw_site {
    ($name:literal) => {
        std::arch::global_asm!(
            ".pushsection .text",
            concat!(".globl ", $name, "; ", $name, ":"),
            "mov r11, [rsp + 8]",
            "mov r10, [rsp + 16]",
            ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
            "ret",
            ".popsection",
        );
    };
}
/// On this processor the last two are in their registers too.
#[cfg(target_arch = "aarch64")]
macro_rules! raw_site {
    ($name:literal) => {
        std::arch::global_asm!(
            ".pushsection .text",
            concat!(".globl ", $name, "; ", $name, ": nop; ret"),
            ".popsection",
        );
    };
}

/// Bytes of a raw site's function before its nop.
const BEFORE_NOP: usize = if cfg!(target_arch = "x86_64") { 10 } else { 0 };

raw_site!("streamhouse_raw_send");
raw_site!("streamhouse_raw_flush");
raw_site!("streamhouse_raw_poll");
raw_site!("streamhouse_raw_write");
raw_site!("streamhouse_raw_object");
raw_site!("streamhouse_raw_commit");
raw_site!("streamhouse_raw_request");

/// Topic, records, bytes, duration, status, particular, scope id, nonce.
type RawSite = extern "C" fn(u64, u64, u64, u64, u64, u64, u64, u64);

unsafe extern "C" {
    safe fn streamhouse_raw_send(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
    safe fn streamhouse_raw_flush(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
    safe fn streamhouse_raw_poll(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
    safe fn streamhouse_raw_write(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
    safe fn streamhouse_raw_object(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
    safe fn streamhouse_raw_commit(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
    safe fn streamhouse_raw_request(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
}

/// In the file, unlike a zeroed static elsewhere.
#[unsafe(link_section = ".probes")]
static SEMAPHORES: OwnPage<[AtomicU16; Site::ALL.len()]> =
    OwnPage([const { AtomicU16::new(0) }; Site::ALL.len()]);

fn function(site: Site) -> RawSite {
    match site {
        Site::Send => streamhouse_raw_send,
        Site::Flush => streamhouse_raw_flush,
        Site::Poll => streamhouse_raw_poll,
        Site::Write => streamhouse_raw_write,
        Site::Object => streamhouse_raw_object,
        Site::Commit => streamhouse_raw_commit,
        Site::Request => streamhouse_raw_request,
    }
}

/// How often each site is attached.
pub(crate) fn semaphores() -> Vec<u16> {
    SEMAPHORES.0.iter().map(|semaphore| semaphore.load(Ordering::Relaxed)).collect()
}

/// Where the sites are in this executable's file.
pub(crate) fn sites() -> Vec<SiteOffsets> {
    let in_file = |address| own_offset(address).expect("it is mapped from this executable");
    let place = |site: Site| SiteOffsets {
        site,
        offset: in_file(function(site) as usize + BEFORE_NOP),
        semaphore_offset: in_file(&raw const SEMAPHORES.0[site as usize] as usize),
    };
    Site::ALL.into_iter().map(place).collect()
}

/// What one hit passes besides its scope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) duration_ns: u64,
    pub(crate) status: u64,
    pub(crate) particular: u64,
}

/// Hits a site with any address of a topic, and the id that no scope has.
pub(crate) fn hit_at(site: Site, topic: u64, with: Arguments) {
    hit_as(site, topic, with, 0);
}

fn hit_as(site: Site, topic: u64, with: Arguments, scope_id: u64) {
    let Arguments { records, bytes, duration_ns, status, particular } = with;
    function(site)(topic, records, bytes, duration_ns, status, particular, scope_id, NONCE);
}

/// A scope as hooks make it, except that everything can be changed.
pub(crate) struct RawScope {
    memory: Box<Memory>,
    _owner: Box<Owner>,
}

#[repr(C)]
struct Memory {
    head: ScopeHead,
    topic: [u8; TOPIC_BYTES_MAX + 1],
}

/// Scope ids are never reused within a process.
static SCOPES: AtomicU64 = AtomicU64::new(FIRST_SCOPE);
/// The first of them, in every process.
pub(crate) const FIRST_SCOPE: u64 = 1 << 32;
/// What this process calls itself in its raw scopes.
pub(crate) const NONCE: u64 = 0x5eed;

impl RawScope {
    pub(crate) fn new(topic: &str) -> RawScope {
        let mut owner =
            Box::new(Owner { instance_id: [0; INSTANCE_ID_BYTES_MAX + 1], group: [0; GROUP_BYTES_MAX + 1] });
        owner.instance_id[..3].copy_from_slice(b"raw");
        let head = ScopeHead {
            nonce: NONCE,
            scope_id: SCOPES.fetch_add(1, Ordering::Relaxed),
            owner: &raw const *owner as u64,
            partition: 7,
            role: Role::Producer as u32,
        };
        let mut memory = Box::new(Memory { head, topic: [0; TOPIC_BYTES_MAX + 1] });
        memory.topic[..topic.len()].copy_from_slice(topic.as_bytes());
        RawScope { memory, _owner: owner }
    }

    /// Gives its topic any bytes.
    pub(crate) fn name(&mut self, topic: &[u8]) {
        self.memory.topic[..topic.len()].copy_from_slice(topic);
    }

    pub(crate) fn head(&mut self) -> &mut ScopeHead {
        &mut self.memory.head
    }

    /// What a site passes.
    pub(crate) fn topic(&self) -> u64 {
        self.memory.topic.as_ptr() as u64
    }

    pub(crate) fn hit(&self, site: Site, with: Arguments) {
        self.hit_through(site, self.topic(), with);
    }

    /// Hits a site with another topic's address than the scope's own.
    pub(crate) fn hit_through(&self, site: Site, topic: u64, with: Arguments) {
        hit_as(site, topic, with, self.memory.head.scope_id);
    }
}
