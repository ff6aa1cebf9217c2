//! The file that the connections have open, told from whatever is at its path later.

use super::errors::{IS_GONE, cannot_create, refused};
use crate::error::Result;
use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Device and inode of the open file, which cannot become another file's meanwhile.
#[derive(Debug)]
pub(super) struct OpenFile {
    identity: (u64, u64),
    /// Keeps the inode from being used again, also between two connections. Opened for its path only: to close any other
    /// descriptor of the file would drop the locks that SQLite has on it
    /// (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>).
    _path: OwnedFd,
}

impl OpenFile {
    /// The file at a path where a connection has just opened it.
    pub(super) fn at(path: &Path) -> Result<OpenFile> {
        let opened = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| Ok((fstat(&file)?, file)))
            .map_err(|error| cannot_create(path, error.into()))?;
        let (found, file) = opened;
        Ok(OpenFile { identity: (found.st_dev, found.st_ino), _path: file })
    }

    /// Whether it is still what others find at `path`: one system call, microseconds.
    ///
    /// # Errors
    ///
    /// `Unusable` when it is not, with what to do.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        match stat(path) {
            Ok(found) if (found.st_dev, found.st_ino) == self.identity => Ok(()),
            Ok(_) => Err(refused(path, IS_GONE, &std::io::Error::other("another file is there").into())),
            // Whoever may not look at the path any more cannot tell; what is open can be written.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(refused(path, IS_GONE, &std::io::Error::from(error).into())),
        }
    }
}
