//! Tests of the built binaries as a whole: real processes, real files, the real kernel.
//!
//! One after the other, because the probe sees every process of the machine. A trial that needs what this machine does
//! not allow is skipped with the reason printed, unless `STREAMHOUSE_REQUIRE_BPF=1`: then it fails.

mod bad_input;
mod binaries;
mod crash;
mod elsewhere;
mod exact;
mod long_runs;
mod notes;
mod trace;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::{Command, ExitCode};
use streamhouse_tests::{Binaries, Cluster};

/// A test: gets a log of its own in a scratch directory.
type Test = fn(&Cluster) -> Result<()>;

/// Tests that every machine can run.
const EVERYWHERE: &[(&str, Test)] = &[
    (
        "binaries::every_site_is_our_nop_behind_its_semaphore",
        binaries::every_site_is_our_nop_behind_its_semaphore,
    ),
    ("bad_input::names_records_and_topics", bad_input::names_records_and_topics),
    ("bad_input::second_agent", bad_input::second_agent),
    ("bad_input::full_disk", bad_input::full_disk),
    (
        "crash::acknowledged_records_survive_a_killed_agent",
        crash::acknowledged_records_survive_a_killed_agent,
    ),
    ("long_runs::polling_for_more_than_a_minute", long_runs::polling_for_more_than_a_minute),
];

/// Tests that load programs into the kernel.
const KERNEL: &[(&str, Test)] = &[
    ("exact::two_million_records", exact::two_million_records),
    ("trace::attached_before_and_after", trace::attached_before_and_after),
    ("trace::killed_probe_leaves_nothing", trace::killed_probe_leaves_nothing),
    ("elsewhere::bpftrace_lists_the_sites_and_prints_the_topic", elsewhere::bpftrace_prints_the_topic),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let missing = what_the_probe_misses();
    let required = std::env::var_os("STREAMHOUSE_REQUIRE_BPF").is_some_and(|value| value == "1");
    if let Some(missing) = missing.as_ref().filter(|_| !required) {
        println!("kernel tests are skipped; the probe says:\n{missing}");
    }
    let mut trials: Vec<Trial> = EVERYWHERE.iter().map(|(name, test)| trial(name, *test)).collect();
    for (name, test) in KERNEL {
        trials.push(trial(name, *test).with_ignored_flag(missing.is_some() && !required));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, test: Test) -> Trial {
    Trial::test(name, move || run(test).map_err(|error| Failed::from(format!("{error:#}"))))
}

fn run(test: Test) -> Result<()> {
    let dir = tempfile::tempdir()?;
    test(&Cluster::new(Binaries::from_env()?, dir.path())?)
}

/// What `streamhouse-probe check` says when it cannot attach here.
fn what_the_probe_misses() -> Option<String> {
    let check = || -> Result<()> {
        let output = Command::new(Binaries::from_env()?.probe()).arg("check").output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    };
    check().err().map(|error| format!("{error:#}"))
}
