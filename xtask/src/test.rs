//! `cargo xtask test`: every check, as CI runs them.

use crate::shell::{self, cargo, command, root, target_dir};
use crate::{build_ebpf, setup, tidy, torture};
use anyhow::Result;
use std::path::PathBuf;
use streamhouse_tests::Postgres;
use streamhouse_tests::postgres::{Durability, TEST_POSTGRES_URL};

/// The binaries that tests start; built as they ship.
const BINARIES: [&str; 3] = ["streamhouse-agent", "streamhouse-cli", "streamhouse-probe"];

/// The packages that a process which serves its own metrics is made of, and what tests it.
const METRICS_PACKAGES: [&str; 3] = ["streamhouse-metrics", "streamhouse-hooks", "streamhouse-planes"];
/// Their features.
const METRICS_FEATURES: [&str; 5] = [
    "streamhouse-metrics/collector",
    "streamhouse-metrics/encode",
    "streamhouse-metrics/host",
    "streamhouse-hooks/metrics",
    "streamhouse-planes/metrics",
];

/// The command.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    shell::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    shell::run(cargo(&["fmt", "--check"]).current_dir(root().join("streamhouse-ebpf")))?;
    tidy::run(&tidy::Options::default())?;
    build_ebpf::run()?;
    shell::run(&mut cargo(&[
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    build_binaries()?;
    // Tests start programs of other test packages, which `cargo test` alone does not build.
    shell::run(&mut cargo(&["build", "--locked", "--workspace", "--all-targets"]))?;
    // One for the whole run; its tests take a database each.
    let postgres = Postgres::scratch(Durability::Process)?;
    shell::run(
        cargo(&["test", "--locked", "--workspace", "--no-fail-fast"])
            .env("PATH", setup::path()?)
            .env("STREAMHOUSE_BIN_DIR", release_dir())
            .env(TEST_POSTGRES_URL, postgres.url("postgres")),
    )?;
    check_deployment()?;
    test_with_metrics()?;
    torture::run_for_ci()
}

/// Has Prometheus' own tools look at what operators deploy.
fn check_deployment() -> Result<()> {
    let prometheus = root().join("deploy/prometheus");
    for (program, arguments, directory) in [
        ("promtool", &["check", "config", "prometheus.yml"][..], &prometheus),
        ("promtool", &["check", "rules", "alerts.yml"], &prometheus),
        ("promtool", &["test", "rules", "alerts_test.yml"], &prometheus),
        ("amtool", &["check-config", "alertmanager.yml"], &root().join("deploy/alertmanager")),
    ] {
        shell::run(command(program, arguments).current_dir(directory).env("PATH", setup::path()?))?;
    }
    Ok(())
}

/// What is only there when processes serve their metrics themselves.
fn test_with_metrics() -> Result<()> {
    let packages = METRICS_PACKAGES.map(|package| format!("--package={package}"));
    let features = format!("--features={}", METRICS_FEATURES.join(","));
    let with = |subcommand: &str| {
        let mut cargo = cargo(&[subcommand, "--locked"]);
        cargo.args(&packages).arg(&features);
        cargo
    };
    shell::run(with("clippy").args(["--all-targets", "--", "--deny", "warnings"]))?;
    shell::run(with("test").arg("--no-fail-fast").env("STREAMHOUSE_BIN_DIR", release_dir()))
}

/// Builds agent, command line and probe as they ship.
pub(crate) fn build_binaries() -> Result<()> {
    let mut build = cargo(&["build", "--locked", "--release"]);
    for package in BINARIES {
        build.args(["--package", package]);
    }
    shell::run(&mut build)
}

/// Where [`build_binaries`] puts them.
pub(crate) fn release_dir() -> PathBuf {
    target_dir().join("release")
}
