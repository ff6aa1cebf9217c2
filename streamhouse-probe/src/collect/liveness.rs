//! Which processes behind the kernel's values have exited.
//!
//! A process id alone does not say: it may belong to another process by now. `/proc` tells when a process started, and
//! a process that hooks are in draws a nonce, which is in every key.

use std::collections::{HashMap, HashSet};
use std::{fs, io};

/// Processes that were seen in the kernel's maps.
#[derive(Debug, Default)]
pub(super) struct Processes {
    known: HashMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    /// When the process started, in clock ticks since boot.
    started: u64,
    /// The nonces it was seen with.
    nonces: HashSet<u64>,
}

/// What has become of a process id since the last look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The process lives, or may live.
    Lives,
    /// It has exited, and nobody has its id.
    Exited,
    /// It has exited, and another process has its id; these nonces were the first one's.
    Replaced(HashSet<u64>),
}

impl Fate {
    /// Whether the process that drew `nonce` has exited.
    pub(super) fn is_exit_of(&self, nonce: u64) -> bool {
        match self {
            Fate::Lives => false,
            Fate::Exited => true,
            Fate::Replaced(nonces) => nonces.contains(&nonce),
        }
    }
}

impl Processes {
    /// What has become of `tgid`. Whatever is read of an exited process after this is final.
    pub(super) fn fate(&mut self, tgid: u32) -> Fate {
        self.fate_of(tgid, look(tgid))
    }

    fn fate_of(&mut self, tgid: u32, sight: Sight) -> Fate {
        let started = match sight {
            Sight::Started(started) => started,
            Sight::Gone => {
                self.known.remove(&tgid);
                return Fate::Exited;
            }
            Sight::Hidden => return Fate::Lives,
        };
        match self.known.get_mut(&tgid) {
            Some(known) if known.started == started => Fate::Lives,
            Some(known) => {
                known.started = started;
                Fate::Replaced(std::mem::take(&mut known.nonces))
            }
            None => {
                self.known.insert(tgid, Known { started, nonces: HashSet::new() });
                Fate::Lives
            }
        }
    }

    /// A value of a live process was seen.
    pub(super) fn saw(&mut self, tgid: u32, nonce: u64) {
        if let Some(known) = self.known.get_mut(&tgid) {
            known.nonces.insert(nonce);
        }
    }
}

/// What `/proc` shows of a process id.
enum Sight {
    /// A process that started then.
    Started(u64),
    /// No process, or one that only waits to be reaped.
    Gone,
    /// Nothing that could be read: no reason to take a process for dead.
    Hidden,
}

fn look(tgid: u32) -> Sight {
    match fs::read_to_string(format!("/proc/{tgid}/stat")) {
        Ok(stat) => started_in(&stat).map_or(Sight::Gone, Sight::Started),
        // ESRCH: it went away between open and read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Sight::Gone,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Sight::Gone,
        Err(_) => Sight::Hidden,
    }
}

/// The start time in a `/proc/PID/stat` line (proc_pid_stat(5)).
fn started_in(stat: &str) -> Option<u64> {
    // The name is in parentheses and may hold anything; the fields after it are numbered from 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let (state, threads, started) = (field(3)?, field(20)?, field(22)?);
    // A first thread that has ended is a zombie while others of its process run on.
    let ended = matches!(state, "Z" | "X") && threads.parse::<u64>().ok()? <= 1;
    if ended { None } else { started.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_and_a_reused_id_are_told_apart_from_life() {
        let mut processes = Processes::default();
        assert_eq!(processes.fate_of(7, Sight::Started(100)), Fate::Lives);
        processes.saw(7, 0xa);
        assert_eq!(processes.fate_of(7, Sight::Started(100)), Fate::Lives);
        let replaced = processes.fate_of(7, Sight::Started(200));
        assert!(replaced.is_exit_of(0xa) && !replaced.is_exit_of(0xb));
        processes.saw(7, 0xb);
        assert_eq!(processes.fate_of(7, Sight::Started(200)), Fate::Lives);
        assert_eq!(processes.fate_of(7, Sight::Hidden), Fate::Lives);
        assert!(processes.fate_of(7, Sight::Gone).is_exit_of(0xb));
        assert!(processes.known.is_empty());
    }

    #[test]
    fn this_process_lives_and_the_idle_one_is_never_listed() {
        assert!(matches!(look(std::process::id()), Sight::Started(_)));
        assert!(matches!(look(0), Sight::Gone));
    }

    #[test]
    fn a_stat_line_is_read_behind_its_name() {
        let line = |state: &str, threads: u32| {
            format!("9 (a) Z 1) x) {state} 1 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 1 1")
        };
        assert_eq!(started_in(&line("S", 1)), Some(4242));
        assert_eq!(started_in(&line("Z", 3)), Some(4242));
        assert_eq!(started_in(&line("Z", 1)), None);
        assert_eq!(started_in("9 (a) S 1"), None);
        assert_eq!(started_in(""), None);
    }
}
