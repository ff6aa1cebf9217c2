//! What the kernel program says, as the process's logger gets it.

use std::mem;
use std::sync::{Mutex, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

static LINES: Lines = Lines(Mutex::new(Vec::new()));

struct Lines(Mutex<Vec<String>>);

/// Makes this the logger of the process.
pub(crate) fn install() {
    log::set_logger(&LINES).expect("nobody else sets one");
    log::set_max_level(LevelFilter::Warn);
}

/// The lines since the last time.
pub(crate) fn take() -> Vec<String> {
    mem::take(&mut LINES.0.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // aya itself logs too.
        if record.target().starts_with("streamhouse") {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}
