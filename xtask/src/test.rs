//! `cargo xtask test`: every check, as CI runs them.

use crate::shell::{self, cargo, root, target_dir};
use crate::{build_ebpf, setup, tidy, torture};
use anyhow::Result;
use std::path::PathBuf;
use streamhouse_tests::Postgres;
use streamhouse_tests::postgres::{Durability, TEST_POSTGRES_URL};

/// The binaries that tests start; built as they ship.
const BINARIES: [&str; 3] = ["streamhouse-agent", "streamhouse-cli", "streamhouse-probe"];

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
    torture::run_for_ci()
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
