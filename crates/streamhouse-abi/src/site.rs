//! The sites: names, arguments, statuses.

/// USDT provider of every site.
pub const PROVIDER: &str = "streamhouse";

/// Duration of an operation that began before anyone looked: counted, put in no bucket.
pub const UNTIMED: u64 = u64::MAX;

/// The bytes of a site: on x86-64 the 5-byte nop `nopl 0x0(%rax,%rax,1)`, which kernels since 6.18 rewrite into a
/// call, on aarch64 `nop`.
#[cfg(not(target_arch = "aarch64"))]
pub const SITE_NOP: &[u8] = &[0x0f, 0x1f, 0x44, 0x00, 0x00];
/// The bytes of a site.
#[cfg(target_arch = "aarch64")]
pub const SITE_NOP: &[u8] = &[0x1f, 0x20, 0x03, 0xd5];

/// The argument string of every site's note: the six integer argument registers of the C ABI and two that it leaves
/// to anyone, unsigned 64-bit.
#[cfg(not(target_arch = "aarch64"))]
pub const SITE_ARGUMENTS: &str = "8@%rdi 8@%rsi 8@%rdx 8@%rcx 8@%r8 8@%r9 8@%r11 8@%r10";
/// The argument string of every site's note.
#[cfg(target_arch = "aarch64")]
pub const SITE_ARGUMENTS: &str = "8@x0 8@x1 8@x2 8@x3 8@x4 8@x5 8@x6 8@x7";

/// Where the seventh argument is in the registers that a kernel program sees, in words of 8 bytes: r11 in `struct
/// pt_regs` of x86-64, x6 in `struct user_pt_regs` of aarch64.
pub const SITE_SCOPE_ID_WORD: usize = 6;
/// Where the eighth argument is: r10 and x7.
pub const SITE_NONCE_WORD: usize = 7;

/// What a site observes. Arguments are the same eight for each:
///
/// | arg | meaning |
/// | --- | --- |
/// | 0 | address of a [`Scope`](crate::Scope)'s topic |
/// | 1 | records |
/// | 2 | bytes of keys, values and headers before compression; for `object` bytes moved |
/// | 3 | duration in ns or [`UNTIMED`]; for `send` the sum over the batch |
/// | 4 | a [`Status`]'s number |
/// | 5 | `send`: address of [`Bins`](crate::Bins) or 0; `object`: an [`Operation`]'s number; `request`: a [`Method`](crate::Method)'s; else address of a 16-byte trace id, or 0 |
/// | 6 | the scope's id: its [`ScopeHead::scope_id`](crate::ScopeHead) |
/// | 7 | the process's nonce: its [`ScopeHead::nonce`](crate::ScopeHead) |
///
/// The last two are what a hit is counted under: in registers, the kernel program need not read the head to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Site {
    /// A batch acknowledged or failed, in the producer. Duration per record, from `send()` to acknowledgement.
    Send = 0,
    /// A batch of a produce request, in the producer: sealed to acknowledged.
    Flush = 1,
    /// A partition that returned records in one poll: fetch and decode, without idle waiting.
    Poll = 2,
    /// A batch of a produce request, in the agent: request received to durable and committed.
    Write = 3,
    /// An object-store operation: start to completion.
    Object = 4,
    /// The metadata transaction that commits a flush, in the agent: begin to committed.
    Commit = 5,
    /// A gRPC request, in the agent: handler start to response.
    Request = 6,
}

impl Site {
    /// Every site, in the order of its number.
    pub const ALL: [Site; 7] =
        [Site::Send, Site::Flush, Site::Poll, Site::Write, Site::Object, Site::Commit, Site::Request];

    /// The site's name in its note.
    pub const fn name(self) -> &'static str {
        match self {
            Site::Send => "send",
            Site::Flush => "flush",
            Site::Poll => "poll",
            Site::Write => "write",
            Site::Object => "object",
            Site::Commit => "commit",
            Site::Request => "request",
        }
    }

    /// The site of a name, if there is one.
    pub fn from_name(name: &str) -> Option<Site> {
        Site::ALL.into_iter().find(|site| site.name() == name)
    }

    /// The site of a number, if there is one.
    pub fn from_number(number: u16) -> Option<Site> {
        Site::ALL.get(usize::from(number)).copied()
    }
}

/// Begins a memory page.
///
/// So a site's semaphore has to lie. Linkers may put the end of one writable segment (the data that is read-only after
/// relocation) and the beginning of the next on the same page of the file, and the loader then maps that page twice. For
/// a process that starts while a tracer is attached, the kernel counts in whichever writable mapping of the page comes
/// first (`valid_ref_ctr_vma` in `kernel/events/uprobes.c`): a semaphore on such a page stays 0, and nothing of the
/// process is seen. A page that begins within a segment is in no earlier one.
#[derive(Debug)]
#[cfg_attr(not(target_arch = "aarch64"), repr(C, align(4096)))]
// The largest page that kernels for this processor are built with.
#[cfg_attr(target_arch = "aarch64", repr(C, align(65536)))]
pub struct OwnPage<T>(pub T);

/// How an operation ended: 0 is success, every other number an error kind of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// It succeeded.
    #[default]
    Ok = 0,
    /// It failed and may succeed when tried again.
    Retry = 1,
    /// Its writer has lost the partition's lease.
    Fenced = 2,
    /// The request was wrong.
    Invalid = 3,
    /// What it named does not exist.
    NotFound = 4,
    /// Stored or received bytes failed their check.
    Corrupt = 5,
    /// A service it needs did not answer in time, or is out of resources.
    Unavailable = 6,
}

impl Status {
    /// Every status, in the order of its number.
    pub const ALL: [Status; 7] = [
        Status::Ok,
        Status::Retry,
        Status::Fenced,
        Status::Invalid,
        Status::NotFound,
        Status::Corrupt,
        Status::Unavailable,
    ];

    /// The value of the `status` label.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Retry => "retry",
            Status::Fenced => "fenced",
            Status::Invalid => "invalid",
            Status::NotFound => "not_found",
            Status::Corrupt => "corrupt",
            Status::Unavailable => "unavailable",
        }
    }

    /// The status of a number, if there is one.
    pub fn from_number(number: u8) -> Option<Status> {
        Status::ALL.get(usize::from(number)).copied()
    }
}

/// What an `object` event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Operation {
    /// Stored an object.
    Put = 0,
    /// Read an object or a range of it.
    Get = 1,
    /// Removed an object.
    Delete = 2,
    /// Listed objects.
    List = 3,
    /// Asked for an object's size and date.
    Head = 4,
}

impl Operation {
    /// Every operation, in the order of its number.
    pub const ALL: [Operation; 5] =
        [Operation::Put, Operation::Get, Operation::Delete, Operation::List, Operation::Head];

    /// The operation of a number, if there is one.
    pub fn from_number(number: u16) -> Option<Operation> {
        Operation::ALL.get(usize::from(number)).copied()
    }

    /// The value of the `operation` label.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Delete => "delete",
            Operation::List => "list",
            Operation::Head => "head",
        }
    }
}

const _: () = {
    let mut number = 0;
    while number < Site::ALL.len() {
        assert!(Site::ALL[number] as usize == number);
        number += 1;
    }
    let mut number = 0;
    while number < Status::ALL.len() {
        assert!(Status::ALL[number] as usize == number);
        number += 1;
    }
    let mut number = 0;
    while number < Operation::ALL.len() {
        assert!(Operation::ALL[number] as usize == number);
        number += 1;
    }
};
