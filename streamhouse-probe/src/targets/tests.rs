//! What is attached, to what, and what is said of the rest.

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
    assert_eq!(counts.sites_refused, BTreeMap::from([(Refusal::UnknownSite, 2), (Refusal::NotAttached, 2)]));
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

/// A file of which nothing can be attached.
fn bad(inode: u64) -> Arc<Binary> {
    let mut binary = Arc::into_inner(binary(inode)).expect("ours alone");
    binary.sites.remove(0);
    Arc::new(binary)
}

#[test]
fn a_file_past_the_limit_is_an_alarm_and_attached_once_there_is_room() {
    let mut targets = Targets::new(Paper::default());
    let most = OBSERVED_MAX as u32;
    for pid in 1..=most + 2 {
        targets.mapped(pid, binary(pid.into()));
    }
    let counts = targets.counts();
    assert_eq!((counts.attached, counts.refused, counts.forgotten), (u64::from(most), 2, 0));
    assert_eq!(counts.sites_refused[&Refusal::NoRoom], 2);
    let view = targets.view(&Pages::default());
    let last = view.targets.last().expect("it is known");
    assert_eq!(last.reason, Some(Refusal::NoRoom.to_string()));
    assert_eq!(last.sites[0].reason, last.reason);
    targets.exited(7);
    let counts = targets.counts();
    assert_eq!((counts.attached, counts.refused), (u64::from(most), 1));
    assert!(attached(&targets).contains(&(most + 1)), "it has waited longest");
    targets.exited(most + 2);
    assert_eq!(targets.counts().refused, 0);
}

#[test]
fn files_that_are_refused_take_no_room_of_others() {
    let mut targets = Targets::new(Paper::default());
    let (most, files) = (UNOBSERVED_MAX as u64, UNOBSERVED_MAX as u64 + 5);
    for inode in 1..=files {
        targets.mapped(1, bad(inode));
    }
    let counts = targets.counts();
    assert_eq!((counts.attached, counts.refused, counts.forgotten), (0, most, 5));
    for inode in 0..OBSERVED_MAX as u64 + 3 {
        targets.mapped(2, binary(files + 1 + inode));
    }
    let counts = targets.counts();
    assert_eq!((counts.attached, counts.refused, counts.forgotten), (OBSERVED_MAX as u64, most, 8));
    assert_eq!(counts.sites_refused[&Refusal::NoRoom], 3, "those that wait keep their places");
}

#[test]
fn where_only_files_wait_another_one_is_forgotten() {
    let mut targets = Targets::new(Paper::default());
    let most = OBSERVED_MAX + UNOBSERVED_MAX;
    for inode in 0..=most as u64 {
        targets.mapped(1, binary(inode));
    }
    let counts = targets.counts();
    assert_eq!(
        (counts.attached, counts.refused, counts.forgotten),
        (OBSERVED_MAX as u64, UNOBSERVED_MAX as u64, 1)
    );
}
