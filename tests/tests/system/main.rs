//! Tests of the built binaries as a whole: real processes, real files, the real kernel.
//!
//! One after the other, because the probe sees every process of the machine. A trial that needs what this machine does
//! not allow is skipped with the reason printed, unless `STREAMHOUSE_REQUIRE_BPF=1`: then it fails.

#![expect(clippy::print_stdout, reason = "a test runner")]

mod alerts;
mod bad_input;
mod binaries;
mod crash;
mod discovery;
mod elsewhere;
mod exact;
mod fleet;
mod guide;
mod least_privilege;
mod long_runs;
mod trace;
mod trace_ids;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::{Command, ExitCode};
use streamhouse_tests::{Binaries, Cluster};

/// A test: gets a log of its own in a scratch directory.
type Test = fn(&Cluster) -> Result<()>;

/// What a test needs of the machine.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    /// To mount a file system.
    Root,
    /// To load programs into the kernel.
    Bpf,
}

const TESTS: &[(&str, Needs, Test)] = &[
    ("alerts::come_and_go", Needs::Bpf, alerts::alerts_come_and_go),
    ("bad_input::full_disk", Needs::Root, bad_input::full_disk),
    ("bad_input::names_records_and_topics", Needs::Nothing, bad_input::names_records_and_topics),
    ("bad_input::second_agent", Needs::Nothing, bad_input::second_agent),
    ("binaries::nop_behind_semaphore", Needs::Nothing, binaries::every_site_is_our_nop_behind_its_semaphore),
    ("crash::killed_agent", Needs::Nothing, crash::acknowledged_records_survive_a_killed_agent),
    ("discovery::a_library_loaded_late", Needs::Bpf, discovery::a_library_loaded_late),
    ("discovery::an_upgrade_in_place", Needs::Bpf, discovery::an_upgrade_in_place),
    ("discovery::exec_and_a_number_used_again", Needs::Bpf, discovery::exec_and_a_number_used_again),
    ("discovery::lives_of_milliseconds", Needs::Bpf, discovery::lives_of_milliseconds),
    ("discovery::other_pid_namespaces", Needs::Bpf, discovery::other_pid_namespaces),
    ("discovery::two_overlay_mounts", Needs::Bpf, discovery::two_overlay_mounts),
    ("elsewhere::bpftrace", Needs::Bpf, elsewhere::bpftrace_prints_the_topic),
    ("exact::two_million_records", Needs::Bpf, exact::two_million_records),
    ("fleet::a_member_of_three_dies", Needs::Nothing, fleet::a_member_of_three_dies),
    ("fleet::a_zombie_is_fenced", Needs::Nothing, fleet::a_zombie_is_fenced),
    ("fleet::hand_over_on_sigterm", Needs::Nothing, fleet::hand_over_on_sigterm),
    ("fleet::postgres_restarts", Needs::Nothing, fleet::postgres_restarts),
    ("fleet::takeover_after_a_kill", Needs::Nothing, fleet::takeover_after_a_kill),
    ("guide::commands", Needs::Bpf, guide::commands_of_the_guide),
    ("least_privilege::a_read_only_root", Needs::Bpf, least_privilege::a_read_only_root),
    ("least_privilege::another_pid_namespace", Needs::Root, least_privilege::another_pid_namespace),
    ("least_privilege::one_capability_missing", Needs::Bpf, least_privilege::one_capability_missing),
    ("least_privilege::four_capabilities", Needs::Bpf, least_privilege::four_capabilities),
    ("least_privilege::root_is_given_up", Needs::Bpf, least_privilege::root_is_given_up),
    ("long_runs::polling", Needs::Nothing, long_runs::polling_for_more_than_a_minute),
    ("trace_ids::from_producer_to_put", Needs::Nothing, trace_ids::from_producer_to_put),
    ("trace::attached_before_and_after", Needs::Bpf, trace::attached_before_and_after),
    ("trace::killed_probe_leaves_nothing", Needs::Bpf, trace::killed_probe_leaves_nothing),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let required = std::env::var_os("STREAMHOUSE_REQUIRE_BPF").is_some_and(|value| value == "1");
    let skipped = |needs, reason: Option<String>| {
        let reason = reason.filter(|_| !required)?;
        println!("tests that need {needs} are skipped: {reason}");
        Some(())
    };
    let no_root = (!rustix::process::geteuid().is_root()).then(|| "this is not root".to_owned());
    let no_root = skipped("to mount a file system", no_root).is_some();
    let no_bpf = skipped("to load programs into the kernel", what_the_probe_misses()).is_some();
    let trials = TESTS.iter().map(|(name, needs, test)| {
        let skip = (*needs == Needs::Root && no_root) || (*needs == Needs::Bpf && no_bpf);
        trial(name, *test).with_ignored_flag(skip)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
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
