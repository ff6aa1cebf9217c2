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

/// The kernel detaches in its own time.
fn wait_until_nobody_looks() {
    let deadline = Instant::now() + Duration::from_secs(10);
    while raw::semaphores() != [0; Site::ALL.len()] {
        assert!(Instant::now() < deadline, "semaphores are {:?}, not 0", raw::semaphores());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The semaphores of the raw sites, none of them 0. Where the linker puts a site decides whether it is 1 or 2: the
/// kernel counts private mappings of the site's page, and a page on which one segment ends and the next begins is in
/// both.
fn semaphores_up() -> Vec<u16> {
    let semaphores = raw::semaphores();
    assert!(semaphores.iter().all(|count| *count > 0), "semaphores are {semaphores:?} while attached");
    semaphores
}

pub(crate) fn semaphores() {
    let observer = Observer::new();
    wait_until_nobody_looks();
    let link = observer.attach_raw(1);
    let once = semaphores_up();
    let second = observer.attach_raw(2);
    assert_eq!(semaphores_up(), once, "links are not counted, mappings are");
    drop((link, second));
    wait_until_nobody_looks();
}

pub(crate) fn killed_probe() {
    wait_until_nobody_looks();
    let mut probe = Process::start("probe");
    probe.expect("attached");
    semaphores_up();
    probe.kill();
    wait_until_nobody_looks();
    let observer = Observer::new();
    let _link = observer.attach_raw(1);
    semaphores_up();
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
