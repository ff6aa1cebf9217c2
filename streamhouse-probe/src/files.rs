//! Opening what another process names, without ever opening a thing that does something when opened.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};

/// What a file is, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number on that device.
    pub inode: u64,
}

impl FileId {
    /// The identity that a stat shows.
    pub fn of(stat: &Stat) -> FileId {
        FileId { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Opens a regular file for reading.
///
/// The path belongs to another process, who may put a device or a pipe there at any moment. So first only a handle is
/// taken, which touches nothing; when that is a regular file, the same file is opened through the handle.
///
/// # Errors
///
/// What the kernel says, or [`io::ErrorKind::InvalidInput`] when it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<(File, Stat)> {
    let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&handle)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let through_handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(through_handle, flags, Mode::empty())?);
    let stat = rustix::fs::fstat(&file)?;
    Ok((file, stat))
}

/// Where in its file lies what this process has mapped at an address; `None` when nothing is, or no file.
pub fn own_offset(address: usize) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let address = address as u64;
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, offset) = (hex(start)?, hex(fields.nth(1)?)?);
        (start <= address && address < hex(end)?).then(|| offset + address - start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_open_and_others_do_not() {
        let named = tempfile::NamedTempFile::new().expect("a temporary file");
        let (file, stat) = open_regular(named.path()).expect("it is regular");
        assert_eq!(FileId::of(&stat), FileId::of(&rustix::fs::fstat(&file).expect("open")));
        for other in ["/dev/null", "/proc/self", "/"] {
            let kind = open_regular(Path::new(other)).expect_err(other).kind();
            assert_eq!(kind, io::ErrorKind::InvalidInput, "{other}");
        }
    }
}
