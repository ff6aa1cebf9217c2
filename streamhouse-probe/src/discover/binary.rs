//! A file that matters, and what is wrong with it.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::process::Stamp;
use crate::files::FileId;
use crate::sites::{self, FoundSite};

/// A file that carries notes of ours, or that a process with a state page executes from.
#[derive(Debug)]
pub struct Binary {
    /// Which file it is.
    pub id: FileId,
    /// A name it had, in the root of a process that maps it. For display: others may have another.
    pub path: PathBuf,
    /// The file, held open: as long as this lives no other file can take its identity.
    pub file: Option<File>,
    /// Tells whether it was overwritten since; `None` when it could not be opened.
    pub(super) stamp: Option<Stamp>,
    /// Its notes.
    pub sites: Vec<FoundSite>,
    /// Why nothing of it can be attached.
    pub problem: Option<Problem>,
}

/// Why nothing of a file can be attached, before anyone tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A library whose name is gone cannot be opened.
    #[error("the library was deleted or replaced after the process mapped it; restart the process")]
    Deleted,
    /// The process has hooks, and no file of it has notes.
    #[error(
        "the process has a state page, yet its executable has no notes: its build or packaging removed \
         .note.stapsdt (llvm-strip needs --keep-section=.note.stapsdt)"
    )]
    NoNotes,
}

impl Binary {
    /// Whether its sites are still where they were found.
    pub fn is_as_found(&self) -> bool {
        let found = |file| sites::find_in_file(file).is_ok_and(|sites| sites == self.sites);
        self.file.as_ref().is_none_or(found)
    }

    /// A file that is not open, for the tests of what follows.
    #[cfg(test)]
    pub(crate) fn with_sites(id: FileId, path: PathBuf, sites: Vec<FoundSite>) -> Binary {
        Binary { id, path, file: None, stamp: None, sites, problem: None }
    }

    pub(super) fn refused(id: FileId, name: &Path, problem: Problem) -> Binary {
        let path = name.to_owned();
        Binary { id, path, file: None, stamp: None, sites: Vec::new(), problem: Some(problem) }
    }
}
