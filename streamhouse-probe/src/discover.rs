//! The processes that carry our hooks: a sweep of `/proc` at start and at intervals, and exits at once.
//!
//! A sweep asks of each process only what its executable is called. The mappings of a process are read when it is new
//! or has called exec, a few times, because libraries are mapped a moment after; of a process that carries our notes
//! also until it has made its state page; of every process now and then, for libraries and pages that come late. A file
//! is parsed once.
//!
//! What a process has open or mapped may lie on a file system that answers late or never. Only the files of new
//! processes, and those newly mapped, are touched at all; everything else is asked of `/proc` alone.

mod binary;
mod maps;
mod process;
#[cfg(test)]
mod tests;

pub use binary::{Binary, Problem};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use streamhouse_abi::limits::PROCESSES_MAX;
use tracing::{debug, warn};

use crate::files::{FileId, open_regular};
use crate::pages::{self, PageFile, Rejection, Sought};
use crate::privileges;
use crate::sites;
use maps::{Mapped, MappedKind};
use process::{Exit, Image, Stamp};

/// Sweeps in which the mappings of a new process are read: with the default interval for its first two seconds.
const SETTLING_SWEEPS: u32 = 4;
/// Sweeps from one look at the mappings of a process that is not new to the next, 25 seconds with the default interval:
/// each sweep looks at one in so many processes.
const LATE_LOOK_SWEEPS: u32 = 50;
/// The capabilities without which other users' processes are closed to the probe.
const LOOKING_IN: [&str; 2] = ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];
/// Most deleted files of one process that are told of.
const DELETED_TOLD_MAX: usize = 4;
/// Most files without sites that are remembered; then all are forgotten and parsed again.
const FILES_MAX: usize = 65_536;

/// What a sweep found out.
#[derive(Debug)]
pub enum Change {
    /// A process maps a file of ours.
    Maps {
        /// The process.
        pid: u32,
        /// The file.
        binary: Arc<Binary>,
    },
    /// A process has made its state page.
    Page {
        /// The process.
        pid: u32,
        /// The page.
        page: PageFile,
    },
    /// A process has a state page that is not believed.
    PageRejected {
        /// The process.
        pid: u32,
        /// Why.
        reason: Rejection,
    },
    /// A process of which an earlier change told has gone, or has become another program.
    Exited {
        /// The process.
        pid: u32,
    },
}

/// What is known of the processes and files of this machine.
#[derive(Debug)]
pub struct Discovery {
    proc: PathBuf,
    processes: HashMap<u32, Known>,
    /// Files without notes of ours.
    plain: HashMap<FileId, Stamp>,
    /// Files with, while anyone holds them.
    binaries: HashMap<FileId, Weak<Binary>>,
    told_unreadable: bool,
    sweeps: u32,
    /// Pages taken and not given back.
    pages: usize,
}

/// What is known of one process.
#[derive(Debug)]
struct Known {
    /// The name of its executable, which needs no look at the file.
    name: PathBuf,
    /// `None` until its first inspection.
    executable: Option<FileId>,
    /// Another one after an exec of the same file.
    image: Option<Image>,
    /// Ends with the process; `None` when it had gone already.
    exit: Option<Exit>,
    inspections: u32,
    /// A digest of its mappings at the last inspection; `None` when that has left something open.
    mappings: Option<u64>,
    /// Mapped files that were examined.
    examined: BTreeSet<FileId>,
    binaries: Vec<Arc<Binary>>,
    page: PageState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageState {
    Wanted,
    Taken,
    Rejected,
    /// There were too many others; looked for again later.
    NoRoom,
}

impl Known {
    fn new(name: PathBuf, image: Option<Image>, exit: Option<Exit>) -> Known {
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
    fn observed(&self) -> bool {
        !self.binaries.is_empty() || self.page == PageState::Taken
    }

    fn wants_inspection(&self) -> bool {
        self.inspections < SETTLING_SWEEPS || (self.observed() && self.page == PageState::Wanted)
    }

    /// Of most processes nothing has to be remembered but that they are none of ours.
    fn forget_details(&mut self) {
        self.exit = None;
        self.examined = BTreeSet::new();
    }
}

impl Default for Discovery {
    fn default() -> Discovery {
        Discovery::new(PathBuf::from("/proc"))
    }
}

impl Discovery {
    /// Discovers from another `/proc`: for tests.
    fn new(proc: PathBuf) -> Discovery {
        Discovery {
            proc,
            processes: HashMap::new(),
            plain: HashMap::new(),
            binaries: HashMap::new(),
            told_unreadable: false,
            sweeps: 0,
            pages: 0,
        }
    }

    /// Looks at every process once and says what has changed since the last sweep. Exits come first.
    pub fn sweep(&mut self) -> Vec<Change> {
        self.sweeps = self.sweeps.wrapping_add(1);
        let mut present = BTreeMap::new();
        let mut unreadable = 0;
        for pid in process::pids(&self.proc) {
            match process::name_of_executable(&self.directory(pid)) {
                Ok(name) => {
                    present.insert(pid, name);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unreadable += 1,
                // A kernel thread, or a process that is just ending.
                Err(_) => {}
            }
        }
        self.tell_unreadable(unreadable);
        let mut changes = self.forget_gone(&present);
        for (pid, name) in present {
            self.visit(pid, name, &mut changes);
        }
        self.binaries.retain(|_, binary| binary.strong_count() > 0);
        changes
    }

    /// The observed processes that have ended since the last sweep; asks of no other one.
    pub fn exits(&mut self) -> Vec<Change> {
        let ended = |known: &Known| known.observed() && known.exit.as_ref().is_some_and(Exit::happened);
        let ended: Vec<_> = self.processes.extract_if(|_, known| ended(known)).collect();
        ended.into_iter().filter_map(|(pid, known)| self.part_with(pid, &known)).collect()
    }

    /// Waits until an observed process exits, at most `interval`.
    pub fn wait(&self, interval: Duration) {
        let observed = self.processes.values().filter(|known| known.observed());
        process::wait_for_any(observed.filter_map(|known| known.exit.as_ref()), interval);
    }

    fn directory(&self, pid: u32) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    fn tell_unreadable(&mut self, unreadable: usize) {
        if unreadable == 0 || self.told_unreadable {
            return;
        }
        self.told_unreadable = true;
        let mut missing = privileges::missing();
        missing.retain(|name| LOOKING_IN.contains(name));
        if missing.is_empty() {
            debug!(processes = unreadable, "some processes let nobody look into them");
        } else {
            let missing = missing.join(", ");
            warn!(
                processes = unreadable,
                "some processes cannot be looked into: run the probe as root, or give it {missing}"
            );
        }
    }

    fn forget_gone(&mut self, present: &BTreeMap<u32, PathBuf>) -> Vec<Change> {
        let gone = self.processes.extract_if(|pid, known| {
            let Some(name) = present.get(pid) else { return true };
            if !known.observed() {
                return *name != known.name;
            }
            let directory = self.proc.join(pid.to_string());
            if known.exit.as_ref().is_none_or(Exit::happened) || known.image != Image::of(&directory) {
                return true;
            }
            // Another program, or the file has another name now.
            let renamed = *name != known.name;
            known.name.clone_from(name);
            renamed && process::executable(&directory).ok() != known.executable
        });
        let gone: Vec<_> = gone.collect();
        gone.into_iter().filter_map(|(pid, known)| self.part_with(pid, &known)).collect()
    }

    /// A process of which nothing is known from now on; the change that tells of it, when someone was told of it.
    fn part_with(&mut self, pid: u32, known: &Known) -> Option<Change> {
        self.pages -= usize::from(known.page == PageState::Taken);
        known.observed().then_some(Change::Exited { pid })
    }

    fn visit(&mut self, pid: u32, name: PathBuf, changes: &mut Vec<Change>) {
        // Taken out while it is looked at, so that the caches can be used beside it.
        let mut known = match self.processes.remove(&pid) {
            Some(known) => self.look_again(pid, known),
            None => self.meet(pid, name),
        };
        if known.wants_inspection() {
            let mut news = Vec::new();
            let told = known.observed();
            self.inspect(pid, &mut known, &mut news);
            if known.exit.as_ref().is_none_or(Exit::happened) {
                // What was read may be another process's that got the same number.
                let exited = self.part_with(pid, &known);
                changes.extend(exited.filter(|_| told));
                return;
            }
            changes.append(&mut news);
        }
        if !known.wants_inspection() && !known.observed() {
            known.forget_details();
        }
        self.processes.insert(pid, known);
    }

    fn meet(&self, pid: u32, name: PathBuf) -> Known {
        Known::new(name, Image::of(&self.directory(pid)), Exit::watch(pid))
    }

    /// When it is the process's turn and it maps other files than before, it is looked at like a new one.
    fn look_again(&self, pid: u32, mut known: Known) -> Known {
        let its_turn = pid % LATE_LOOK_SWEEPS == self.sweeps % LATE_LOOK_SWEEPS;
        if known.wants_inspection() || !its_turn {
            return known;
        }
        let Ok(mapped) = maps::read(&self.directory(pid)) else { return known };
        if known.mappings == Some(digest(&mapped)) {
            return known;
        }
        if !known.observed() {
            return self.meet(pid, known.name);
        }
        known.inspections = 0;
        if known.page == PageState::NoRoom {
            known.page = PageState::Wanted;
        }
        known
    }

    /// Reads the mappings of a process: files not seen in it before, and its page.
    fn inspect(&mut self, pid: u32, known: &mut Known, changes: &mut Vec<Change>) {
        known.inspections += 1;
        let directory = self.directory(pid);
        let mapped = maps::read(&directory).unwrap_or_default();
        let mut binaries = Vec::new();
        if known.executable.is_none()
            && let Ok(id) = process::executable(&directory)
        {
            known.executable = Some(id);
            known.examined.insert(id);
            binaries.extend(self.examine(id, &directory.join("exe"), &known.name));
        }
        let root = directory.join("root");
        for Mapped { id, kind } in &mapped {
            match kind {
                MappedKind::Code(name) if known.examined.insert(*id) => {
                    let path = root.join(name.strip_prefix("/").unwrap_or(name));
                    binaries.extend(self.examine(*id, &path, name));
                }
                // Its name is gone, but it may be a file that is already held open.
                MappedKind::DeletedCode(_) => binaries.extend(self.held(*id)),
                MappedKind::Code(_) | MappedKind::Page => {}
            }
        }
        self.seek_page(pid, known, &mapped, changes);
        let page_is_open = matches!(known.page, PageState::Wanted | PageState::NoRoom)
            && mapped.iter().any(|mapped| mapped.kind == MappedKind::Page);
        known.mappings = (!page_is_open).then(|| digest(&mapped));
        if known.page == PageState::Taken && known.inspections >= SETTLING_SWEEPS {
            binaries.extend(self.explain_silence(known, &mapped));
        }
        for binary in binaries {
            if known.binaries.iter().all(|other| other.id != binary.id) {
                known.binaries.push(binary.clone());
                changes.push(Change::Maps { pid, binary });
            }
        }
    }

    /// The notes of a file: `None` when it has none of ours. `id` is the file that the process maps, `path` what is
    /// hoped to lead there, `name` what to call it.
    fn examine(&mut self, id: FileId, path: &Path, name: &Path) -> Option<Arc<Binary>> {
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
    fn held(&self, id: FileId) -> Option<Arc<Binary>> {
        self.binaries.get(&id).and_then(Weak::upgrade)
    }

    fn hold(&mut self, binary: Binary) -> Arc<Binary> {
        let binary = Arc::new(binary);
        self.binaries.insert(binary.id, Arc::downgrade(&binary));
        binary
    }

    fn seek_page(&mut self, pid: u32, known: &mut Known, mapped: &[Mapped], changes: &mut Vec<Change>) {
        if known.page != PageState::Wanted {
            return;
        }
        let directory = self.directory(pid);
        for Mapped { id, .. } in mapped.iter().filter(|mapped| mapped.kind == MappedKind::Page) {
            match pages::open(&directory, *id, process::own_pid(&directory).unwrap_or(pid)) {
                Sought::Page(_) if self.pages >= PROCESSES_MAX as usize => {
                    known.page = PageState::NoRoom;
                    changes.push(Change::PageRejected { pid, reason: Rejection::TooMuch });
                    return;
                }
                Sought::Page(page) => {
                    known.page = PageState::Taken;
                    self.pages += 1;
                    changes.push(Change::Page { pid, page });
                    return;
                }
                Sought::Rejected(reason) => {
                    known.page = PageState::Rejected;
                    changes.push(Change::PageRejected { pid, reason });
                    return;
                }
                Sought::NotYet | Sought::Inherited => {}
            }
        }
    }

    /// A process with a state page and without notes has hooks that nobody can attach to: that is an alarm.
    fn explain_silence(&mut self, known: &Known, mapped: &[Mapped]) -> Vec<Arc<Binary>> {
        if !known.binaries.is_empty() {
            return Vec::new();
        }
        let mut refused: Vec<Binary> = mapped
            .iter()
            .filter_map(|mapped| match &mapped.kind {
                MappedKind::DeletedCode(name) => Some(Binary::refused(mapped.id, name, Problem::Deleted)),
                MappedKind::Code(_) | MappedKind::Page => None,
            })
            .take(DELETED_TOLD_MAX)
            .collect();
        if let (true, Some(executable)) = (refused.is_empty(), known.executable) {
            refused.push(Binary::refused(executable, &known.name, Problem::NoNotes));
        }
        refused.into_iter().map(|binary| self.held(binary.id).unwrap_or_else(|| self.hold(binary))).collect()
    }
}

/// Tells whether a process maps the same files as before.
fn digest(mapped: &[Mapped]) -> u64 {
    let mut hasher = DefaultHasher::new();
    mapped.hash(&mut hasher);
    hasher.finish()
}
