//! Sweeps of a made-up `/proc` whose processes are real children, so that exits are real.

use super::*;
use crate::sites::tests::{file_with_sites, plain_file};
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};

struct World {
    root: tempfile::TempDir,
    discovery: Discovery,
}

struct Process {
    child: Child,
    directory: PathBuf,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().expect("a temporary folder");
        let proc = root.path().join("proc");
        std::fs::create_dir(&proc).expect("made");
        World { discovery: Discovery::new(proc), root }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// A process that executes a file and maps others.
    fn process(&self, executable: &Path, maps: &str) -> Process {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let directory = self.discovery.directory(child.id());
        std::fs::create_dir_all(directory.join("fd")).expect("made");
        symlink(executable, directory.join("exe")).expect("linked");
        symlink("/", directory.join("root")).expect("linked");
        std::fs::write(directory.join("maps"), maps).expect("written");
        std::fs::write(directory.join("status"), "Name:\tx\nNSpid:\t9\t7\n").expect("written");
        Process { child, directory }
    }

    fn sweep(&mut self) -> Vec<String> {
        self.discovery.sweep().iter().map(describe).collect()
    }
}

impl Process {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn end(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ran");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Maps { pid, binary } => {
            let name = binary.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let problem = binary.problem.map(|problem| format!(" {problem:?}")).unwrap_or_default();
            format!("{pid} maps {name}{problem}")
        }
        Change::Page { pid, page } => format!("{pid} page {}", page.instance_id),
        Change::PageRejected { pid, reason } => format!("{pid} page {reason:?}"),
        Change::Exited { pid } => format!("{pid} exited"),
    }
}

/// A line of `/proc/PID/maps` for a file.
fn mapping(path: &Path, suffix: &str) -> String {
    let stat = rustix::fs::stat(path).expect("it exists");
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    format!("1000-2000 r-xp 00000000 {major:x}:{minor:02x} {}    {}{suffix}\n", stat.st_ino, path.display())
}

#[test]
fn a_process_with_notes_is_told_of_once_and_so_is_its_end() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let plain = world.file("plain", &plain_file());
    let mut first = world.process(&agent, &mapping(&agent, ""));
    let other = world.process(&plain, "");
    assert_eq!(world.sweep(), [format!("{} maps agent", first.pid())]);
    for _ in 0..2 * SETTLING_LOOKS {
        assert_eq!(world.sweep(), [""; 0]);
    }
    let second = world.process(&agent, "");
    assert_eq!(world.sweep(), [format!("{} maps agent", second.pid())]);
    first.end();
    assert_eq!(world.sweep(), [format!("{} exited", first.pid())]);
    assert!(world.discovery.processes[&other.pid()].exit.is_none(), "nothing is held of other processes");
}

#[test]
fn an_end_is_told_of_once_and_needs_no_sweep() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let mut process = world.process(&agent, "");
    world.sweep();
    assert!(world.discovery.exits().is_empty());
    process.end();
    let exits: Vec<String> = world.discovery.exits().iter().map(describe).collect();
    assert_eq!(exits, [format!("{} exited", process.pid())]);
    std::fs::remove_dir_all(&process.directory).expect("ours");
    assert_eq!(world.sweep(), [""; 0]);
}

#[test]
fn one_file_is_one_binary_for_all_processes_and_let_go_with_the_last() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let mut processes = [world.process(&agent, ""), world.process(&agent, "")];
    let changes = world.discovery.sweep();
    let [Change::Maps { binary: one, .. }, Change::Maps { binary: two, .. }] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert!(Arc::ptr_eq(one, two));
    assert!(one.sites.iter().all(|site| site.place.is_ok()) && one.file.is_some());
    drop(changes);
    processes.iter_mut().for_each(Process::end);
    world.discovery.sweep();
    assert!(world.discovery.files.binaries() == 0);
}

#[test]
fn a_library_mapped_after_the_start_is_found() {
    let mut world = World::new();
    let plain = world.file("plain", &plain_file());
    let library = world.file("lib.so", &file_with_sites());
    let process = world.process(&plain, "");
    assert_eq!(world.sweep(), [""; 0]);
    std::fs::write(process.directory.join("maps"), mapping(&library, "")).expect("written");
    assert_eq!(world.sweep(), [format!("{} maps lib.so", process.pid())]);
}

#[test]
fn a_name_that_leads_to_another_file_is_not_followed() {
    let mut world = World::new();
    let plain = world.file("plain", &plain_file());
    let library = world.file("lib.so", &file_with_sites());
    let line = mapping(&library, "");
    let moved = world.root.path().join("moved");
    std::fs::rename(&library, moved).expect("renamed");
    world.file("lib.so", &file_with_sites());
    world.process(&plain, &line);
    assert_eq!(world.sweep(), [""; 0]);
}

#[test]
fn exec_makes_another_process_of_the_same_number() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let plain = world.file("plain", &plain_file());
    let process = world.process(&plain, "");
    assert_eq!(world.sweep(), [""; 0]);
    let exec = |executable: &Path| {
        std::fs::remove_file(process.directory.join("exe")).expect("removed");
        symlink(executable, process.directory.join("exe")).expect("linked");
    };
    exec(&agent);
    assert_eq!(world.sweep(), [format!("{} maps agent", process.pid())]);
    exec(&plain);
    assert_eq!(world.sweep(), [format!("{} exited", process.pid())]);
}

#[test]
fn exec_of_the_same_file_is_another_process_too() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let process = world.process(&agent, "");
    let runs = |stack: u64| {
        let stat = format!("7 (a) b) S {} 4096 5000 {stack} 0\n", "1 ".repeat(22));
        std::fs::write(process.directory.join("stat"), stat).expect("written");
    };
    runs(1);
    assert_eq!(world.sweep(), [format!("{} maps agent", process.pid())]);
    assert_eq!(world.sweep(), [""; 0]);
    runs(2);
    let again = [format!("{} exited", process.pid()), format!("{} maps agent", process.pid())];
    assert_eq!(world.sweep(), again);
}

#[test]
fn a_file_overwritten_while_it_is_held_is_parsed_again() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let first = world.process(&agent, "");
    let changes = world.discovery.sweep();
    let [Change::Maps { binary: before, .. }] = &changes[..] else { panic!("{changes:?}") };
    let touched = |seconds| {
        let file = File::options().write(true).open(&agent).expect("it exists");
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).expect("ours");
    };
    touched(1);
    let second = world.process(&agent, "");
    let changes = world.discovery.sweep();
    let [Change::Maps { binary: same, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert!(Arc::ptr_eq(before, same), "its sites are where they were");
    world.file("agent", &plain_file());
    touched(2);
    let third = world.process(&agent, "");
    let changes = world.discovery.sweep();
    let [Change::Maps { pid, binary: after }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((*pid, after.id, &after.sites[..]), (third.pid(), before.id, &[][..]));
    drop((first, second));
}

#[test]
fn a_file_that_changes_is_parsed_again() {
    let mut world = World::new();
    let path = world.file("service", &plain_file());
    let first = world.process(&path, "");
    assert_eq!(world.sweep(), [""; 0]);
    world.file("service", &file_with_sites());
    drop(first);
    let second = world.process(&path, "");
    assert_eq!(world.sweep(), [format!("{} maps service", second.pid())]);
}

/// Gives a process a page that lies in our own open files.
fn give_page(process: &Process, page: &File, extra: &str) {
    use std::os::fd::AsRawFd;
    let stat = rustix::fs::fstat(page).expect("open");
    let minor = rustix::fs::minor(stat.st_dev);
    let line =
        format!("3000-4000 rw-s 00000000 00:{minor:02x} {} /memfd:streamhouse (deleted)\n", stat.st_ino);
    std::fs::write(process.directory.join("maps"), line + extra).expect("written");
    let link = format!("/proc/{}/fd/{}", std::process::id(), page.as_raw_fd());
    // As the kernel does it: the link is called by the file's name and leads to it all the same.
    let named = process.directory.join("memfd:streamhouse (deleted)");
    symlink(link, &named).expect("linked");
    symlink(named, process.directory.join("fd/3")).expect("linked");
}

#[test]
fn a_page_is_taken_whenever_it_appears() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let process = world.process(&agent, "");
    for _ in 0..2 * SETTLING_LOOKS {
        world.sweep();
    }
    let page = crate::pages::tests::sealed_page();
    give_page(&process, &page, "");
    assert_eq!(world.sweep(), [format!("{} page a", process.pid())]);
    assert_eq!(world.sweep(), [""; 0]);
}

/// Sweeps until every process has had its turn to be looked at again.
fn late_look(world: &mut World) -> Vec<String> {
    (0..LATE_LOOK_SWEEPS).flat_map(|_| world.sweep()).collect()
}

#[test]
fn a_library_mapped_late_is_found() {
    let mut world = World::new();
    let plain = world.file("plain", &plain_file());
    let agent = world.file("agent", &file_with_sites());
    let library = world.file("lib.so", &[&file_with_sites()[..], b" "].concat());
    let processes = [world.process(&plain, ""), world.process(&agent, "")];
    late_look(&mut world);
    assert_eq!(late_look(&mut world), [""; 0], "nothing has changed");
    for process in &processes {
        std::fs::write(process.directory.join("maps"), mapping(&library, "")).expect("written");
    }
    let mut found = late_look(&mut world);
    found.sort();
    let mut expected = processes.each_ref().map(|process| format!("{} maps lib.so", process.pid()));
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(late_look(&mut world), [""; 0], "told once");
}

#[test]
fn a_page_made_late_by_a_process_without_notes_is_found() {
    let mut world = World::new();
    let stripped = world.file("stripped", &plain_file());
    let process = world.process(&stripped, "");
    late_look(&mut world);
    let page = crate::pages::tests::sealed_page();
    give_page(&process, &page, "");
    let mut found = late_look(&mut world);
    found.extend(late_look(&mut world));
    let pid = process.pid();
    assert_eq!(found, [format!("{pid} page a"), format!("{pid} maps stripped NoNotes")]);
}

#[test]
fn a_page_past_the_limit_is_told_of_and_taken_later() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let process = world.process(&agent, "");
    let page = crate::pages::tests::sealed_page();
    give_page(&process, &page, "");
    world.discovery.pages = PROCESSES_MAX as usize;
    let pid = process.pid();
    // Its turn to be looked at again is a whole round away, whatever its number.
    world.discovery.sweeps = pid;
    assert_eq!(world.sweep(), [format!("{pid} page TooMuch"), format!("{pid} maps agent")]);
    for _ in 0..SETTLING_LOOKS {
        assert_eq!(world.sweep(), [""; 0], "not asked again at once");
    }
    assert_eq!(late_look(&mut world), [format!("{pid} page TooMuch")], "still too many");
    world.discovery.pages -= 1;
    assert_eq!(late_look(&mut world), [format!("{pid} page a")]);
    assert_eq!(world.discovery.pages, PROCESSES_MAX as usize);
    drop(process);
    assert_eq!(world.sweep(), [format!("{pid} exited")]);
    assert_eq!(world.discovery.pages, PROCESSES_MAX as usize - 1);
}

#[test]
fn a_known_process_is_followed_though_its_files_cannot_be_reached() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let mut process = world.process(&agent, &mapping(&agent, ""));
    assert_eq!(world.sweep(), [format!("{} maps agent", process.pid())]);
    std::fs::remove_file(&agent).expect("it exists");
    assert_eq!(late_look(&mut world), [""; 0]);
    process.end();
    assert_eq!(world.sweep(), [format!("{} exited", process.pid())]);
}

#[test]
fn hooks_without_notes_are_an_alarm() {
    let page = crate::pages::tests::sealed_page();
    for deleted_library in [false, true] {
        let mut world = World::new();
        let stripped = world.file("stripped", &plain_file());
        let library = world.file("lib.so", &plain_file());
        let process = world.process(&stripped, "");
        let extra = if deleted_library { mapping(&library, " (deleted)") } else { String::new() };
        give_page(&process, &page, &extra);
        let pid = process.pid();
        assert_eq!(world.sweep(), [format!("{pid} page a")]);
        let later: Vec<_> = (0..SETTLING_LOOKS).flat_map(|_| world.sweep()).collect();
        let expected = if deleted_library { "lib.so Deleted" } else { "stripped NoNotes" };
        assert_eq!(later, [format!("{pid} maps {expected}")]);
    }
}

#[test]
fn waiting_ends_with_an_observed_process() {
    let mut world = World::new();
    let agent = world.file("agent", &file_with_sites());
    let mut process = world.process(&agent, "");
    world.sweep();
    process.end();
    // Far longer than any test may take: only the exit can end it.
    world.discovery.wait(Duration::from_secs(3600));
    assert_eq!(world.sweep(), [format!("{} exited", process.pid())]);
}

#[test]
fn the_real_proc_can_be_swept() {
    let mut discovery = Discovery::default();
    discovery.sweep();
    assert!(discovery.processes.contains_key(&std::process::id()));
}
