//! What a hit costs: the kernel program against an empty one at the same sites, alternating.
//!
//! `cargo bench -p streamhouse-probe --bench hit`, as root. Arguments are paths of further program objects, to compare
//! versions of the program within one run. Processor time of the thread, nanoseconds a hit, the least of all rounds:
//! what a machine adds by being busy with other things only ever makes a round longer.

#![expect(clippy::print_stdout, reason = "a benchmark answers on its standard output")]

#[expect(dead_code, reason = "the trials of the kernel tests use more of it")]
#[path = "../tests/kernel/raw.rs"]
mod raw;

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use raw::{Arguments, RawScope};
use rustix::time::{ClockId, clock_gettime};
use streamhouse_abi::{Bin, Bins, Site, bucket};
use streamhouse_probe::attach::{self, Kernel, SiteOffsets};

const ROUNDS: u32 = 15;
const HITS: u32 = 20_000;

/// What is hit: a name, the site, and how many latency bins the batch has.
const CASES: &[(&str, Site, u64)] = &[
    ("write", Site::Write, 0),
    ("object", Site::Object, 0),
    ("flush", Site::Flush, 0),
    ("send, 3 bins", Site::Send, 3),
    ("send, 16 bins", Site::Send, 16),
    ("send, 64 bins", Site::Send, 64),
];

fn main() {
    let paths = env::args().skip(1).filter(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let objects: Vec<Option<PathBuf>> = [None].into_iter().chain(paths.map(Some)).collect();
    let kernels: Vec<Kernel> = objects
        .iter()
        .map(|path| {
            let object = attach::object(path.as_deref()).expect("the object can be read");
            Kernel::load(&object).expect("the program loads")
        })
        .collect();
    let empty = load_empty().expect("an empty program loads");
    let (file, sites) = (File::open("/proc/self/exe").expect("the executable"), raw::sites());
    let scope = RawScope::new("cost");
    let mut least = vec![[u64::MAX; CASES.len()]; kernels.len() + 1];
    for _ in 0..ROUNDS {
        let link = link_empty(&empty, &file, &sites).expect("the empty program attaches");
        measure(&scope, &mut least[0]);
        drop(link);
        for (kernel, least) in kernels.iter().zip(&mut least[1..]) {
            let _link = kernel.program.attach(&file, 1, &sites).expect("the program attaches");
            measure(&scope, least);
        }
    }
    print(&objects, &least);
}

/// Hits every case's site often enough to tell, and keeps what was less than before.
fn measure(scope: &RawScope, least: &mut [u64; CASES.len()]) {
    for (&(_, site, len), least) in CASES.iter().zip(least) {
        let mut bins = Bins { len, bins: [Bin::default(); bucket::COUNT] };
        for (bucket, bin) in bins.bins.iter_mut().enumerate().take(len as usize) {
            *bin = Bin { bucket: 40 + bucket as u32, records: 5 };
        }
        let (records, particular) =
            if site == Site::Send { (5 * len, &raw const bins as u64) } else { (100, 0) };
        let with = Arguments { records, bytes: 10_000, duration_ns: 5_000_000, status: 0, particular };
        let before = processor_ns();
        (0..HITS).for_each(|_| scope.hit(site, with));
        *least = (*least).min((processor_ns() - before) / u64::from(HITS));
    }
}

fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn print(objects: &[Option<PathBuf>], least: &[[u64; CASES.len()]]) {
    println!("{:<16}{:>10}", "hit, ns", "empty");
    for (index, (name, _, _)) in CASES.iter().enumerate() {
        print!("{name:<16}{:>10}", least[0][index]);
        for program in &least[1..] {
            print!("{:>10} ({:.2})", program[index], program[index] as f64 / least[0][index] as f64);
        }
        println!();
    }
    for path in objects.iter().flatten() {
        println!("then: {}", path.display());
    }
}

/// `r0 = 0; exit`.
const EMPTY: [u64; 2] = [0xb7, 0x95];
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_KPROBE: u64 = 2;
const BPF_TRACE_UPROBE_MULTI: u64 = 48;

/// Loads an empty program. The fields are those of `union bpf_attr`, two of four bytes in each word.
fn load_empty() -> io::Result<OwnedFd> {
    let mut attributes = [0u64; 14];
    attributes[0] = BPF_PROG_TYPE_KPROBE | (EMPTY.len() as u64) << 32;
    attributes[1] = EMPTY.as_ptr() as u64;
    attributes[2] = c"GPL".as_ptr() as u64;
    attributes[8] = BPF_TRACE_UPROBE_MULTI << 32;
    bpf(BPF_PROG_LOAD, &attributes)
}

/// Attaches it to every site.
fn link_empty(program: &OwnedFd, file: &File, sites: &[SiteOffsets]) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("no NUL");
    let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
    let semaphores: Vec<u64> = sites.iter().map(|site| site.semaphore_offset).collect();
    let mut attributes = [0u64; 8];
    attributes[0] = program.as_raw_fd() as u64;
    attributes[1] = BPF_TRACE_UPROBE_MULTI;
    attributes[2] = path.as_ptr() as u64;
    attributes[3] = offsets.as_ptr() as u64;
    attributes[4] = semaphores.as_ptr() as u64;
    attributes[6] = sites.len() as u64;
    bpf(BPF_LINK_CREATE, &attributes)
}

fn bpf(command: libc::c_long, attributes: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are as long as said, and what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
