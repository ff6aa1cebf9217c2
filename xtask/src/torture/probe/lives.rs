//! Processes that fire until they end or are killed, and the ledgers they leave.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use streamhouse_tests::{Process, Random, poll_until};

/// How long everyone may take to notice the gate.
const GATE_LIMIT: Duration = Duration::from_secs(60);
/// Processes alive at one time.
const ALIVE_MAX: usize = 12;
/// Ids that lives share, of each sort.
const IDS: u64 = 8;

/// How often lives of one id meant to fire, and how often they say they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fired {
    pub(super) meant: u64,
    pub(super) done: u64,
}

/// What happened to lives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) started: u32,
    pub(super) killed: u32,
    pub(super) became_another: u32,
    pub(super) numbers_used_again: u32,
}

/// The processes.
pub(super) struct Lives {
    dir: PathBuf,
    /// Two files of the same program.
    programs: [PathBuf; 2],
    alive: Vec<Life>,
    /// Of those that have ended.
    ended: BTreeMap<String, Fired>,
    freed: Vec<u32>,
    pub(super) counts: Counts,
}

struct Life {
    process: Process,
    /// Id and ledger of each program it runs, one after the other.
    ledgers: Vec<(String, PathBuf)>,
    killed_at: Option<Instant>,
}

impl Life {
    /// Whether one of its programs says that it waits.
    fn waits(&self) -> bool {
        self.ledgers.iter().any(|(_, path)| read(path).is_ok_and(|(_, waits)| waits))
    }
}

impl Lives {
    pub(super) fn new(dir: &Path, programs: [PathBuf; 2]) -> Lives {
        Lives {
            dir: dir.to_owned(),
            programs,
            alive: Vec::new(),
            ended: BTreeMap::new(),
            freed: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Lets time pass for everyone: ends those whose time has come, starts others.
    pub(super) fn step(&mut self, random: &mut Random) -> Result<()> {
        let now = Instant::now();
        for life in &mut self.alive {
            if life.killed_at.is_some_and(|at| at <= now) && life.process.exited()?.is_none() {
                life.process.kill()?;
                self.counts.killed += 1;
            }
        }
        self.reap()?;
        if self.alive.len() < ALIVE_MAX {
            self.start(random)?;
        }
        Ok(())
    }

    /// Everyone who ends by himself has an id that nobody has who is killed: what such an id fired is known exactly.
    fn start(&mut self, random: &mut Random) -> Result<()> {
        let is_killed = random.percent(40);
        let images = if random.percent(25) { 2 } else { 1 };
        let mut arguments = Vec::new();
        let mut ledgers = Vec::new();
        for image in 0..images {
            let sort = if is_killed { "killed" } else { "ends" };
            let id = format!("torture-{sort}-{}", random.between(1, IDS));
            let ledger = self.dir.join(format!("ledger-{}-{image}", self.counts.started));
            let milliseconds = if random.percent(30) { 0 } else { random.between(1, 1500) };
            let program = &self.programs[(self.counts.started as usize + image) % 2];
            arguments.push([
                program.display().to_string(),
                id.clone(),
                ledger.display().to_string(),
                self.gate().display().to_string(),
                milliseconds.to_string(),
            ]);
            ledgers.push((id, ledger));
        }
        let wanted = self.freed.pop().filter(|_| random.percent(50));
        if let Some(pid) = wanted {
            std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        }
        let mut command = Command::new(&arguments[0][0]);
        command
            .arg("churn")
            .args(arguments.as_flattened())
            .env("HOOKED_ID", &ledgers[0].0)
            .stdin(Stdio::null());
        let process = Process::start("hooked", &mut command)?;
        let killed_at = is_killed.then(|| Instant::now() + Duration::from_millis(random.between(0, 1500)));
        self.counts.started += 1;
        self.counts.became_another += images as u32 - 1;
        self.counts.numbers_used_again += u32::from(wanted == Some(process.pid()));
        self.alive.push(Life { process, ledgers, killed_at });
        Ok(())
    }

    /// Closes the accounts of those that have ended.
    fn reap(&mut self) -> Result<()> {
        let mut alive = Vec::new();
        for mut life in std::mem::take(&mut self.alive) {
            let Some(status) = life.process.exited()? else {
                alive.push(life);
                continue;
            };
            ensure!(status.success() || life.killed_at.is_some(), "a process ended with {status}");
            self.freed.push(life.process.pid());
            for (id, path) in &life.ledgers {
                let (fired, _) = read(path)?;
                add(&mut self.ended, id, fired);
                if path.exists() {
                    std::fs::remove_file(path)?;
                }
            }
        }
        self.alive = alive;
        Ok(())
    }

    fn gate(&self) -> PathBuf {
        self.dir.join("gate")
    }

    /// Stops everyone and gives what each id has fired.
    pub(super) fn shut(&mut self) -> Result<BTreeMap<String, Fired>> {
        std::fs::write(self.gate(), "")?;
        poll_until("everyone to stop", GATE_LIMIT, || {
            self.reap()?;
            for life in &self.alive {
                ensure!(life.waits(), "{} goes on", life.process.pid());
            }
            Ok(())
        })?;
        let mut fired = self.ended.clone();
        for (id, path) in self.alive.iter().flat_map(|life| &life.ledgers) {
            add(&mut fired, id, read(path)?.0);
        }
        Ok(fired)
    }

    /// Lets everyone go on, and waits until they do: who says that he waits has stopped again then.
    pub(super) fn open(&mut self) -> Result<()> {
        std::fs::remove_file(self.gate())?;
        poll_until("everyone to go on", GATE_LIMIT, || {
            self.reap()?;
            for life in &self.alive {
                ensure!(!life.waits(), "{} waits still", life.process.pid());
            }
            Ok(())
        })
    }

    /// Waits until everyone has ended.
    pub(super) fn end(&mut self) -> Result<()> {
        for life in &mut self.alive {
            if life.killed_at.is_some() {
                life.process.kill()?;
            }
        }
        poll_until("the last to end", GATE_LIMIT, || {
            self.reap()?;
            ensure!(self.alive.is_empty(), "{} still run", self.alive.len());
            Ok(())
        })
    }
}

fn add(sums: &mut BTreeMap<String, Fired>, id: &str, fired: Fired) {
    let sum = sums.entry(id.to_owned()).or_default();
    sum.meant += fired.meant;
    sum.done += fired.done;
}

/// What a ledger says, and whether its process waits. A process that never came so far has none.
fn read(path: &Path) -> Result<(Fired, bool)> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    let number = |index: usize| {
        let bytes = bytes.get(8 * index..8 * index + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    Ok((Fired { meant: number(0), done: number(1) }, number(2) == 1))
}
