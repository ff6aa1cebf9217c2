//! The targets as `/targets` shows them.

use serde::{Deserialize, Serialize};

use super::{State, Target};
use crate::pages::{Pages, ProcessKey};

/// What `/targets` answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TargetsView {
    /// One entry a file.
    pub targets: Vec<TargetView>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
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

impl<L> Target<L> {
    pub(super) fn view(&self, id: u32, pages: &Pages) -> TargetView {
        let refusal = self.state.refusal().map(|refusal| refusal.to_string());
        let refused = match &self.state {
            State::Refused(reason) => Some(reason.clone()),
            State::Attached(_) | State::Same(_) | State::Waiting => refusal.clone(),
        };
        let same_as = match self.state {
            State::Same(kept) => Some(kept),
            State::Attached(_) | State::Refused(_) | State::Waiting => None,
        };
        let sites = self.binary.sites.iter().map(|site| {
            let reason = site.place.err().map(|reason| reason.to_string()).or_else(|| refusal.clone());
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
            reason: refused,
            same_as,
            sites: sites.collect(),
            processes: self.pids.iter().map(|pid| ProcessView::of(*pid, pages.process(*pid))).collect(),
        }
    }
}
