//! `simulation`: runs seeds, and says which of them finds what.

#![expect(clippy::print_stdout, reason = "what a run found is what this program is for")]

use clap::Parser;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use streamhouse_simulation::{Bug, Options, Run, run};

/// Runs simulations of the log: many seeds, or one of them with everything that happens.
#[derive(Parser)]
#[command(name = "simulation")]
struct Flags {
    /// Seeds to run, as FIRST..END; ends at the first that finds something
    #[arg(long, default_value = "0..1000", value_parser = parse_seeds, conflicts_with = "seed")]
    seeds: Range<u64>,
    /// The one seed to run
    #[arg(long)]
    seed: Option<u64>,
    /// Print every step (with --seed)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// A defect to plant
    #[arg(long)]
    bug: Option<Bug>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let options = Options { bug: flags.bug, trace: flags.trace };
    match flags.seed {
        Some(seed) => one(seed, options),
        None => many(flags.seeds, options),
    }
}

fn one(seed: u64, options: Options) -> ExitCode {
    let run = run(seed, options);
    run.trace.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {seed}: {} steps, {} batches acknowledged, hash {:016x}",
        run.steps, run.acknowledged, run.hash
    );
    match run.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// On all processors; the seeds do not know of each other.
fn many(seeds: Range<u64>, options: Options) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let found: Mutex<Option<(u64, Run)>> = Mutex::new(None);
    let [steps, acknowledged, runs] = [(); 3].map(|()| AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let run = run(seed, options);
                    runs.fetch_add(1, Ordering::Relaxed);
                    steps.fetch_add(run.steps, Ordering::Relaxed);
                    acknowledged.fetch_add(run.acknowledged, Ordering::Relaxed);
                    if run.violation.is_some() {
                        next.store(seeds.end, Ordering::Relaxed);
                        found.lock().expect("nobody panics with it").get_or_insert((seed, run));
                    }
                }
            });
        }
    });
    let (runs, seconds) = (runs.into_inner(), began.elapsed().as_secs_f64());
    println!(
        "{runs} seeds in {seconds:.1} s ({:.0} a minute), {} steps, {} batches acknowledged",
        runs as f64 / seconds * 60.0,
        steps.into_inner(),
        acknowledged.into_inner()
    );
    let Some((seed, Run { violation: Some(violation), .. })) =
        found.into_inner().expect("nobody panics with it")
    else {
        return ExitCode::SUCCESS;
    };
    println!("seed {seed}: {violation}");
    let bug = options.bug.map_or_else(String::new, |bug| format!(" --bug {bug}"));
    println!("see how: cargo run -p streamhouse-simulation -- --seed {seed} --trace{bug}");
    ExitCode::FAILURE
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    range
        .filter(|seeds| !seeds.is_empty())
        .ok_or_else(|| format!("{text:?} is not FIRST..END, such as 0..1000"))
}
