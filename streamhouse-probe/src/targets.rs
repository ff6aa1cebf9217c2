//! The files with sites, each attached once while a process maps it.

#[cfg(test)]
mod tests;
mod view;

pub use view::{AttachState, ProcessView, SiteView, TargetView, TargetsView};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use streamhouse_abi::limits::TARGETS_MAX;
use tracing::{info, warn};

use crate::attach::{Link, Program, SiteOffsets};
use crate::discover::Binary;
use crate::lines::LineBudget;
use crate::own::TargetCounts;
use crate::pages::Pages;
use crate::sites::Refusal;

/// Most files observed at one time: those attached, and those that another one is attached for.
const OBSERVED_MAX: usize = TARGETS_MAX as usize;
/// Most files known that are not observed. Anyone can make files that are refused, as many as they like.
const UNOBSERVED_MAX: usize = 1024;
/// Why a target that was attached is no more.
const OVERWRITTEN: &str = "the file was overwritten in place while processes ran it; restart them";

/// What attaches, so that tests can do without a kernel.
pub trait Attach: Send {
    /// What is attached while it lives.
    type Link: Send;

    /// Attaches the right sites of a file.
    ///
    /// # Errors
    ///
    /// One sentence that says what is missing and what to do.
    fn attach(&self, binary: &Binary, target: u32, sites: &[SiteOffsets]) -> Result<Self::Link, String>;
}

/// The kernel program, or why there is none.
pub type KernelProgram = Result<Program, String>;

impl Attach for KernelProgram {
    type Link = Link;

    fn attach(&self, binary: &Binary, target: u32, sites: &[SiteOffsets]) -> Result<Link, String> {
        let program = self.as_ref().map_err(String::clone)?;
        let file = binary.file.as_ref().ok_or("the file could not be opened")?;
        program.attach(file, target, sites).map_err(|error| error.to_string())
    }
}

/// The files that running processes map.
#[derive(Debug)]
pub struct Targets<A: Attach> {
    attach: A,
    targets: BTreeMap<u32, Target<A::Link>>,
    /// Number of the next file; never used again, so that the kernel's values cannot mix up two files.
    next: u32,
    /// Files not attached that had to leave the list of them.
    forgotten: u64,
    lines: Lines,
}

/// A flood of files that are refused must not hide what is attached.
#[derive(Debug, Default)]
struct Lines {
    attached: LineBudget,
    refused: LineBudget,
}

#[derive(Debug)]
struct Target<L> {
    binary: Arc<Binary>,
    state: State<L>,
    pids: BTreeSet<u32>,
}

#[derive(Debug)]
enum State<L> {
    Attached(L),
    Refused(String),
    /// Attached as soon as there is room.
    Waiting,
    /// The same file as another target, which is attached for both.
    Same(u32),
}

impl<A: Attach> Targets<A> {
    /// No files yet.
    pub fn new(attach: A) -> Targets<A> {
        Targets { attach, targets: BTreeMap::new(), next: 1, forgotten: 0, lines: Lines::default() }
    }

    /// A process maps a file. The first one makes it a target: attached, refused, or waiting for room.
    pub fn mapped(&mut self, pid: u32, binary: Arc<Binary>) {
        if self.joined(pid, &binary) {
            return;
        }
        let id = self.next;
        self.next += 1;
        let state = self.state_of(id, &binary);
        self.tell(&binary, &state);
        if state.is_observed() || self.make_place() {
            self.targets.insert(id, Target { binary, state, pids: BTreeSet::from([pid]) });
        }
    }

    /// Adds a process to the target that its file is already, if it is one.
    fn joined(&mut self, pid: u32, binary: &Binary) -> bool {
        for target in self.targets.values_mut().filter(|target| target.binary.id == binary.id) {
            if target.binary.sites == binary.sites {
                target.pids.insert(pid);
                return true;
            }
            // The kernel would plant by the old offsets into what now runs.
            if matches!(target.state, State::Attached(_) | State::Waiting) {
                self.lines.refused.say(|| warn!(target_file = ?binary.path, "{OVERWRITTEN}"));
                target.state = State::Refused(OVERWRITTEN.to_owned());
            }
        }
        false
    }

    fn state_of(&self, id: u32, binary: &Binary) -> State<A::Link> {
        let sites: Vec<_> = binary.sites.iter().filter_map(|site| site.place.ok()).collect();
        let attached = match binary.problem {
            Some(problem) => Err(problem.to_string()),
            None if sites.is_empty() => Err("none of its sites can be attached".to_owned()),
            None if !self.has_room() => return State::Waiting,
            None => self.attach.attach(binary, id, &sites),
        };
        attached.map_or_else(State::Refused, State::Attached)
    }

    fn has_room(&self) -> bool {
        self.targets.values().filter(|target| target.state.is_observed()).count() < OBSERVED_MAX
    }

    /// Makes a place for one more file that is not observed: the one refused longest ago leaves its own. Files that wait
    /// never do, or whoever makes bad files would keep good ones from being attached. False when there is no place.
    fn make_place(&mut self) -> bool {
        let unobserved = self.targets.values().filter(|target| !target.state.is_observed()).count();
        if unobserved < UNOBSERVED_MAX {
            return true;
        }
        self.forgotten += 1;
        let is_refused = |target: &Target<A::Link>| matches!(target.state, State::Refused(_));
        let oldest = self.targets.iter().find(|(_, target)| is_refused(target)).map(|(id, _)| *id);
        oldest.is_some_and(|id| self.targets.remove(&id).is_some())
    }

    /// Attaches files that wait, those that wait longest first, while there is room.
    fn attach_waiting(&mut self) {
        while self.has_room() {
            let waits = |target: &Target<A::Link>| matches!(target.state, State::Waiting);
            let Some((id, target)) = self.targets.iter().find(|(_, target)| waits(target)) else { return };
            let (id, binary) = (*id, target.binary.clone());
            let state = match binary.is_as_found() {
                true => self.state_of(id, &binary),
                false => State::Refused(OVERWRITTEN.to_owned()),
            };
            self.tell(&binary, &state);
            if let Some(target) = self.targets.get_mut(&id) {
                target.state = state;
            }
        }
    }

    /// One line a file, whatever it holds.
    fn tell(&mut self, binary: &Binary, state: &State<A::Link>) {
        let (file, sites) = (&binary.path, binary.sites.len());
        let refused = binary.sites.iter().filter_map(|site| Some((&site.name, site.place.err()?)));
        let count = refused.clone().count();
        let first = refused
            .map(|(name, why)| format!("; of {sites} sites {count} cannot be, first {name:?}: {why}"))
            .next();
        let rest = first.unwrap_or_default();
        let lines = if state.is_observed() { &mut self.lines.attached } else { &mut self.lines.refused };
        lines.say(|| match state {
            State::Attached(_) if count == 0 => info!(target_file = ?file, sites, "attached"),
            State::Attached(_) => warn!(target_file = ?file, "attached{rest}"),
            State::Refused(reason) => warn!(target_file = ?file, "refused: {reason}{rest}"),
            State::Waiting => warn!(target_file = ?file, "{}{rest}", Refusal::NoRoom),
            State::Same(_) => {}
        });
    }

    /// Whether a file of this process may be another target's file too, as the kernel sees it: two overlay mounts of one
    /// file show one inode on two devices.
    pub fn has_twin(&self, pid: u32) -> bool {
        let twins = |one: &Target<A::Link>, other: &Target<A::Link>| {
            one.binary.id.inode == other.binary.id.inode && one.binary.id != other.binary.id
        };
        let mut own = self.targets.values().filter(|target| target.pids.contains(&pid));
        own.any(|target| self.targets.values().any(|other| twins(target, other)))
    }

    /// A process has gone. The last one of a file takes the link with it, at once: a file that nobody runs may be
    /// overwritten in place, and the kernel would plant breakpoints by the old offsets into what is started next.
    pub fn exited(&mut self, pid: u32) {
        for target in self.targets.values_mut() {
            target.pids.remove(&pid);
        }
        let needed: BTreeSet<u32> = self
            .targets
            .iter()
            .filter(|(_, target)| !target.pids.is_empty())
            .map(|(id, target)| target.carrier(*id))
            .collect();
        let lines = &mut self.lines.attached;
        self.targets.retain(|id, target| {
            let keep = !target.pids.is_empty() || needed.contains(id);
            if !keep && matches!(target.state, State::Attached(_)) {
                lines.say(
                    || info!(target_file = ?target.binary.path, "detached: no process maps it any more"),
                );
            }
            keep
        });
        self.attach_waiting();
    }

    /// These targets are one file: one link goes on and serves all of them. The caller then tells the collector.
    pub fn merge(&mut self, one_file: &BTreeSet<u32>) {
        let Some(kept) = self.attached().intersection(one_file).next().copied() else { return };
        for (id, target) in &mut self.targets {
            if *id != kept && one_file.contains(&target.carrier(*id)) {
                let file = &target.binary.path;
                self.lines.attached.say(|| info!(target_file = ?file, "the same file as target {kept}"));
                target.state = State::Same(kept);
            }
        }
    }

    /// The targets that have a link.
    pub fn attached(&self) -> BTreeSet<u32> {
        let attached = |target: &Target<A::Link>| matches!(target.state, State::Attached(_));
        self.targets.iter().filter(|(_, target)| attached(target)).map(|(id, _)| *id).collect()
    }

    /// The numbers for the probe's own metrics.
    pub fn counts(&self) -> TargetCounts {
        let mut counts = TargetCounts { forgotten: self.forgotten, ..TargetCounts::default() };
        let mut pids: BTreeSet<u32> = BTreeSet::new();
        for target in self.targets.values() {
            pids.extend(&target.pids);
            if matches!(target.state, State::Same(_)) {
                continue;
            }
            let refusal = target.state.refusal();
            *(if refusal.is_none() { &mut counts.attached } else { &mut counts.refused }) += 1;
            for site in &target.binary.sites {
                match site.place.err().or(refusal) {
                    None => counts.sites_attached += 1,
                    Some(reason) => *counts.sites_refused.entry(reason).or_default() += 1,
                }
            }
        }
        counts.processes = pids.len() as u64;
        counts
    }

    /// The targets for `/targets`.
    pub fn view(&self, pages: &Pages) -> TargetsView {
        TargetsView { targets: self.targets.iter().map(|(id, target)| target.view(*id, pages)).collect() }
    }
}

impl<L> Target<L> {
    /// The target whose link serves this one.
    fn carrier(&self, own: u32) -> u32 {
        match self.state {
            State::Same(kept) => kept,
            State::Attached(_) | State::Refused(_) | State::Waiting => own,
        }
    }
}

impl<L> State<L> {
    /// Whether what the file's processes do is counted.
    fn is_observed(&self) -> bool {
        matches!(self, State::Attached(_) | State::Same(_))
    }

    /// Why sites are not attached in which nothing is wrong.
    fn refusal(&self) -> Option<Refusal> {
        match self {
            State::Attached(_) | State::Same(_) => None,
            State::Refused(_) => Some(Refusal::NotAttached),
            State::Waiting => Some(Refusal::NoRoom),
        }
    }
}
