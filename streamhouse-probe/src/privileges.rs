//! What the probe is allowed to do: it keeps what it needs and drops the rest before it looks at anything.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Every capability the probe needs, what for, and its bit.
pub const NEEDED: [(&str, &str, CapabilitySet); 4] = [
    ("CAP_BPF", "load the kernel program and make its maps", CapabilitySet::BPF),
    ("CAP_PERFMON", "attach it to the sites and read process memory from it", CapabilitySet::PERFMON),
    (
        "CAP_SYS_PTRACE",
        "look into processes of other users: executables, mappings, state pages",
        CapabilitySet::SYS_PTRACE,
    ),
    ("CAP_DAC_READ_SEARCH", "read the executables of other users", CapabilitySet::DAC_READ_SEARCH),
];

/// The names of the needed capabilities that this thread lacks; all of them when that cannot be found out.
pub fn missing() -> Vec<&'static str> {
    let own = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    NEEDED.into_iter().filter(|(_, _, one)| !own.contains(*one)).map(|(name, ..)| name).collect()
}

/// Drops every capability that is not [`NEEDED`], for this thread and those it starts: call it before any other thread
/// runs. Nothing it executes can gain more.
///
/// # Errors
///
/// What the kernel says; it refuses nobody to drop what it has.
pub fn drop_unneeded() -> std::io::Result<()> {
    let needed = NEEDED.iter().fold(CapabilitySet::empty(), |all, (_, _, one)| all | *one);
    let own = capabilities(None)?;
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        // What is left here could only be had again by executing a file that gives it, which is refused by now anyway.
        for unneeded in CapabilitySet::all() & !needed {
            remove_capability_from_bounding_set(unneeded).or_else(ignore_unknown)?;
        }
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: own.permitted & needed,
            permitted: own.permitted & needed,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// An older kernel knows fewer capabilities.
fn ignore_unknown(error: Errno) -> Result<(), Errno> {
    if error == Errno::INVAL { Ok(()) } else { Err(error) }
}

/// Raises the number of files that may be open to the most that is allowed: each observed process takes two.
pub fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // When it is refused, the processes past the limit are not observed and nothing else changes.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
