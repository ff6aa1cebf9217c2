//! One agent at a time on a metadata file.

use super::errors::cannot_create;
use crate::error::{MetadataError, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// The right to be the one agent on a metadata file. Dropping it, or the end of the process, gives it back.
#[derive(Debug)]
pub struct AgentLock {
    // The kernel's lock belongs to the open file; the file itself stays, because removing it would let two agents lock
    // two files of one name.
    _file: File,
}

impl AgentLock {
    pub(super) fn take(database: &Path) -> Result<AgentLock> {
        let mut path = database.as_os_str().to_owned();
        path.push(".agent");
        let path = Path::new(&path);
        let failed = |error: std::io::Error| cannot_create(path, error);

        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Only for the message; who does not say is 0.
                let _ = file.read_to_string(&mut pid);
                let path = database.display().to_string();
                return Err(MetadataError::AgentRuns { path, pid: pid.trim().parse().unwrap_or(0) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(AgentLock { _file: file })
    }
}
