//! The three `bpf(2)` commands that aya has no function for, typed.
//!
//! Fields are named and laid out as in `union bpf_attr` of the kernel's `include/uapi/linux/bpf.h`; a kernel that knows
//! more fields takes those past the end as zero.

use std::ffi::CStr;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use aya_obj::generated::bpf_insn;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;

/// Bytes of the verifier's log that are kept.
const LOG_BYTES: usize = 1 << 20;

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    btf_log_true_size: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    uprobe_multi: UprobeMulti,
}

#[repr(C)]
#[derive(Default)]
struct UprobeMulti {
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    flags: u32,
    pid: u32,
    /// Not a field of the kernel: the rest of the last eight bytes.
    zero: u32,
}

const _: () = {
    assert!(size_of::<ProgLoad>() == 112);
    assert!(offset_of!(ProgLoad, expected_attach_type) == 68);
    assert!(offset_of!(ProgLoad, func_info) == 80);
    assert!(offset_of!(ProgLoad, line_info) == 96);
    assert!(size_of::<BtfLoad>() == 32);
    assert!(offset_of!(LinkCreate, uprobe_multi) == 16);
    assert!(offset_of!(UprobeMulti, pid) == 40);
    assert!(size_of::<LinkCreate>() == 64);
};

/// A command's attributes: plain old data that the kernel reads, whose addresses are valid during the call.
trait Attributes {
    const COMMAND: libc::c_long;
}

impl Attributes for ProgLoad {
    const COMMAND: libc::c_long = BPF_PROG_LOAD;
}

impl Attributes for BtfLoad {
    const COMMAND: libc::c_long = BPF_BTF_LOAD;
}

impl Attributes for LinkCreate {
    const COMMAND: libc::c_long = BPF_LINK_CREATE;
}

/// Every command used here gives a file descriptor.
fn bpf<A: Attributes>(attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is as long as said, laid out as the command wants it (asserted above), and the addresses
    // in it were made by the functions below from slices that outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, A::COMMAND, ptr::from_ref(attributes), size_of::<A>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us; it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn address<T: ?Sized>(of: &T) -> u64 {
    ptr::from_ref(of).cast::<()>() as u64
}

/// Loads BTF type information.
pub(super) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    bpf(&BtfLoad { btf: address(btf), btf_size: btf.len() as u32, ..BtfLoad::default() })
}

/// Records of type or line information, as in a `.BTF.ext` section.
pub(super) struct Records<'a> {
    /// The records, one behind the other.
    pub(super) bytes: &'a [u8],
    /// How many.
    pub(super) count: usize,
}

impl Records<'_> {
    fn size(&self) -> u32 {
        self.bytes.len().checked_div(self.count).unwrap_or(0) as u32
    }
}

/// A program to load.
pub(super) struct ProgramText<'a> {
    pub(super) name: &'a str,
    pub(super) license: &'a CStr,
    pub(super) instructions: &'a [bpf_insn],
    pub(super) btf: BorrowedFd<'a>,
    pub(super) functions: Records<'a>,
    pub(super) lines: Records<'a>,
}

/// A program that was not loaded, and what the verifier said.
pub(super) struct Refused {
    pub(super) source: io::Error,
    pub(super) log: String,
}

/// Loads a program for uprobe_multi links.
pub(super) fn load_program(program: &ProgramText<'_>) -> Result<OwnedFd, Refused> {
    let mut attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: program.instructions.len() as u32,
        insns: address(program.instructions),
        license: program.license.as_ptr() as u64,
        expected_attach_type: BPF_TRACE_UPROBE_MULTI,
        prog_btf_fd: program.btf.as_raw_fd() as u32,
        func_info: address(program.functions.bytes),
        func_info_rec_size: program.functions.size(),
        func_info_cnt: program.functions.count as u32,
        line_info: address(program.lines.bytes),
        line_info_rec_size: program.lines.size(),
        line_info_cnt: program.lines.count as u32,
        ..ProgLoad::default()
    };
    // The last byte stays NUL.
    for (to, from) in attributes.prog_name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = from;
    }
    bpf(&attributes).map_err(|source| {
        // The log costs time, so it is asked for only when there is something to say.
        let mut log = vec![0u8; LOG_BYTES];
        attributes.log_level = 1;
        attributes.log_size = log.len() as u32;
        attributes.log_buf = log.as_mut_ptr() as u64;
        // Dropped at once if it loads now: the first answer stands.
        drop(bpf(&attributes));
        let len = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        Refused { source, log: String::from_utf8_lossy(&log[..len]).into_owned() }
    })
}

/// Attaches `program` to every offset of the file at `path`, in every process, now and later. The three slices are
/// equally long.
pub(super) fn link_uprobes(
    program: BorrowedFd<'_>,
    path: &CStr,
    offsets: &[u64],
    semaphores: &[u64],
    cookies: &[u64],
) -> io::Result<OwnedFd> {
    assert!(offsets.len() == semaphores.len() && offsets.len() == cookies.len(), "one of each a site");
    bpf(&LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        uprobe_multi: UprobeMulti {
            path: path.as_ptr() as u64,
            offsets: address(offsets),
            ref_ctr_offsets: address(semaphores),
            cookies: address(cookies),
            cnt: offsets.len() as u32,
            ..UprobeMulti::default()
        },
        ..LinkCreate::default()
    })
}
