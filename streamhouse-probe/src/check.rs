//! `streamhouse-probe check`: what this kernel and these capabilities allow, in words.
//!
//! What is found on a machine is one thing, [`Facts`]; what follows from it another, and the same for every machine.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;
use serde::Serialize;

use crate::attach::{self, Feature, Mappings, probe_features};
use crate::discover::LATE_LOOK_SWEEPS;
use crate::privileges::NEEDED;

/// The inode of the pid namespace that the machine starts with (`PROC_PID_INIT_INO` in the kernel).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Where a kernel shows its types when it has them.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";
/// Where a kernel says how far it is locked down, the mode in force in brackets; see kernel_lockdown(7).
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Everything needed is there: sites can be attached.
    pub possible: bool,
    /// One by one.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub name: String,
    /// Whether it is as it has to be.
    pub state: State,
    /// What was found; when it is not as it has to be, what to do.
    pub detail: String,
}

/// Whether something is as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is.
    Ok,
    /// Not quite: everything is observed, some of it later.
    Limited,
    /// Sites cannot be attached without it, or not all of them.
    Missing,
}

impl Finding {
    fn new(name: impl Into<String>, state: Result<String, String>) -> Finding {
        let found = if state.is_ok() { State::Ok } else { State::Missing };
        let (Ok(detail) | Err(detail)) = state;
        Finding { name: name.into(), state: found, detail }
    }
}

/// What a machine is like.
#[derive(Debug)]
struct Facts {
    release: String,
    has_types: bool,
    /// What `/proc/self/ns/pid` leads to.
    pid_namespace: io::Result<PathBuf>,
    /// The file that says so, when there is one.
    lockdown: Option<String>,
    capabilities: io::Result<CapabilitySet>,
    mappings: io::Result<()>,
    /// What the kernel program needs; why there is none.
    program: Result<Vec<Feature>, String>,
}

impl Facts {
    fn gather(object: Option<&Path>) -> Facts {
        Facts {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            has_types: Path::new(KERNEL_TYPES).exists(),
            pid_namespace: pid_namespace(),
            lockdown: std::fs::read_to_string(LOCKDOWN).ok(),
            capabilities: rustix::thread::capabilities(None)
                .map(|sets| sets.effective)
                .map_err(io::Error::from),
            mappings: Mappings::listen().map(drop),
            program: attach::object(object)
                .map(|object| probe_features(&object))
                .map_err(|error| error.to_string()),
        }
    }
}

/// Looks at everything the probe needs, by trying where that can be tried. Leaves nothing behind. `object` names the
/// kernel program when it is not inside this binary.
pub fn check(object: Option<&Path>) -> Report {
    judge(&Facts::gather(object))
}

/// Whether the kernel counts by the process numbers that this process sees.
///
/// # Errors
///
/// Why not, and what to do.
pub fn own_namespace() -> Result<(), String> {
    judge_namespace(&pid_namespace()).map(drop)
}

fn pid_namespace() -> io::Result<PathBuf> {
    std::fs::read_link("/proc/self/ns/pid")
}

fn judge(facts: &Facts) -> Report {
    let mut findings = vec![
        Finding::new("kernel", Ok(facts.release.clone())),
        Finding::new("kernel types (BTF)", Ok(types(facts.has_types))),
        Finding::new("lockdown", Ok(lockdown(facts.lockdown.as_deref()))),
        Finding::new("pid namespace", judge_namespace(&facts.pid_namespace)),
    ];
    findings.extend(capabilities(&facts.capabilities));
    match &facts.program {
        Ok(features) => {
            findings.extend(features.iter().map(|feature| Finding::new(feature.name, feature.state.clone())));
        }
        Err(error) => findings.push(Finding::new("kernel program", Err(error.clone()))),
    }
    findings.push(mappings(&facts.mappings));
    Report { possible: findings.iter().all(|finding| finding.state != State::Missing), findings }
}

fn types(present: bool) -> String {
    if present {
        format!("present in {KERNEL_TYPES}")
    } else {
        "absent; the program brings its own and does not need them".to_owned()
    }
}

/// Neither mode takes anything that the program does: it reads the memory of processes, not the kernel's.
fn lockdown(modes: Option<&str>) -> String {
    let in_force = modes.and_then(|modes| modes.split_once('[')?.1.split_once(']')).map(|(mode, _)| mode);
    match in_force {
        None | Some("none") => "none".to_owned(),
        Some(mode) => format!("{mode}, under which the kernel program may still do all it does"),
    }
}

/// The kernel counts by the process ids of the initial namespace; `/proc` has to show the same ones.
fn judge_namespace(namespace: &io::Result<PathBuf>) -> Result<String, String> {
    match namespace {
        Ok(namespace) if namespace == Path::new(INITIAL_PID_NAMESPACE) => Ok("the machine's own".to_owned()),
        Ok(namespace) => Err(format!(
            "{} is a container's own: start the probe in the machine's pid namespace (--pid=host, hostPID: true)",
            namespace.display()
        )),
        Err(error) => Err(format!("/proc/self/ns/pid cannot be read ({error}): mount /proc")),
    }
}

fn capabilities(own: &io::Result<CapabilitySet>) -> impl Iterator<Item = Finding> {
    NEEDED.into_iter().map(move |(name, purpose, one)| {
        let state = match own {
            Ok(own) if own.contains(one) => Ok(format!("present, to {purpose}")),
            Ok(_) => Err(format!(
                "missing; it is needed to {purpose}: run the probe as root, or give it AmbientCapabilities={name} \
                 (systemd), --cap-add {} (containers)",
                name.trim_start_matches("CAP_")
            )),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        Finding::new(name, state)
    })
}

fn mappings(told: &io::Result<()>) -> Finding {
    let (state, detail) = match told {
        Ok(()) => (State::Ok, "new processes and libraries are told of at once".to_owned()),
        Err(error) => {
            let detail = format!(
                "not told of ({error}): new processes are found at the next sweep, libraries that a running one loads \
                 {LATE_LOOK_SWEEPS} sweeps later; allow perf_event_open(2)"
            );
            (State::Limited, detail)
        }
    };
    Finding { name: "mappings".to_owned(), state, detail }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for Finding { name, state, detail } in &self.findings {
            let mark = match state {
                State::Ok => "ok  ",
                State::Limited => "warn",
                State::Missing => "FAIL",
            };
            writeln!(f, "{mark}  {name:width$}  {detail}")?;
        }
        let verdict = if self.possible {
            "sites can be attached"
        } else {
            "sites cannot all be attached; state pages of processes that can be looked into are served all the same"
        };
        writeln!(f, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which everything is as it has to be.
    fn facts() -> Facts {
        let feature = |name| Feature { name, state: Ok("fine".to_owned()) };
        Facts {
            release: "6.6.0".to_owned(),
            has_types: true,
            pid_namespace: Ok(INITIAL_PID_NAMESPACE.into()),
            lockdown: Some("[none] integrity confidentiality\n".to_owned()),
            capabilities: Ok(CapabilitySet::all()),
            mappings: Ok(()),
            program: Ok(vec![feature("kernel program"), feature("uprobes")]),
        }
    }

    /// The finding of a name, and whether sites can be attached all the same.
    fn finding(facts: &Facts, name: &str) -> (State, String, bool) {
        let report = judge(facts);
        let found = report.findings.iter().find(|finding| finding.name == name).expect("it is looked at");
        (found.state, found.detail.clone(), report.possible)
    }

    #[test]
    fn what_is_right_is_possible() {
        let report = judge(&facts());
        assert!(
            report.possible && report.findings.iter().all(|finding| finding.state == State::Ok),
            "{report}"
        );
    }

    #[test]
    fn each_missing_capability_is_named_with_its_remedy() {
        for (name, purpose, one) in NEEDED {
            let facts = Facts { capabilities: Ok(CapabilitySet::all() - one), ..facts() };
            let (state, detail, possible) = finding(&facts, name);
            assert_eq!((state, possible), (State::Missing, false), "{name}");
            assert!(detail.contains(purpose) && detail.contains("--cap-add"), "{detail}");
        }
    }

    #[test]
    fn another_pid_namespace_is_named_with_its_remedy() {
        let facts = Facts { pid_namespace: Ok("pid:[1]".into()), ..facts() };
        let (state, detail, possible) = finding(&facts, "pid namespace");
        assert_eq!((state, possible), (State::Missing, false));
        assert!(detail.contains("pid:[1]") && detail.contains("hostPID"), "{detail}");
    }

    #[test]
    fn a_kernel_without_uprobe_multi_is_named_with_its_remedy() {
        let unsupported = attach::AttachError::Unsupported.to_string();
        let features = vec![Feature { name: "uprobes", state: Err(unsupported) }];
        let (state, detail, possible) = finding(&Facts { program: Ok(features), ..facts() }, "uprobes");
        assert_eq!((state, possible), (State::Missing, false));
        assert!(detail.contains("6.6") && detail.contains("CONFIG_UPROBES"), "{detail}");
    }

    #[test]
    fn lockdown_is_told_and_no_matter() {
        let lockdown = Some("none [integrity] confidentiality\n".to_owned());
        let (state, detail, possible) = finding(&Facts { lockdown, ..facts() }, "lockdown");
        assert_eq!((state, possible), (State::Ok, true));
        assert!(detail.starts_with("integrity,"), "{detail}");
        assert_eq!(finding(&Facts { lockdown: None, ..facts() }, "lockdown").1, "none");
    }

    #[test]
    fn where_mappings_are_not_told_of_sites_are_attached_later() {
        let facts = Facts { mappings: Err(io::ErrorKind::PermissionDenied.into()), ..facts() };
        let (state, detail, possible) = finding(&facts, "mappings");
        assert_eq!((state, possible), (State::Limited, true));
        assert!(detail.contains("perf_event_open"), "{detail}");
    }

    #[test]
    fn a_missing_program_is_said_and_fails() {
        let report = check(Some(Path::new("/nonexistent/program.o")));
        assert!(!report.possible);
        let mut findings = report.findings.iter();
        let program = findings.find(|finding| finding.name == "kernel program").expect("it is looked at");
        assert!(program.state == State::Missing && program.detail.contains("build-ebpf"), "{program:?}");
        let text = report.to_string();
        for (name, ..) in NEEDED {
            assert!(text.contains(name), "{text}");
        }
        assert!(text.contains("FAIL  kernel program"), "{text}");
    }

    #[test]
    fn the_report_reads_as_json() {
        let report = Report {
            possible: false,
            findings: vec![Finding::new("x", Ok("fine".into())), Finding::new("y", Err("no".into()))],
        };
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(
            json,
            serde_json::json!({"possible": false, "findings": [
                {"name": "x", "state": "ok", "detail": "fine"},
                {"name": "y", "state": "missing", "detail": "no"},
            ]})
        );
    }
}
