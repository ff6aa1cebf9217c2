//! `cargo xtask fuzz`: runs the fuzz targets, on the stable compiler.
//!
//! libFuzzer needs instrumentation, which is a pass of LLVM that stable rustc runs when told to; the address sanitizer,
//! which needs nightly, would find nothing in targets without `unsafe`.

use crate::shell::{self, cargo, command, output, target_dir};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::Path;

/// Every target: a function of this name in the fuzz crate.
const TARGETS: [&str; 8] = ["batch", "segment", "produce", "metadata", "notes", "page", "web_config", "http"];
/// Coverage of edges, counted in place, and the operands of comparisons, from which libFuzzer learns what is looked for.
const INSTRUMENTATION: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// Largest input; what is larger only repeats what smaller ones show.
const INPUT_BYTES_MAX: u32 = 8192;
/// Memory of a target: an input that makes one use more is a finding.
const MEMORY_MIB_MAX: u32 = 512;

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Targets; all when none is named.
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// Inputs a target.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u32,
    /// Where randomness begins; the same one gives the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

/// The command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let host = host()?;
    let build_dir = target_dir().join("fuzz");
    let mut build = cargo(&["build", "--locked", "--release", "--package", "streamhouse-fuzz"]);
    TARGETS.iter().for_each(|target| {
        build.args(["--bin", target]);
    });
    // With a target named, build scripts and macros are built without the instrumentation.
    build.args(["--features", "libfuzzer", "--target", &host, "--target-dir"]).arg(&build_dir);
    build.env("RUSTFLAGS", INSTRUMENTATION.join(" "));
    // What only a debug build checks is checked here too.
    for check in ["DEBUG_ASSERTIONS", "OVERFLOW_CHECKS"] {
        build.env(format!("CARGO_PROFILE_RELEASE_{check}"), "true");
    }
    shell::run(build.env("CARGO_PROFILE_RELEASE_LTO", "off"))?;
    let binaries = build_dir.join(host).join("release");
    let corpus = build_dir.join("corpus");
    let seeds = ["run", "--locked", "--package", "streamhouse-fuzz", "--bin", "seeds", "--"];
    shell::run(cargo(&seeds).arg(&corpus))?;
    for target in TARGETS {
        if options.targets.is_empty() || options.targets.iter().any(|named| named == target) {
            fuzz(target, &binaries, &corpus, options)?;
        }
    }
    Ok(())
}

fn fuzz(target: &str, binaries: &Path, corpus: &Path, options: &Options) -> Result<()> {
    let findings = corpus.with_file_name("findings").join(target);
    std::fs::create_dir_all(&findings)?;
    let mut fuzzer = command(binaries.join(target), &[]);
    fuzzer
        .arg(format!("-runs={}", options.runs))
        .arg(format!("-seed={}", options.seed))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .args(["-timeout=10", "-verbosity=0", "-print_final_stats=1"])
        .arg(corpus.join(target));
    shell::run(&mut fuzzer)
        .with_context(|| format!("{target}: the input that did it is in {}", findings.display()))
}

/// The machine's own target.
fn host() -> Result<String> {
    let version = output(&mut command("rustc", &["--version", "--verbose"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    ensure!(host.is_some(), "rustc does not say its host");
    Ok(host.unwrap_or_default().to_owned())
}
