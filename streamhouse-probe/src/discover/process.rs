//! What `/proc` says of one process, and its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Stat, major};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::files::FileId;

/// The numbers of all processes.
pub(super) fn pids(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(proc).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The file a process executes. Following the link asks what the file is; it opens nothing.
pub(super) fn executable(process: &Path) -> io::Result<FileId> {
    Ok(FileId::of(&rustix::fs::stat(process.join("exe"))?))
}

/// The name of the file a process executes, as it was before it was deleted. The kernel gives it without a look at the
/// file, so that a file system that does not answer is no matter.
pub(super) fn name_of_executable(process: &Path) -> io::Result<PathBuf> {
    let name = std::fs::read_link(process.join("exe"))?;
    Ok(match name.to_str().and_then(|name| name.strip_suffix(" (deleted)")) {
        Some(name) => PathBuf::from(name),
        None => name,
    })
}

/// The number that a process in a pid namespace of its own knows itself by.
pub(super) fn own_pid(process: &Path) -> Option<u32> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}

/// Whether the file that was mapped is the one that was opened. Major number 0 has no device behind it: what a mapping
/// shows of a btrfs subvolume or an overlay is another number than what a stat shows, and both have major 0.
pub(super) fn same_file(mapped: FileId, opened: FileId) -> bool {
    let anonymous = major(mapped.device) == 0 && major(opened.device) == 0;
    mapped.inode == opened.inode && (mapped.device == opened.device || anonymous)
}

/// Which program image a process runs: each exec lays out its memory anew, at random places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    code: u64,
    stack: u64,
}

impl Image {
    /// `None` when it cannot be told.
    pub(super) fn of(process: &Path) -> Option<Image> {
        let stat = std::fs::read(process.join("stat")).ok()?;
        // The name is in parentheses and may hold anything; see proc_pid_stat(5) for the fields after it.
        let fields = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
        let mut fields = std::str::from_utf8(fields).ok()?.split_ascii_whitespace();
        let mut next = |skipped| fields.nth(skipped)?.parse().ok();
        // Fields 26 and 28; the first one after the name is 3.
        Some(Image { code: next(23)?, stack: next(1)? })
    }
}

/// What changes when a file's content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Stamp {
    #[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between processors")]
    pub(super) fn of(stat: &Stat) -> Stamp {
        Stamp {
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }
}

/// The end of a process. Unlike its number it can never become another's.
#[derive(Debug)]
pub(super) struct Exit(OwnedFd);

impl Exit {
    /// `None` when there is no such process.
    pub(super) fn watch(pid: u32) -> Option<Exit> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(Exit)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn happened(&self) -> bool {
        let mut events = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut events, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

/// Waits until one of these can be read, at most `timeout`. The end of a process makes its descriptor readable.
pub(super) fn wait_for_any<'fd>(descriptors: impl Iterator<Item = BorrowedFd<'fd>>, timeout: Duration) {
    let mut events: Vec<_> = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    // A signal ends the wait early, which costs one look more.
    let _ = poll(&mut events, Some(&timeout));
}
