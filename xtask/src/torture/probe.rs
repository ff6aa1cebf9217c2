//! `cargo xtask torture --probe`: processes come and go under load, the probe is killed again and again, and within each
//! of its lives it has counted exactly what they fired.

mod lives;

use anyhow::{Context, Result, ensure};
use lives::{Fired, Lives};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use streamhouse_tests::{
    Agent, Binaries, Cluster, Exposition, Probe, Process, ProduceReport, Random, notes, poll_until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Time between two looks at everyone.
const STEP: Duration = Duration::from_millis(20);
/// Steps from one scrape to the next.
const SCRAPE_STEPS: u64 = 20;
/// How long a life of the probe is, in seconds.
const PROBE_LIFE: (u64, u64) = (6, 15);
const TOPIC: &str = "torture";
const WRITTEN: &str = "streamhouse_agent_records_written_total";
const SENT: &str = "streamhouse_producer_records_sent_total";
/// The producers' id, which each of them has in its turn.
const PRODUCER: &str = "torture-producer";
const AGENT: &str = "torture-agent";

/// A run.
struct Torture {
    cluster: Cluster,
    agent: Agent,
    lives: Lives,
    /// Keep both files of the program attached, and are looked at in the end.
    holders: [(Process, PathBuf); 2],
    random: Random,
    accounted: u64,
    produced: u64,
    scrapes: u64,
}

/// One life of the probe.
struct Watched {
    probe: Probe,
    previous: BTreeMap<String, f64>,
}

/// Tortures it for so long, and to the end of the life it then has.
pub(super) fn run(length: Duration, seed: u64, binaries: Binaries, dir: &Path) -> Result<()> {
    let mut torture = Torture::new(binaries, dir, seed)?;
    let begin = Instant::now();
    let mut probes = 0;
    while begin.elapsed() < length {
        probes += 1;
        torture.probe_life().with_context(|| format!("life {probes} of the probe"))?;
    }
    torture.lives.end()?;
    torture.nobody_looks()?;
    let lives::Counts { started, killed, became_another, numbers_used_again } = torture.lives.counts;
    println!(
        "  {probes} lives of the probe, {} scrapes; {started} processes: {killed} killed, {became_another} became another \
         program, {numbers_used_again} with a number used before",
        torture.scrapes
    );
    println!(
        "  {} records of processes, {} of producers: each counted once",
        torture.accounted, torture.produced
    );
    Ok(())
}

impl Torture {
    fn new(binaries: Binaries, dir: &Path, seed: u64) -> Result<Torture> {
        let mut cluster = Cluster::new(binaries, dir)?;
        cluster.agent_id = Some(AGENT.to_owned());
        let agent = cluster.start_agent()?;
        cluster.create_topic(&agent, TOPIC, 2)?;
        let copy = |name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            std::fs::copy(cluster.binaries.hooked()?, &path)?;
            Ok(path)
        };
        let programs = [copy("one")?, copy("other")?];
        let hold = |path: &PathBuf| -> Result<(Process, PathBuf)> {
            let mut command = crate::shell::command(path, &[]);
            Ok((Process::start("holder", command.stdin(Stdio::piped()).stdout(Stdio::null()))?, path.clone()))
        };
        let holders = [hold(&programs[0])?, hold(&programs[1])?];
        let lives = Lives::new(dir, programs);
        let random = Random::new(seed);
        Ok(Torture { cluster, agent, lives, holders, random, accounted: 0, produced: 0, scrapes: 0 })
    }

    /// From its start under load to its end by a kill under load.
    fn probe_life(&mut self) -> Result<()> {
        // Every label set that comes and goes is to be followed.
        let probe = self.cluster.start_probe(&["--series-max", "100000"])?;
        let mut watched = Watched { probe, previous: BTreeMap::new() };
        let held: Vec<u32> = self.holders.iter().map(|(process, _)| process.pid()).collect();
        watched.probe.await_attached(&[&held[..], &[self.agent.process.pid()]].concat())?;
        let before = self.lives.shut()?;
        let counted_before = watched.scrape(&mut self.scrapes)?;
        self.lives.open()?;
        let produced = self.churn(&mut watched)?;
        let after = self.lives.shut()?;
        let counted_after = watched.scrape(&mut self.scrapes)?;
        self.lives.open()?;
        self.compare(&before, &after, &counted_before, &counted_after)?;
        for (metric, id) in [(SENT, PRODUCER), (WRITTEN, AGENT)] {
            let counted = gained(&counted_before, &counted_after, metric, id);
            ensure!(counted == produced as f64, "{metric}: {counted} of {produced} records");
        }
        self.produced += produced;
        for _ in 0..self.random.between(0, 20) {
            self.lives.step(&mut self.random)?;
            std::thread::sleep(STEP);
        }
        watched.probe.process.kill()?;
        Ok(())
    }

    /// Everyone comes and goes, and producers produce; gives how many records they were told are stored.
    fn churn(&mut self, watched: &mut Watched) -> Result<u64> {
        let end = Instant::now() + Duration::from_secs(self.random.between(PROBE_LIFE.0, PROBE_LIFE.1));
        let mut producer = self.start_producer(watched)?;
        let mut produced = 0;
        let mut steps = 0;
        while Instant::now() < end {
            self.lives.step(&mut self.random)?;
            std::thread::sleep(STEP);
            steps += 1;
            if steps % SCRAPE_STEPS == 0 {
                watched.scrape(&mut self.scrapes)?;
            }
            if producer.exited()?.is_some() {
                produced += self.finish(producer)?;
                producer = self.start_producer(watched)?;
            }
        }
        Ok(produced + self.finish(producer)?)
    }

    /// A producer that begins when it is attached: nobody holds its file attached between one and the next.
    fn start_producer(&self, watched: &Watched) -> Result<Process> {
        let gate = self.cluster.path("producer-gate");
        if gate.exists() {
            std::fs::remove_file(&gate)?;
        }
        let mut produce = self.cluster.cli(&[
            "produce",
            TOPIC,
            "--generate",
            "20000",
            "--rate",
            "20000",
            "--client-id",
            PRODUCER,
        ]);
        produce.arg("--report").arg(self.report()).arg("--start-gate").arg(&gate);
        let producer = Process::start("produce", &mut produce)?;
        watched.probe.await_attached(&[producer.pid()])?;
        std::fs::write(gate, "")?;
        Ok(producer)
    }

    fn finish(&self, mut producer: Process) -> Result<u64> {
        producer.wait_success(LIMIT)?;
        let report = ProduceReport::read(&self.report())?;
        ensure!(report.errors == 0, "the producer suffered: {report:?}");
        Ok(report.records)
    }

    fn report(&self) -> PathBuf {
        self.cluster.path("produce.json")
    }

    /// What each id has fired while the probe lived is what it has counted, or what it says it could not count.
    fn compare(
        &mut self,
        before: &BTreeMap<String, Fired>,
        after: &BTreeMap<String, Fired>,
        counted_before: &Exposition,
        counted_after: &Exposition,
    ) -> Result<()> {
        let refused = counted_after.sum("streamhouse_probe_refused_total", &[])
            - counted_before.sum("streamhouse_probe_refused_total", &[]);
        let mut missing = 0.0;
        for (id, after) in after {
            let before = before.get(id).copied().unwrap_or_default();
            let counted = gained(counted_before, counted_after, WRITTEN, id);
            // Who was killed before, in the middle of a batch, meant more than was done.
            let least = after.done.saturating_sub(before.done) as f64;
            let most = least + (after.meant - after.done) as f64 - (before.meant - before.done) as f64;
            ensure!(counted <= most, "{id}: {counted} counted, {most} fired");
            missing += f64::max(least - counted, 0.0);
            self.accounted += counted as u64;
        }
        ensure!(missing <= refused, "{missing} were neither counted nor refused ({refused} refused)");
        Ok(())
    }

    /// The kernel takes links down a moment after their last descriptor closes.
    fn nobody_looks(&self) -> Result<()> {
        let agent = (&self.agent.process, self.cluster.binaries.agent());
        let holders = self.holders.iter().map(|(process, path)| (process, path.clone()));
        for (process, binary) in holders.chain([agent]) {
            poll_until("nobody to look", LIMIT, || {
                let semaphores = notes::semaphores(process, &binary)?;
                ensure!(semaphores.values().all(|count| *count == 0), "semaphores are {semaphores:?}");
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Watched {
    /// A page, on which no counter is less than on the one before.
    fn scrape(&mut self, scrapes: &mut u64) -> Result<Exposition> {
        let page = self.probe.scrape()?;
        let mut counters = BTreeMap::new();
        for sample in &page.samples {
            if ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| sample.name.ends_with(suffix)) {
                counters.insert(format!("{}{:?}", sample.name, sample.labels), sample.value);
            }
        }
        for (series, before) in &self.previous {
            let now = counters.get(series).copied();
            ensure!(now.is_some_and(|now| now >= *before), "{series} went from {before} to {now:?}");
        }
        self.previous = counters;
        *scrapes += 1;
        Ok(page)
    }
}

fn gained(before: &Exposition, after: &Exposition, metric: &str, id: &str) -> f64 {
    let labels = &[("instance_id", id)];
    after.sum(metric, labels) - before.sum(metric, labels)
}
