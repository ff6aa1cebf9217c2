//! Fires the hook `write`, as an agent does: one record of ten bytes for each time.

use std::env;
use std::sync::OnceLock;

use streamhouse_hooks::{Instance, Role, Scope, Started, Write, write};

/// The environment variable with the instance id.
pub const ID: &str = "HOOKED_ID";
/// Topic of all that is fired.
pub const TOPIC: &str = "hooked";

/// Fires so many times. The first call makes the process an agent, with the id that [`ID`] tells.
#[unsafe(no_mangle)]
pub extern "C" fn streamhouse_hooked_fire(times: u64) {
    static SCOPE: OnceLock<Scope> = OnceLock::new();
    let scope = SCOPE.get_or_init(|| {
        let id = env::var(ID).unwrap_or_else(|_| "hooked".to_owned());
        Instance::new(Role::Agent, &id, "").scope(TOPIC, Some(0))
    });
    for _ in 0..times {
        write(scope, Write { records: 1, bytes: 10, started: Started::UNTIMED, status: 0 });
    }
}
