//! The files that were examined: each is parsed once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use tracing::debug;

use super::Binary;
use super::process::{self, Stamp};
use crate::files::{FileId, open_regular};
use crate::sites;

/// Most files without sites that are remembered; then all are forgotten and parsed again.
const FILES_MAX: usize = 65_536;

/// What is known of files.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// Files without notes of ours.
    plain: HashMap<FileId, Stamp>,
    /// Files with, while anyone holds them.
    binaries: HashMap<FileId, Weak<Binary>>,
}

impl Examined {
    /// The notes of a file: `None` when it has none of ours. `id` is the file that the process maps, `path` what is
    /// hoped to lead there, `name` what to call it.
    pub(super) fn examine(&mut self, id: FileId, path: &Path, name: &Path) -> Option<Arc<Binary>> {
        let held = self.held(id);
        let Ok(stat) = rustix::fs::stat(path) else { return held };
        if let Some(binary) = held
            && (FileId::of(&stat) != binary.id || binary.stamp == Some(Stamp::of(&stat)))
        {
            return Some(binary);
        }
        if self.plain.get(&FileId::of(&stat)) == Some(&Stamp::of(&stat)) {
            return None;
        }
        let (file, stat) = open_regular(path).ok()?;
        let opened = FileId::of(&stat);
        if !process::same_file(id, opened) {
            debug!(path = %name.display(), "the name leads to another file than the mapped one");
            return None;
        }
        let held = self.held(opened);
        let stamp = Stamp::of(&stat);
        if let Some(binary) = &held
            && binary.stamp == Some(stamp)
        {
            return held;
        }
        let sites = sites::find_in_file(&file).unwrap_or_else(|error| {
            debug!(path = %name.display(), %error, "a mapped file cannot be examined");
            Vec::new()
        });
        if let Some(binary) = &held {
            // Touched, or overwritten in place: then whoever attached to it has to know, also when no site is left.
            if binary.sites == sites {
                return held;
            }
        } else if sites.is_empty() {
            if self.plain.len() >= FILES_MAX {
                self.plain.clear();
            }
            self.plain.insert(opened, stamp);
            return None;
        }
        let path = name.to_owned();
        Some(self.hold(Binary {
            id: opened,
            path,
            file: Some(file),
            stamp: Some(stamp),
            sites,
            problem: None,
        }))
    }

    /// The file of this identity, when someone holds it.
    pub(super) fn held(&self, id: FileId) -> Option<Arc<Binary>> {
        self.binaries.get(&id).and_then(Weak::upgrade)
    }

    pub(super) fn hold(&mut self, binary: Binary) -> Arc<Binary> {
        let binary = Arc::new(binary);
        self.binaries.insert(binary.id, Arc::downgrade(&binary));
        binary
    }

    /// Whether the file had no notes when it was examined. It is not asked again.
    pub(super) fn had_none(&self, id: FileId) -> bool {
        self.plain.contains_key(&id)
    }

    /// Forgets the files that nobody holds any more.
    pub(super) fn forget_released(&mut self) {
        self.binaries.retain(|_, binary| binary.strong_count() > 0);
    }

    #[cfg(test)]
    pub(super) fn binaries(&self) -> usize {
        self.binaries.len()
    }
}
