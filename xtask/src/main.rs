//! `cargo xtask <command>`: everything done to this repository besides editing it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]

mod bench;
mod build_ebpf;
mod demo;
mod fuzz;
mod reference;
mod setup;
mod shell;
mod test;
mod tidy;
mod torture;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Development commands of StreamHouse.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what the build and the tests need; does nothing where it is there.
    Setup,
    /// Builds the kernel program into target/bpf/streamhouse.bpf.o.
    BuildEbpf,
    /// Runs agent, producer, consumer and probe on embedded defaults and shows what the probe sees.
    Demo(demo::Options),
    /// Runs the fuzz targets.
    Fuzz(fuzz::Options),
    /// Runs every check: format, lints, tidy, unit, integration and kernel tests.
    Test,
    /// Measures, and prints what it measured.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Breaks everything that can break while records are produced and consumed, then accounts for every record.
    Torture(torture::Options),
    /// Checks what the compiler cannot: crate edges, that every layer has the same nouns, and that catalog, reference, alerts and
    /// panels agree.
    Tidy(tidy::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::BuildEbpf => build_ebpf::run(),
        Command::Demo(options) => demo::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Test => test::run(),
        Command::Bench(bench) => bench::run(&bench),
        Command::Torture(options) => torture::run(&options),
        Command::Tidy(options) => tidy::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
