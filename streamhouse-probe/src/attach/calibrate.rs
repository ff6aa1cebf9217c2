//! What a hit costs the process that is observed, measured on this machine: the trap, the kernel's way to the program,
//! the program, and back. The kernel's own statistics need CAP_SYS_ADMIN and leave the trap out.

use std::fs::File;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use streamhouse_abi::limits::{GROUP_BYTES_MAX, INSTANCE_ID_BYTES_MAX};
use streamhouse_abi::{Owner, Role, ScopeHead, Site};

use super::{Kernel, SiteOffsets};
use crate::files::own_offset;

/// Rounds of hits; the quickest counts, because a machine that is busy only ever makes one longer.
const ROUNDS: u32 = 8;
const HITS: u32 = 1_000;

// A site with its eight arguments where the treaty wants them: the first six of a C function are in their registers
// already. It has no note, so that nobody takes this process for an observed one.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text",
    ".globl streamhouse_probe_calibration",
    "streamhouse_probe_calibration:",
    "mov r11, [rsp + 8]",
    "mov r10, [rsp + 16]",
    ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
    "ret",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .text",
    ".globl streamhouse_probe_calibration",
    "streamhouse_probe_calibration: nop; ret",
    ".popsection",
);

/// Bytes of the function before its nop.
const BEFORE_NOP: usize = if cfg!(target_arch = "x86_64") { 10 } else { 0 };

unsafe extern "C" {
    safe fn streamhouse_probe_calibration(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64);
}

/// A scope as hooks make it.
#[repr(C)]
struct Scope {
    head: ScopeHead,
    topic: [u8; 8],
}

/// Hits a site of this process, to which `kernel`'s program is attached for that long. The kernel must be one of its
/// own: the hits are counted in it. `None` when the program cannot be attached.
pub(super) fn hit_cost(kernel: &Kernel) -> Option<Duration> {
    let offset = own_offset(streamhouse_probe_calibration as *const () as usize + BEFORE_NOP)?;
    let executable = File::open("/proc/self/exe").ok()?;
    let site = SiteOffsets { site: Site::Write, offset, semaphore_offset: 0 };
    let _link = kernel.program.attach(&executable, 0, &[site]).ok()?;
    let owner = Owner { instance_id: [0; INSTANCE_ID_BYTES_MAX + 1], group: [0; GROUP_BYTES_MAX + 1] };
    let head = ScopeHead {
        nonce: 1,
        scope_id: 1,
        owner: &raw const owner as u64,
        partition: 0,
        role: Role::Agent as u32,
    };
    let scope = Scope { head, topic: [0; 8] };
    let topic = scope.topic.as_ptr() as u64;
    let round = |_| {
        let begin = processor_ns();
        (0..HITS).for_each(|_| {
            let (records, bytes, duration_ns, status) = (1_000, 100_000, 5_000_000, 0);
            streamhouse_probe_calibration(topic, records, bytes, duration_ns, status, 0, 1, 1);
        });
        (processor_ns() - begin) / u64::from(HITS)
    };
    (0..ROUNDS).map(round).min().map(Duration::from_nanos)
}

fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
