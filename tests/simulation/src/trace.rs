//! What happened, line by line.

use std::fmt::{self, Write};

/// FNV-1a.
const HASH_BASE: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The steps of a run, as one number, and as lines when somebody wants to read them.
pub(crate) struct Trace {
    pub(crate) steps: u64,
    pub(crate) hash: u64,
    pub(crate) lines: Vec<String>,
    /// Time of the next step, from the beginning.
    pub(crate) at_ms: u64,
    keep: bool,
    line: String,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Trace {
        Trace { steps: 0, hash: HASH_BASE, lines: Vec::new(), at_ms: 0, keep, line: String::new() }
    }

    pub(crate) fn step(&mut self, what: fmt::Arguments<'_>) {
        self.steps += 1;
        self.line.clear();
        write!(self.line, "{:>6} ms  {what}", self.at_ms).expect("a String takes everything");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(HASH_PRIME);
        }
        if self.keep {
            self.lines.push(self.line.clone());
        }
    }
}
