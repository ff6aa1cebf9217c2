//! Fires at random and keeps a ledger of it, so that whoever counts from outside can be checked, also when this process
//! is killed at any moment.
//!
//! `churn IMAGE…`: of each image five arguments, of which the first image runs here and each next one by exec: program,
//! instance id, ledger, gate, milliseconds to live. A ledger is three numbers: how many times were meant to be fired, how
//! many were, and whether the process waits because the gate is shut, which is when there is a file of its name.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use streamhouse_hooked::{ID, streamhouse_hooked_fire as fire};

/// Most times that are fired between two entries.
const BATCH_MAX: u64 = 16;
const PAUSE: Duration = Duration::from_millis(1);

/// A life.
pub(crate) fn run(images: &[String]) -> Result<()> {
    let Some(([_program, _id, ledger, gate, milliseconds], next)) = images.split_first_chunk::<5>() else {
        bail!("an image has five arguments");
    };
    let ledger = Ledger(File::create(ledger).with_context(|| format!("creating {ledger}"))?);
    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
    let mut fired = 0;
    while Instant::now() < end || fired == 0 {
        if Path::new(gate).exists() {
            ledger.write([fired, fired, 1])?;
            while Path::new(gate).exists() {
                std::thread::sleep(PAUSE);
            }
        }
        let times = 1 + fired % BATCH_MAX;
        ledger.write([fired + times, fired, 0])?;
        fire(times);
        fired += times;
        ledger.write([fired, fired, 0])?;
        std::thread::sleep(PAUSE);
    }
    let [program, id, ..] = next else { return Ok(()) };
    let mut command = Command::new(program);
    Err(command.arg("churn").args(next).env(ID, id).exec()).with_context(|| format!("executing {program}"))
}

struct Ledger(File);

impl Ledger {
    fn write(&self, [meant, fired, waits]: [u64; 3]) -> Result<()> {
        let mut bytes = [0; 24];
        for (to, number) in bytes.chunks_exact_mut(8).zip([meant, fired, waits]) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        Ok(self.0.write_all_at(&bytes, 0)?)
    }
}
