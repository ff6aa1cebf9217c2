//! What is remembered of one process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Binary;
use super::process::{self, Exit, Image};
use crate::files::FileId;

/// Looks at the mappings of a new process: with the default interval in its first two seconds.
pub(super) const SETTLING_LOOKS: u32 = 4;

/// What is known of one process.
#[derive(Debug)]
pub(super) struct Known {
    /// The name of its executable, which needs no look at the file.
    pub(super) name: PathBuf,
    /// `None` until its first inspection.
    pub(super) executable: Option<FileId>,
    /// Another one after an exec of the same file.
    pub(super) image: Option<Image>,
    /// Ends with the process; `None` when it had gone already.
    pub(super) exit: Option<Exit>,
    pub(super) inspections: u32,
    /// A digest of its mappings at the last inspection; `None` when that has left something open.
    pub(super) mappings: Option<u64>,
    /// Mapped files that were examined.
    pub(super) examined: BTreeSet<FileId>,
    pub(super) binaries: Vec<Arc<Binary>>,
    pub(super) page: PageState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageState {
    Wanted,
    Taken,
    Rejected,
    /// There were too many others; looked for again later.
    NoRoom,
}

impl Known {
    pub(super) fn new(name: PathBuf, image: Option<Image>, exit: Option<Exit>) -> Known {
        Known {
            name,
            executable: None,
            image,
            exit,
            inspections: 0,
            mappings: None,
            examined: BTreeSet::new(),
            binaries: Vec::new(),
            page: PageState::Wanted,
        }
    }

    /// Someone was told of this process.
    pub(super) fn observed(&self) -> bool {
        !self.binaries.is_empty() || self.page == PageState::Taken
    }

    /// Whether the process at `directory` that executes the file of this `name` is the same one. Of one that is not
    /// observed the name is enough.
    pub(super) fn is_still(&mut self, directory: &Path, name: &PathBuf) -> bool {
        if !self.observed() {
            return *name == self.name;
        }
        if self.exit.as_ref().is_none_or(Exit::happened) || self.image != Image::of(directory) {
            return false;
        }
        // Another program, or the file has another name now.
        let renamed = *name != self.name;
        self.name.clone_from(name);
        !renamed || process::executable(directory).ok() == self.executable
    }

    pub(super) fn wants_inspection(&self) -> bool {
        self.inspections < SETTLING_LOOKS || (self.observed() && self.page == PageState::Wanted)
    }

    /// Of most processes nothing has to be remembered but that they are none of ours.
    pub(super) fn forget_details(&mut self) {
        self.exit = None;
        self.examined = BTreeSet::new();
    }
}
