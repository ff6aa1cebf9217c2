//! The stages put together: changes go in, scrapes come out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::attach::Kernel;
use crate::collect::{CollectError, Collector, Sums};
use crate::discover::{Change, Discovery};
use crate::encode::{ClassicBuckets, Scrape, encode};
use crate::own::Own;
use crate::pages::Pages;
use crate::targets::{KernelProgram, Targets, TargetsView};

/// How often the kernel's values are read when nobody scrapes: processes that come and go between two sweeps leave
/// theirs behind, and the maps must not fill with them.
const COLLECT_INTERVAL: Duration = Duration::from_secs(10);

/// The running probe. One thread sweeps, any number scrape: each takes the lock for as long as it needs the whole.
#[derive(Debug)]
pub struct Probe {
    inner: Mutex<Inner>,
    swept: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    collector: Option<Collector>,
    targets: Targets<KernelProgram>,
    pages: Pages,
    scrapes: u64,
    previous_scrape: Option<Duration>,
    /// When the kernel's values were last read.
    collected: Instant,
}

impl Probe {
    /// A probe with a kernel program, or with the reason why there is none: it then serves the state plane alone.
    pub fn new(kernel: Result<Kernel, String>) -> Probe {
        let (program, collector) = match kernel {
            Ok(Kernel { program, maps }) => (Ok(program), Some(Collector::new(maps))),
            Err(reason) => (Err(reason), None),
        };
        let inner = Inner {
            collector,
            targets: Targets::new(program),
            pages: Pages::default(),
            scrapes: 0,
            previous_scrape: None,
            collected: Instant::now(),
        };
        Probe { inner: Mutex::new(inner), swept: AtomicBool::new(false) }
    }

    /// Sweeps for ever: at every interval, and at once when an observed process exits.
    pub fn watch(&self, mut discovery: Discovery, interval: Duration) -> ! {
        loop {
            self.apply(discovery.sweep());
            discovery.wait(interval);
            // A file may be overwritten and started again as soon as nobody runs it: no whole sweep before it is detached.
            self.apply(discovery.exits());
        }
    }

    /// Whether the first sweep is done: what ran before the probe is attached.
    pub fn is_ready(&self) -> bool {
        self.swept.load(Ordering::Acquire)
    }

    /// Takes in what a sweep has found.
    pub fn apply(&self, changes: Vec<Change>) {
        self.lock().apply(changes);
        self.swept.store(true, Ordering::Release);
    }

    /// Collects and encodes. Scrapes at the same time take their turn.
    ///
    /// # Errors
    ///
    /// When the kernel's maps cannot be read; the next scrape tries again, and nothing is lost.
    pub fn scrape(&self, buckets: ClassicBuckets) -> Result<String, CollectError> {
        let mut inner = self.lock();
        let begin = Instant::now();
        let sums = inner.collect(begin)?;
        let state = inner.pages.read(begin);
        let own = Own {
            targets: inner.targets.counts(),
            scrapes: inner.scrapes,
            previous_scrape: inner.previous_scrape,
        };
        let page = encode(&Scrape { sums: sums.as_ref(), state: &state, own: &own }, buckets);
        inner.scrapes += 1;
        inner.previous_scrape = Some(begin.elapsed());
        Ok(page)
    }

    /// The files that running processes map, and what became of their sites.
    pub fn targets(&self) -> TargetsView {
        let inner = self.lock();
        inner.targets.view(&inner.pages)
    }

    /// After a panic nothing is served from what it left behind: the sweeps end too, and with them the process.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no other thread has panicked while it held the lock")
    }
}

impl Inner {
    fn apply(&mut self, changes: Vec<Change>) {
        let now = Instant::now();
        let exited = |change: &Change| match change {
            Change::Exited { pid } => Some(*pid),
            _ => None,
        };
        // Before a link goes that may serve other processes too: files found to be one keep it. Every other one goes
        // first of all.
        if changes.iter().filter_map(exited).any(|pid| self.targets.has_twin(pid)) {
            self.collect_unasked(now);
        }
        // What a process leaves in the kernel's maps makes room for the next one, also when nobody scrapes.
        let is_due = changes.iter().any(|change| exited(change).is_some())
            || now.duration_since(self.collected) >= COLLECT_INTERVAL;
        for change in changes {
            match change {
                Change::Maps { pid, binary } => self.targets.mapped(pid, binary),
                Change::Page { pid, page } => self.pages.add(pid, page),
                Change::PageRejected { pid, reason } => {
                    warn!(pid, "state page rejected: {reason}");
                    self.pages.reject(reason, 1);
                }
                Change::Exited { pid } => {
                    self.targets.exited(pid);
                    self.pages.exited(pid, now);
                }
            }
        }
        if is_due {
            self.collect_unasked(now);
        }
    }

    /// Collects for the sake of what a scrape finds later.
    fn collect_unasked(&mut self, now: Instant) {
        if let Err(error) = self.collect(now) {
            debug!("{error}");
        }
    }

    /// What the kernel has counted; `None` without a kernel program. Files found to be one are attached once from here.
    fn collect(&mut self, now: Instant) -> Result<Option<Sums>, CollectError> {
        let Some(collector) = &mut self.collector else { return Ok(None) };
        let sums = collector.collect(now)?;
        self.collected = now;
        collector.forget_merged(&self.targets.attached())?;
        for same in &sums.same_files {
            self.targets.merge(&collector.one_file(*same));
            collector.merge_targets(*same)?;
        }
        Ok(Some(sums))
    }
}
