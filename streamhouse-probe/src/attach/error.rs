//! What can go wrong, and what to do about it.

use std::io;
use std::path::PathBuf;

use rustix::thread::{CapabilitySet, capabilities};

/// Why the kernel program could not be found.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Neither inside this binary nor named.
    #[error(
        "this probe was built without its kernel program: build it with `cargo xtask build-ebpf`, \
         then build the probe again or name the file with --bpf-object"
    )]
    NotBuilt,
    /// Named, and not readable.
    #[error(
        "cannot read the kernel program {path}: {source}; name a file that `cargo xtask build-ebpf` made"
    )]
    Unreadable {
        /// The file named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why the kernel program was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel does not let this process load programs.
    #[error(
        "the kernel refuses eBPF to this process: {0}. Run the probe as root, or give it the capabilities \
         CAP_BPF and CAP_PERFMON"
    )]
    Denied(String),
    /// The object is not this probe's kernel program.
    #[error("this is not the probe's kernel program: {0}; build it anew with `cargo xtask build-ebpf`")]
    Foreign(String),
    /// The kernel could not make the maps.
    #[error(
        "the kernel cannot make the program's maps: {0}; they take 35 MiB of this process's memory limit"
    )]
    Maps(String),
    /// The kernel does not take the program's type information.
    #[error(
        "the kernel refuses the program's type information: {0}; the probe needs Linux 6.6 or later with eBPF"
    )]
    Types(io::Error),
    /// The verifier refuses the program.
    #[error(
        "the kernel's verifier refuses the program: {source}; the probe needs Linux 6.6 or later. It says:\n{log}"
    )]
    Verifier {
        /// What the system call said.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
}

/// Why a file's sites were not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No site was named.
    #[error("no site to attach to")]
    NoSites,
    /// The kernel does not let this process attach uprobes.
    #[error(
        "the kernel refuses uprobes to this process: {0}. Run the probe as root, or give it the capabilities \
         CAP_BPF and CAP_PERFMON"
    )]
    Denied(String),
    /// The kernel has no uprobe_multi links.
    #[error("this kernel has no uprobe_multi links: the probe needs Linux 6.6 or later, with CONFIG_UPROBES")]
    Unsupported,
    /// The file does not let itself be attached to.
    #[error("the kernel cannot attach to the sites of this file: {0}")]
    File(io::Error),
}

/// The log's last lines, where the verifier says why.
pub(super) fn tail(log: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Says which capabilities this process lacks.
pub(super) fn missing_capabilities() -> String {
    let Ok(own) = capabilities(None) else { return "its capabilities cannot be read".to_owned() };
    // CAP_SYS_ADMIN gives both, as before Linux 5.8.
    let has = |one| own.effective.intersects(one | CapabilitySet::SYS_ADMIN);
    let missing: Vec<&str> = [("CAP_BPF", CapabilitySet::BPF), ("CAP_PERFMON", CapabilitySet::PERFMON)]
        .into_iter()
        .filter(|&(_, flag)| !has(flag))
        .map(|(name, _)| name)
        .collect();
    if missing.is_empty() {
        "it has CAP_BPF and CAP_PERFMON, so something else is in the way: a seccomp filter or policy of a container, a \
         security module, or kernel lockdown"
            .to_owned()
    } else {
        format!("it lacks {}", missing.join(" and "))
    }
}
