//! What this kernel and these capabilities allow, found out by trying.

use std::mem::size_of;

use streamhouse_abi::limits::{PROCESSES_MAX, SCOPES_MAX, SIZES_MAX, TARGETS_MAX, VALUES_MAX};
use streamhouse_abi::map::{Key, Process, ScopeKey, ScopeLabels, Sizes, Value};

use super::{AttachError, Kernel};

/// One thing the kernel program needs, and whether this kernel and these capabilities give it.
#[derive(Clone, Debug)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// What was found, or what is missing and what to do.
    pub state: Result<String, String>,
}

/// Loads the program, and tries whether it could be attached; leaves nothing behind.
pub fn probe_features(object: &[u8]) -> Vec<Feature> {
    let kernel = Kernel::load(object);
    let attach = match &kernel {
        Ok(kernel) if kernel.program.can_link() => {
            Ok("uprobe_multi links, with semaphores and cookies".to_owned())
        }
        Ok(_) => Err(AttachError::Unsupported.to_string()),
        Err(_) => Err("not tried, because the program was not loaded".to_owned()),
    };
    let program = match kernel {
        Ok(_) => Ok(format!("verified and loaded; its maps take {} MiB", map_bytes() >> 20)),
        Err(error) => Err(error.to_string()),
    };
    vec![Feature { name: "kernel program", state: program }, Feature { name: "uprobes", state: attach }]
}

/// Memory of the maps, which are preallocated.
fn map_bytes() -> usize {
    /// An element of a hash map without its key and value (`struct htab_elem`), and its share of the buckets.
    const ELEMENT: usize = 48 + 16;
    let map = |entries: u32, key: usize, value: usize| entries as usize * (ELEMENT + key + value);
    map(VALUES_MAX, size_of::<Key>(), size_of::<Value>())
        + map(SIZES_MAX, size_of::<Key>(), size_of::<Sizes>())
        + map(SCOPES_MAX, size_of::<ScopeKey>(), size_of::<ScopeLabels>())
        + map(PROCESSES_MAX, 8, size_of::<Process>())
        + map(TARGETS_MAX, 8, 8)
}
