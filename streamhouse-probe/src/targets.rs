//! The files with sites, each attached once while a process maps it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use streamhouse_abi::limits::TARGETS_MAX;
use tracing::{info, warn};

use crate::attach::{Link, Program, SiteOffsets};
use crate::discover::Binary;
use crate::own::TargetCounts;
use crate::pages::{Pages, ProcessKey};
use crate::sites::Refusal;

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
    /// The same file as another target, which is attached for both.
    Same(u32),
}

impl<A: Attach> Targets<A> {
    /// No files yet.
    pub fn new(attach: A) -> Targets<A> {
        Targets { attach, targets: BTreeMap::new(), next: 1 }
    }

    /// A process maps a file. The first one makes it a target.
    pub fn mapped(&mut self, pid: u32, binary: Arc<Binary>) {
        for target in self.targets.values_mut().filter(|target| target.binary.id == binary.id) {
            if target.binary.sites == binary.sites {
                target.pids.insert(pid);
                return;
            }
            // The kernel would plant by the old offsets into what now runs.
            if matches!(target.state, State::Attached(_)) {
                warn!(target_file = %binary.path.display(), "{OVERWRITTEN}");
                target.state = State::Refused(OVERWRITTEN.to_owned());
            }
        }
        if self.targets.len() >= TARGETS_MAX as usize {
            warn!(path = %binary.path.display(), "not attached: {TARGETS_MAX} files are observed already");
            return;
        }
        let id = self.next;
        self.next += 1;
        let state = self.attach_to(id, &binary);
        self.targets.insert(id, Target { binary, state, pids: BTreeSet::from([pid]) });
    }

    fn attach_to(&self, id: u32, binary: &Binary) -> State<A::Link> {
        let path = binary.path.display();
        for site in &binary.sites {
            if let Err(reason) = site.place {
                warn!(target_file = %path, site = site.name, "site refused: {reason}");
            }
        }
        let sites: Vec<_> = binary.sites.iter().filter_map(|site| site.place.ok()).collect();
        let attached = match binary.problem {
            Some(problem) => Err(problem.to_string()),
            None if sites.is_empty() => Err("none of its sites can be attached".to_owned()),
            None => self.attach.attach(binary, id, &sites),
        };
        match attached {
            Ok(link) => {
                info!(target_file = %path, sites = sites.len(), "attached");
                State::Attached(link)
            }
            Err(reason) => {
                warn!(target_file = %path, "refused: {reason}");
                State::Refused(reason)
            }
        }
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
        self.targets.retain(|id, target| {
            let keep = !target.pids.is_empty() || needed.contains(id);
            if !keep {
                info!(target_file = %target.binary.path.display(), "detached: no process maps it any more");
            }
            keep
        });
    }

    /// These targets are one file: one link goes on and serves all of them. The caller then tells the collector.
    pub fn merge(&mut self, one_file: &BTreeSet<u32>) {
        let Some(kept) = self.attached().intersection(one_file).next().copied() else { return };
        for (id, target) in &mut self.targets {
            if *id != kept && one_file.contains(&target.carrier(*id)) {
                info!(target_file = %target.binary.path.display(), "the same file as target {kept}");
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
        let mut counts = TargetCounts::default();
        let mut pids: BTreeSet<u32> = BTreeSet::new();
        for target in self.targets.values() {
            pids.extend(&target.pids);
            let attached = match target.state {
                State::Same(_) => continue,
                State::Attached(_) => true,
                State::Refused(_) => false,
            };
            *(if attached { &mut counts.attached } else { &mut counts.refused }) += 1;
            for site in &target.binary.sites {
                match site.place {
                    Ok(_) if attached => counts.sites_attached += 1,
                    Ok(_) => *counts.sites_refused.entry(Refusal::NotAttached).or_default() += 1,
                    Err(reason) => *counts.sites_refused.entry(reason).or_default() += 1,
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
            State::Attached(_) | State::Refused(_) => own,
        }
    }

    fn view(&self, id: u32, pages: &Pages) -> TargetView {
        let refused = match &self.state {
            State::Refused(reason) => Some(reason.clone()),
            State::Attached(_) | State::Same(_) => None,
        };
        let same_as = match self.state {
            State::Same(kept) => Some(kept),
            State::Attached(_) | State::Refused(_) => None,
        };
        let sites = self.binary.sites.iter().map(|site| {
            let reason = match site.place {
                Ok(_) => refused.as_ref().map(|_| Refusal::NotAttached.to_string()),
                Err(reason) => Some(reason.to_string()),
            };
            SiteView {
                name: site.name.clone(),
                offset: site.place.ok().map(|place| place.offset),
                semaphore_offset: site.place.ok().map(|place| place.semaphore_offset),
                state: AttachState::from_reason(reason.as_deref()),
                reason,
            }
        });
        TargetView {
            id,
            path: self.binary.path.to_string_lossy().into_owned(),
            device: self.binary.id.device,
            inode: self.binary.id.inode,
            state: AttachState::from_reason(refused.as_deref()),
            reason: refused.clone(),
            same_as,
            sites: sites.collect(),
            processes: self.pids.iter().map(|pid| ProcessView::of(*pid, pages.process(*pid))).collect(),
        }
    }
}

/// What `/targets` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetsView {
    /// One entry a file.
    pub targets: Vec<TargetView>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetView {
    /// The probe's number of it.
    pub id: u32,
    /// A name it had when it was found.
    pub path: String,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Whether its sites are attached.
    pub state: AttachState,
    /// Why not.
    pub reason: Option<String>,
    /// The target whose link serves this one, when both are the same file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<u32>,
    /// Its sites.
    pub sites: Vec<SiteView>,
    /// The processes that map it.
    pub processes: Vec<ProcessView>,
}

/// One site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SiteView {
    /// The name in its note.
    pub name: String,
    /// File offset of the nop.
    pub offset: Option<u64>,
    /// File offset of the semaphore.
    pub semaphore_offset: Option<u64>,
    /// Whether it is attached.
    pub state: AttachState,
    /// Why not.
    pub reason: Option<String>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessView {
    /// Its number.
    pub pid: u32,
    /// What it made first; `None` until it has a state page.
    pub role: Option<String>,
    /// Agent or client id; `None` until it has a state page.
    pub instance_id: Option<String>,
}

impl ProcessView {
    fn of(pid: u32, process: Option<ProcessKey>) -> ProcessView {
        let (role, instance_id) = match process {
            Some(key) => (Some(key.role.name().to_owned()), Some(key.instance_id.to_string())),
            None => (None, None),
        };
        ProcessView { pid, role, instance_id }
    }
}

/// Whether a file or a site is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachState {
    /// It is.
    Attached,
    /// It is not; a reason stands beside.
    Refused,
}

impl AttachState {
    fn from_reason(reason: Option<&str>) -> AttachState {
        if reason.is_some() { AttachState::Refused } else { AttachState::Attached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Problem;
    use crate::files::FileId;
    use crate::sites::FoundSite;
    use std::sync::Mutex;
    use streamhouse_abi::Site;

    /// Attaches in name only; a link notes its end.
    #[derive(Default)]
    struct Paper {
        attached: Arc<Mutex<BTreeSet<u32>>>,
        refuses: bool,
    }

    struct PaperLink(u32, Arc<Mutex<BTreeSet<u32>>>);

    impl Attach for Paper {
        type Link = PaperLink;

        fn attach(&self, _: &Binary, target: u32, _: &[SiteOffsets]) -> Result<PaperLink, String> {
            if self.refuses {
                return Err("no capability".to_owned());
            }
            assert!(self.attached.lock().unwrap().insert(target));
            Ok(PaperLink(target, self.attached.clone()))
        }
    }

    impl Drop for PaperLink {
        fn drop(&mut self) {
            assert!(self.1.lock().unwrap().remove(&self.0));
        }
    }

    fn binary(inode: u64) -> Arc<Binary> {
        let place = SiteOffsets { site: Site::Send, offset: 1, semaphore_offset: 2 };
        let sites = vec![
            FoundSite { name: "send".to_owned(), place: Ok(place) },
            FoundSite { name: "x".to_owned(), place: Err(Refusal::UnknownSite) },
        ];
        Arc::new(Binary::with_sites(FileId { device: 1, inode }, format!("/{inode}").into(), sites))
    }

    fn attached(targets: &Targets<Paper>) -> Vec<u32> {
        targets.attach.attached.lock().unwrap().iter().copied().collect()
    }

    #[test]
    fn a_file_is_attached_once_and_detached_with_its_last_process() {
        let mut targets = Targets::new(Paper::default());
        targets.mapped(10, binary(1));
        targets.mapped(11, binary(1));
        targets.mapped(11, binary(2));
        assert_eq!(attached(&targets), [1, 2]);
        targets.exited(10);
        assert_eq!(attached(&targets), [1, 2]);
        targets.exited(11);
        assert!(attached(&targets).is_empty());
        targets.mapped(12, binary(1));
        assert_eq!(attached(&targets), [3], "a number is never used again");
    }

    #[test]
    fn a_file_overwritten_in_place_is_attached_by_its_new_sites_alone() {
        let mut targets = Targets::new(Paper::default());
        targets.mapped(10, binary(1));
        let mut other = Arc::into_inner(binary(1)).expect("ours alone");
        other.sites.truncate(1);
        let other = Arc::new(other);
        targets.mapped(11, other.clone());
        targets.mapped(12, other);
        assert_eq!(attached(&targets), [2]);
        let view = targets.view(&Pages::default());
        assert_eq!(view.targets[0].reason.as_deref(), Some(OVERWRITTEN));
        assert_eq!(view.targets[1].processes.len(), 2);
    }

    #[test]
    fn a_link_goes_on_though_the_first_target_of_its_file_has_gone() {
        let mut targets = Targets::new(Paper::default());
        targets.mapped(10, binary(1));
        let elsewhere = FileId { device: 2, inode: 1 };
        let mut twin = Arc::into_inner(binary(2)).expect("ours alone");
        assert!(!targets.has_twin(10));
        twin.id = elsewhere;
        targets.mapped(11, Arc::new(twin));
        assert!(targets.has_twin(10) && !targets.has_twin(12));
        targets.exited(10);
        targets.merge(&BTreeSet::from([1, 2]));
        assert_eq!(attached(&targets), [2]);
        // Both would count once 1, 2 and 3 are known to be one.
        targets.mapped(12, binary(3));
        targets.merge(&BTreeSet::from([1, 2, 3]));
        assert_eq!(attached(&targets), [2]);
    }

    #[test]
    fn two_names_of_one_file_share_a_link_while_either_is_needed() {
        let mut targets = Targets::new(Paper::default());
        targets.mapped(10, binary(1));
        targets.mapped(11, binary(2));
        targets.mapped(12, binary(3));
        targets.merge(&BTreeSet::from([2, 3]));
        assert_eq!(attached(&targets), [1, 2]);
        targets.merge(&BTreeSet::from([1, 2]));
        assert_eq!(attached(&targets), [1], "what 2 served is served by 1 now");
        assert_eq!(targets.counts().attached, 1);
        let view = targets.view(&Pages::default());
        assert_eq!(
            view.targets.iter().map(|target| target.same_as).collect::<Vec<_>>(),
            [None, Some(1), Some(1)]
        );
        targets.exited(10);
        targets.exited(11);
        assert_eq!(attached(&targets), [1], "a process of 3 still needs it");
        targets.exited(12);
        assert!(attached(&targets).is_empty());
        assert!(targets.targets.is_empty());
    }

    #[test]
    fn what_is_refused_is_counted_and_says_why() {
        let mut targets = Targets::new(Paper { refuses: true, ..Paper::default() });
        targets.mapped(10, binary(1));
        let mut deleted = Arc::into_inner(binary(2)).expect("ours alone");
        deleted.problem = Some(Problem::Deleted);
        targets.mapped(11, Arc::new(deleted));
        let counts = targets.counts();
        assert_eq!((counts.attached, counts.refused, counts.sites_attached, counts.processes), (0, 2, 0, 2));
        assert_eq!(
            counts.sites_refused,
            BTreeMap::from([(Refusal::UnknownSite, 2), (Refusal::NotAttached, 2)])
        );
        let view = targets.view(&Pages::default());
        assert_eq!(view.targets[0].reason.as_deref(), Some("no capability"));
        assert!(view.targets[1].reason.as_deref().is_some_and(|reason| reason.contains("deleted")));
    }

    #[test]
    fn the_view_is_the_documented_json() {
        let mut targets = Targets::new(Paper::default());
        targets.mapped(10, binary(1));
        let json = serde_json::to_value(targets.view(&Pages::default())).expect("plain data");
        let expected = serde_json::json!({"targets": [{
            "id": 1, "path": "/1", "device": 1, "inode": 1, "state": "attached", "reason": null,
            "sites": [
                {"name": "send", "offset": 1, "semaphore_offset": 2, "state": "attached", "reason": null},
                {"name": "x", "offset": null, "semaphore_offset": null, "state": "refused",
                 "reason": Refusal::UnknownSite.to_string()},
            ],
            "processes": [{"pid": 10, "role": null, "instance_id": null}],
        }]});
        assert_eq!(json, expected);
    }
}
