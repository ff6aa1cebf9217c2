//! The stages put together: changes go in, scrapes come out.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use streamhouse_metrics::host::Host;
use tracing::{debug, warn};

use crate::attach::Kernel;
use crate::collect::{CollectError, Collector, Sums};
use crate::discover::{Change, Discovery};
use crate::encode::{ClassicBuckets, Format, Scrape, WallClock, encode};
use crate::lines::LineBudget;
use crate::own::{Own, PreviousScrape, SeriesCounts};
use crate::pages::{Pages, State};
use crate::room::Room;
use crate::targets::{KernelProgram, Targets, TargetsView};

/// How often the kernel's values are read when nobody scrapes: processes that come and go between two sweeps leave
/// theirs behind, and the maps must not fill with them.
const COLLECT_INTERVAL: Duration = Duration::from_secs(10);

/// How often the probe sweeps unless told otherwise.
pub const DISCOVER_INTERVAL: Duration = Duration::from_millis(500);
/// Intervals without a finished sweep after which the probe is not ready; a sweep may take a few of them.
const MISSED_INTERVALS_MAX: u32 = 10;
/// Nor is it before so long: on a busy machine a sweep that attaches hundreds of files takes seconds.
const SWEEP_AGE_MIN: Duration = Duration::from_secs(15);

/// The running probe. One thread sweeps, any number scrape: each takes the lock for as long as it needs the whole.
#[derive(Debug)]
pub struct Probe {
    inner: Mutex<Inner>,
    sweeps: Mutex<Sweeps>,
    clock: WallClock,
}

/// When sweeps were done. Under a lock of its own: it is asked for just when something hangs.
#[derive(Debug)]
struct Sweeps {
    interval: Duration,
    /// When the last one was finished; when the probe started as long as none is.
    last: Instant,
    any: bool,
}

impl Sweeps {
    fn readiness(&self, now: Instant) -> Result<(), String> {
        let age = now.saturating_duration_since(self.last);
        if age >= SWEEP_AGE_MIN.max(self.interval * MISSED_INTERVALS_MAX) {
            return Err(format!(
                "looking for processes hangs: not done for {} s, though due every {:?}. What has started since is not \
                 observed. A file system that does not answer makes it hang, such as a network mount whose server is \
                 gone: unmount it (umount -f -l) or bring it back",
                age.as_secs(),
                self.interval
            ));
        }
        if self.any { Ok(()) } else { Err("the first sweep is not done yet".to_owned()) }
    }
}

#[derive(Debug)]
struct Inner {
    collector: Option<Collector>,
    targets: Targets<KernelProgram>,
    pages: Pages,
    room: Room,
    hit_cost: Option<Duration>,
    scrapes: u64,
    previous_scrape: Option<PreviousScrape>,
    /// For what others make the probe say.
    lines: LineBudget,
    /// When the kernel's values were last read.
    collected: Instant,
}

impl Probe {
    /// A probe with a kernel program, or with the reason why there is none: it then serves the state plane alone.
    pub fn new(kernel: Result<Kernel, String>, room: Room) -> Probe {
        let (program, collector, hit_cost) = match kernel {
            Ok(Kernel { program, maps, hit_cost }) => (Ok(program), Some(Collector::new(maps)), hit_cost),
            Err(reason) => (Err(reason), None, None),
        };
        let inner = Inner {
            collector,
            targets: Targets::new(program),
            pages: Pages::default(),
            room,
            hit_cost,
            scrapes: 0,
            previous_scrape: None,
            lines: LineBudget::default(),
            collected: Instant::now(),
        };
        let sweeps = Sweeps { interval: DISCOVER_INTERVAL, last: Instant::now(), any: false };
        Probe { inner: Mutex::new(inner), sweeps: Mutex::new(sweeps), clock: WallClock::now() }
    }

    /// The same, but that it serves also what processes serve themselves.
    pub fn even_self_serving(self) -> Probe {
        self.lock().pages = Pages::even_self_serving();
        self
    }

    /// Watches processes for ever: sweeps at every interval, and in between follows exits and what the kernel tells.
    pub fn watch(&self, mut discovery: Discovery, interval: Duration) -> ! {
        self.sweeps().interval = interval;
        loop {
            self.apply(discovery.sweep());
            self.swept();
            let next = Instant::now() + interval;
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                discovery.wait(left);
                // A file may be overwritten and started again as soon as nobody runs it: it is detached before anything.
                self.apply(discovery.exits());
                self.apply(discovery.heard());
            }
        }
    }

    /// Ready when the first sweep is done, so that what ran before the probe is attached, and while sweeps go on.
    ///
    /// # Errors
    ///
    /// Why it is not, and what to do.
    pub fn readiness(&self) -> Result<(), String> {
        self.sweeps().readiness(Instant::now())
    }

    /// Takes in what a sweep has found.
    pub fn apply(&self, changes: Vec<Change>) {
        self.lock().apply(changes);
    }

    /// A sweep is done, and what it found was taken in.
    pub(crate) fn swept(&self) {
        let mut sweeps = self.sweeps();
        sweeps.last = Instant::now();
        sweeps.any = true;
    }

    fn sweeps(&self) -> MutexGuard<'_, Sweeps> {
        self.sweeps.lock().expect("nothing panics while it is held")
    }

    /// Collects and encodes. Scrapes at the same time take their turn.
    ///
    /// # Errors
    ///
    /// When the kernel's maps cannot be read; the next scrape tries again, and nothing is lost.
    pub fn scrape(&self, format: Format, buckets: ClassicBuckets) -> Result<Vec<u8>, CollectError> {
        let mut inner = self.lock();
        let begin = Instant::now();
        let sums = inner.collect(begin)?;
        let state = inner.read_pages(begin);
        let own = Own {
            targets: inner.targets.counts(),
            hit_cost: inner.hit_cost,
            scrapes: inner.scrapes,
            previous_scrape: inner.previous_scrape,
            series: SeriesCounts::from(&inner.room),
            host: Host::look(),
            sweep_age: begin.saturating_duration_since(self.sweeps().last),
        };
        let scrape = Scrape { sums: sums.as_ref(), state: &state, own: &own, clock: &self.clock };
        let page = encode(&scrape, format, buckets);
        inner.scrapes += 1;
        inner.previous_scrape = Some(PreviousScrape { duration: begin.elapsed(), bytes: page.len() });
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
                    self.lines.say(|| warn!(pid, "state page rejected: {reason}"));
                    self.pages.reject(reason, 1);
                }
                Change::Exited { pid } => {
                    self.targets.exited(pid);
                    self.pages.exited(pid, now, &mut self.room);
                }
            }
        }
        if is_due {
            self.collect_unasked(now);
        }
    }

    fn read_pages(&mut self, now: Instant) -> State {
        self.pages.read(now, &mut self.room)
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
        collector.leave_out(self.pages.self_serving(now));
        let sums = collector.collect(now, &mut self.room)?;
        self.collected = now;
        collector.forget_merged(&self.targets.attached())?;
        for same in &sums.same_files {
            self.targets.merge(&collector.one_file(*same));
            collector.merge_targets(*same)?;
        }
        Ok(Some(sums))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_whose_sweeps_hang_is_not_ready_and_says_why() {
        let begin = Instant::now();
        let mut sweeps = Sweeps { interval: DISCOVER_INTERVAL, last: begin, any: false };
        assert_eq!(sweeps.readiness(begin), Err("the first sweep is not done yet".to_owned()));
        sweeps.any = true;
        assert_eq!(sweeps.readiness(begin + SWEEP_AGE_MIN - DISCOVER_INTERVAL), Ok(()));
        let reason = sweeps.readiness(begin + SWEEP_AGE_MIN).expect_err("too long ago");
        assert!(reason.contains("15 s") && reason.contains("file system"), "{reason}");
        sweeps.interval = Duration::from_secs(60);
        assert_eq!(sweeps.readiness(begin + SWEEP_AGE_MIN), Ok(()), "it was not even due");
    }

    #[test]
    fn a_hanging_sweep_shows_in_a_scrape() {
        let probe = Probe::new(Err("no kernel here".to_owned()), Room::default());
        probe.swept();
        probe.sweeps().last -= Duration::from_secs(100);
        let page = probe.scrape(Format::Text, ClassicBuckets::default()).expect("no map is read");
        let page = String::from_utf8(page).expect("text");
        let age =
            page.lines().find_map(|line| line.strip_prefix("streamhouse_probe_last_sweep_age_seconds "));
        let age: f64 = age.expect("served").parse().expect("a number");
        assert!(age >= 100.0, "{age}");
        assert!(probe.readiness().is_err());
    }
}
