//! Attach and leave no trace; processes come and go.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use streamhouse_abi::map::{PROCESSES, SCOPES, VALUES};
use streamhouse_abi::{Site, Status};
use streamhouse_probe::collect::Sums;

use crate::child::Process;
use crate::observer::{Observer, hook_sites, of, own_file};
use crate::raw;

/// The semaphores of the raw sites, once they are all `value`; the kernel detaches in its own time.
fn wait_for_semaphores(value: u16) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while raw::semaphores() != [value; Site::ALL.len()] {
        assert!(Instant::now() < deadline, "semaphores are {:?}, not {value}", raw::semaphores());
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn semaphores() {
    let observer = Observer::new();
    wait_for_semaphores(0);
    let link = observer.attach_raw(1);
    assert_eq!(raw::semaphores(), [1; Site::ALL.len()]);
    let second = observer.attach_raw(2);
    assert_eq!(raw::semaphores(), [1; Site::ALL.len()]);
    drop((link, second));
    wait_for_semaphores(0);
}

pub(crate) fn killed_probe() {
    wait_for_semaphores(0);
    let mut probe = Process::start("probe");
    probe.expect("attached");
    assert_eq!(raw::semaphores(), [1; Site::ALL.len()]);
    probe.kill();
    wait_for_semaphores(0);
    let observer = Observer::new();
    let _link = observer.attach_raw(1);
    assert_eq!(raw::semaphores(), [1; Site::ALL.len()]);
}

fn written(sums: &Sums) -> u64 {
    of(sums, Site::Write, "fold").counts.operations_with(Status::Ok)
}

fn entries(sums: &Sums) -> Vec<u64> {
    let held = |map: &&str| sums.maps.iter().find(|found| found.name == *map).expect("a map").entries;
    [VALUES, SCOPES, PROCESSES].iter().map(held).collect()
}

pub(crate) fn forked_child() {
    let mut observer = Observer::new();
    let _link = observer.attach_hooks(1);
    let mut parent = Process::start("parent");
    // By the second time the kernel has rewritten the site that the child inherits.
    parent.fire(3);
    let sums = observer.sums();
    assert_eq!(of(&sums, Site::Write, "forked").counts.operations_with(Status::Ok), 3 * 101);
}

pub(crate) fn exited_process() {
    let mut observer = Observer::new();
    // One process is there before anyone attaches, the next one starts while attached.
    let mut first = Process::start("writer");
    first.fire(100);
    let _link = observer.attach_hooks(1);
    first.fire(100);
    let mut second = Process::start("writer");
    second.fire(30);
    let sums = observer.sums();
    assert_eq!((written(&sums), entries(&sums)), (130, vec![2, 2, 2]));
    first.fire(7);
    first.kill();
    // Invariant 9: nothing is lost of what was not collected before the exit.
    assert_eq!(written(&observer.sums()), 137);
    let sums = observer.sums();
    assert_eq!((written(&sums), entries(&sums)), (137, vec![1, 1, 1]));
    second.fire(3);
    second.kill();
    assert_eq!(written(&observer.sums()), 140);
    let mut third = Process::start("writer");
    third.fire(2);
    let sums = observer.sums();
    assert_eq!((written(&sums), entries(&sums)), (142, vec![1, 1, 1]));
}

pub(crate) fn nameless_process() {
    let mut observer = Observer::new();
    let _link = observer.attach_raw(1);
    let mut nameless = Process::start("nameless");
    nameless.fire(9);
    let sums = observer.sums();
    assert_eq!((sums.held_back, sums.unlabelled_operations), (1, 0));
    nameless.kill();
    let sums = observer.sums();
    assert_eq!((sums.held_back, sums.unlabelled_operations), (0, 9));
    assert!(sums.sites.is_empty());
    assert_eq!(entries(&observer.sums()), [0, 0, 0]);
}

pub(crate) fn replaced_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, other) = (folder.path().join("binary"), folder.path().join("other"));
    fs::copy("/proc/self/exe", &path).expect("the executable can be copied");
    fs::write(&other, "not an executable").expect("a file can be written");
    let mut writer = Process::start_from(&path, "writer");
    let opened = File::open(&path).expect("the copy can be opened");
    fs::rename(&other, &path).expect("a file can be replaced");
    let mut observer = Observer::new();
    let _link = observer.program.attach(&opened, 1, &hook_sites()).expect("it attaches to what was opened");
    writer.fire(11);
    assert_eq!(written(&observer.sums()), 11);
    // This executable has the same sites and is another file.
    let mut own = Process::start("writer");
    own.fire(5);
    assert_eq!(written(&observer.sums()), 11);
    let _own = observer.program.attach(&own_file(), 2, &hook_sites()).expect("it attaches");
    own.fire(5);
    assert_eq!(written(&observer.sums()), 16);
}
