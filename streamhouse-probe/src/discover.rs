//! The processes that carry our hooks: those that the kernel tells of, a sweep of `/proc` at start and at intervals, and
//! exits at once.
//!
//! The kernel tells when a process maps a file to execute it: an exec, or a library whenever it is loaded. A sweep finds
//! the same later, and what the kernel does not tell: state pages, and everything where it is not heard. A sweep asks of
//! each process only what its executable is called. The mappings of a process are read when it is new or has called
//! exec, a few times, because libraries are mapped a moment after; of a process that carries our notes also until it has
//! made its state page; of every process now and then. A file is parsed once.
//!
//! What a process has open or mapped may lie on a file system that answers late or never. Only the files of new
//! processes, and those newly mapped, are touched at all; everything else is asked of `/proc` alone.

mod binary;
mod examined;
mod known;
mod maps;
mod process;
#[cfg(test)]
mod tests;

pub use binary::{Binary, Problem};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamhouse_abi::limits::PROCESSES_MAX;
use tracing::{debug, info, warn};

use crate::attach::Mappings;
use crate::pages::{self, PageFile, Rejection, Sought};
use crate::privileges;
use examined::Examined;
use known::{Known, PageState, SETTLING_LOOKS};
use maps::{Mapped, MappedKind};
use process::{Exit, Image};

/// Sweeps from one look at the mappings of a process that is not new to the next, 25 seconds with the default interval:
/// each sweep looks at one in so many processes.
pub(crate) const LATE_LOOK_SWEEPS: u32 = 50;
/// How long new mappings are gathered before anyone looks: a program that starts makes a handful of them.
const GATHER_MIN: Duration = Duration::from_millis(20);
/// The same, as a multiple of how long the last look took: whoever maps files without end keeps a processor a fifth busy.
const GATHER_LOOKS: u32 = 4;
/// The capabilities without which other users' processes are closed to the probe.
const LOOKING_IN: [&str; 2] = ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];
/// Most deleted files of one process that are told of.
const DELETED_TOLD_MAX: usize = 4;

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
    files: Examined,
    /// What the kernel tells, where it does.
    mappings: Option<Mappings>,
    /// Of some mappings the kernel could not tell: everyone may have made them.
    missed: bool,
    gather: Duration,
    told_unreadable: bool,
    sweeps: u32,
    /// Pages taken and not given back.
    pages: usize,
}

impl Default for Discovery {
    fn default() -> Discovery {
        let mut discovery = Discovery::new(PathBuf::from("/proc"));
        match Mappings::listen() {
            Ok(mappings) => discovery.mappings = Some(mappings),
            Err(error) => info!(
                "the kernel does not tell of new mappings ({error}): libraries that a running process loads are found \
                 {LATE_LOOK_SWEEPS} sweeps later"
            ),
        }
        discovery
    }
}

impl Discovery {
    /// Discovers from another `/proc`, and hears nothing: for tests.
    fn new(proc: PathBuf) -> Discovery {
        Discovery {
            proc,
            processes: HashMap::new(),
            files: Examined::default(),
            mappings: None,
            missed: false,
            gather: GATHER_MIN,
            told_unreadable: false,
            sweeps: 0,
            pages: 0,
        }
    }

    /// Looks at every process once and says what has changed since the last sweep. Exits come first.
    pub fn sweep(&mut self) -> Vec<Change> {
        self.sweeps = self.sweeps.wrapping_add(1);
        let everyone = std::mem::take(&mut self.missed);
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
        let known: Vec<u32> = self.processes.keys().copied().collect();
        let gone = known.into_iter().filter_map(|pid| self.forget_gone(pid, present.get(&pid)));
        let mut changes: Vec<Change> = gone.collect();
        for (pid, name) in present {
            let its_turn = pid % LATE_LOOK_SWEEPS == self.sweeps % LATE_LOOK_SWEEPS;
            self.visit(pid, name, its_turn || everyone, &mut changes);
        }
        self.files.forget_released();
        changes
    }

    /// The observed processes that have ended since the last look; asks of no other one.
    pub fn exits(&mut self) -> Vec<Change> {
        let ended = |known: &Known| known.observed() && known.exit.as_ref().is_some_and(Exit::happened);
        let ended: Vec<_> = self.processes.extract_if(|_, known| ended(known)).collect();
        ended.into_iter().filter_map(|(pid, known)| self.part_with(pid, &known)).collect()
    }

    /// Looks at the processes of whose new mappings the kernel has told since the last time.
    pub fn heard(&mut self) -> Vec<Change> {
        let Some(mappings) = &mut self.mappings else { return Vec::new() };
        let begin = Instant::now();
        let mut pids = BTreeSet::new();
        let complete = mappings.take(|mapping| {
            // A file that was overwritten since waits for a sweep, which asks again.
            if maps::has_file(mapping.file, mapping.name) && !self.files.had_none(mapping.file) {
                pids.insert(mapping.pid);
            }
        });
        self.missed |= !complete;
        let mut changes = Vec::new();
        for pid in pids {
            // Who cannot be looked into, or has gone, is left to the sweeps.
            if let Ok(name) = process::name_of_executable(&self.directory(pid)) {
                changes.extend(self.forget_gone(pid, Some(&name)));
                self.visit(pid, name, true, &mut changes);
            }
        }
        self.gather = GATHER_MIN.max(begin.elapsed() * GATHER_LOOKS);
        changes
    }

    /// Waits until an observed process exits or the kernel tells of mappings, at most `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let begin = Instant::now();
        let mappings = self.mappings.iter().flat_map(Mappings::descriptors);
        process::wait_for_any(self.ends().chain(mappings), timeout);
        process::wait_for_any(self.ends(), self.gather.min(timeout.saturating_sub(begin.elapsed())));
    }

    fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let observed = self.processes.values().filter(|known| known.observed());
        observed.filter_map(|known| known.exit.as_ref()).map(Exit::descriptor)
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

    /// Forgets a process when it has gone, or is another one than before.
    fn forget_gone(&mut self, pid: u32, name: Option<&PathBuf>) -> Option<Change> {
        let directory = self.directory(pid);
        let known = self.processes.get_mut(&pid)?;
        if name.is_some_and(|name| known.is_still(&directory, name)) {
            return None;
        }
        let known = self.processes.remove(&pid)?;
        self.part_with(pid, &known)
    }

    /// A process of which nothing is known from now on; the change that tells of it, when someone was told of it.
    fn part_with(&mut self, pid: u32, known: &Known) -> Option<Change> {
        self.pages -= usize::from(known.page == PageState::Taken);
        known.observed().then_some(Change::Exited { pid })
    }

    /// Looks at a process that is there; when `due`, also at one that is not new.
    fn visit(&mut self, pid: u32, name: PathBuf, due: bool, changes: &mut Vec<Change>) {
        // Taken out while it is looked at, so that the caches can be used beside it.
        let mut known = match self.processes.remove(&pid) {
            Some(known) if due => self.look_again(pid, known),
            Some(known) => known,
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

    /// A process that maps other files than before is to be looked at like a new one.
    fn look_again(&self, pid: u32, mut known: Known) -> Known {
        if known.wants_inspection() {
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
            binaries.extend(self.files.examine(id, &directory.join("exe"), &known.name));
        }
        let root = directory.join("root");
        for Mapped { id, kind } in &mapped {
            match kind {
                MappedKind::Code(name) if known.examined.insert(*id) => {
                    let path = root.join(name.strip_prefix("/").unwrap_or(name));
                    binaries.extend(self.files.examine(*id, &path, name));
                }
                // Its name is gone, but it may be a file that is already held open.
                MappedKind::DeletedCode(_) => binaries.extend(self.files.held(*id)),
                MappedKind::Code(_) | MappedKind::Page => {}
            }
        }
        self.seek_page(pid, known, &mapped, changes);
        let page_is_open = matches!(known.page, PageState::Wanted | PageState::NoRoom)
            && mapped.iter().any(|mapped| mapped.kind == MappedKind::Page);
        known.mappings = (!page_is_open).then(|| digest(&mapped));
        if known.page == PageState::Taken && known.inspections >= SETTLING_LOOKS {
            binaries.extend(self.explain_silence(known, &mapped));
        }
        for binary in binaries {
            if known.binaries.iter().all(|other| other.id != binary.id) {
                known.binaries.push(binary.clone());
                changes.push(Change::Maps { pid, binary });
            }
        }
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
        refused
            .into_iter()
            .map(|binary| self.files.held(binary.id).unwrap_or_else(|| self.files.hold(binary)))
            .collect()
    }
}

/// Tells whether a process maps the same files as before.
fn digest(mapped: &[Mapped]) -> u64 {
    let mut hasher = DefaultHasher::new();
    mapped.hash(&mut hasher);
    hasher.finish()
}
