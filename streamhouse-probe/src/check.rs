//! `streamhouse-probe check`: what this kernel and these capabilities allow, in words.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::attach::{self, probe_features};
use crate::privileges::NEEDED;

/// The inode of the pid namespace that the machine starts with (`PROC_PID_INIT_INO` in the kernel).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Where a kernel shows its types when it has them.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

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
    pub ok: bool,
    /// What was found; when it is not as it has to be, what to do.
    pub detail: String,
}

impl Finding {
    fn new(name: impl Into<String>, state: Result<String, String>) -> Finding {
        let ok = state.is_ok();
        let (Ok(detail) | Err(detail)) = state;
        Finding { name: name.into(), ok, detail }
    }
}

/// Looks at everything the probe needs, by trying where that can be tried. Leaves nothing behind. `object` names the
/// kernel program when it is not inside this binary.
pub fn check(object: Option<&Path>) -> Report {
    let mut findings = vec![
        Finding::new("kernel", Ok(rustix::system::uname().release().to_string_lossy().into_owned())),
        Finding::new("kernel types (BTF)", Ok(kernel_types())),
        Finding::new("pid namespace", pid_namespace()),
    ];
    findings.extend(capabilities());
    match attach::object(object) {
        Ok(object) => {
            let features = probe_features(&object).into_iter();
            findings.extend(features.map(|feature| Finding::new(feature.name, feature.state)));
        }
        Err(error) => findings.push(Finding::new("kernel program", Err(error.to_string()))),
    }
    Report { possible: findings.iter().all(|finding| finding.ok), findings }
}

fn kernel_types() -> String {
    if Path::new(KERNEL_TYPES).exists() {
        format!("present in {KERNEL_TYPES}")
    } else {
        "absent; the program brings its own and does not need them".to_owned()
    }
}

/// The kernel counts by the process ids of the initial namespace; `/proc` has to show the same ones.
fn pid_namespace() -> Result<String, String> {
    match std::fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) if namespace == Path::new(INITIAL_PID_NAMESPACE) => Ok("the machine's own".to_owned()),
        Ok(namespace) => Err(format!(
            "{} is a container's own: start the probe in the machine's pid namespace (--pid=host, hostPID: true)",
            namespace.display()
        )),
        Err(error) => Err(format!("/proc/self/ns/pid cannot be read ({error}): mount /proc")),
    }
}

fn capabilities() -> impl Iterator<Item = Finding> {
    let own = rustix::thread::capabilities(None).map(|sets| sets.effective);
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for Finding { name, ok, detail } in &self.findings {
            let mark = if *ok { "ok  " } else { "FAIL" };
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

    #[test]
    fn a_missing_program_is_said_and_fails() {
        let report = check(Some(Path::new("/nonexistent/program.o")));
        assert!(!report.possible);
        let program = report.findings.last().expect("the program comes last");
        assert!(!program.ok && program.detail.contains("build-ebpf"), "{program:?}");
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
                {"name": "x", "ok": true, "detail": "fine"},
                {"name": "y", "ok": false, "detail": "no"},
            ]})
        );
    }
}
