//! `cargo xtask setup`: installs what the build and the tests need. Does nothing where it is there.

use crate::build_ebpf::{Toolchain, linker, linker_root};
use crate::shell::{self, cargo, command, find_in_path, in_path, succeeds};
use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bpf-linker this repository builds with; the first to support LLVM 22, which Debian's rustc-web is built on.
pub(crate) const BPF_LINKER_VERSION: &str = "0.13.0";
/// Where Debian keeps the LLVM that bpf-linker links against.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Debian packages without which nothing builds: a C compiler for SQLite and zstd.
const BUILD_PACKAGES: [&str; 2] = ["gcc", "libc6-dev"];
/// Debian packages that build the kernel program.
const EBPF_PACKAGES: [&str; 6] =
    ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
/// Debian packages that only tests use: an unrelated tracer that must see our sites.
const TEST_PACKAGES: [&str; 1] = ["bpftrace"];

/// The command.
pub(crate) fn run() -> Result<()> {
    if in_path("apt-get") {
        let missing: Vec<&str> = BUILD_PACKAGES
            .into_iter()
            .chain(EBPF_PACKAGES)
            .chain(TEST_PACKAGES)
            .filter(|package| !is_installed(package))
            .collect();
        if !missing.is_empty() {
            apt_install(&missing)?;
        }
    }
    if Toolchain::find().is_none() {
        bail!(
            "no compiler for the kernel program. On Debian 12 or later this command installs rustc-web; elsewhere run \
             `rustup toolchain install nightly --component rust-src` and then this again"
        );
    }
    if linker().is_none() {
        install_linker()?;
    }
    if promtool().is_none() {
        fetch_promtool()?;
    }
    println!("everything is here");
    Ok(())
}

/// Prometheus' checker of metric pages: in PATH, or where setup put it.
pub(crate) fn promtool() -> Option<PathBuf> {
    let fetched = promtool_root().ok()?.join("usr/bin/promtool");
    find_in_path("promtool").or_else(|| fetched.is_file().then_some(fetched))
}

fn is_installed(package: &str) -> bool {
    // dpkg-query also knows removed packages: ask for the state.
    shell::output(
        command("dpkg-query", &["--show", "--showformat=${db:Status-Abbrev}", package])
            .stderr(std::process::Stdio::null()),
    )
    .is_ok_and(|state| state.starts_with("ii"))
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let sudo = match (geteuid().is_root(), in_path("sudo")) {
        (true, _) => None,
        (false, true) => Some("sudo"),
        (false, false) => {
            bail!("run as root: apt-get install --no-install-recommends {}", packages.join(" "))
        }
    };
    let apt = |arguments: &[&str]| {
        let mut apt = match sudo {
            Some(sudo) => command(sudo, &["apt-get"]),
            None => command("apt-get", &[]),
        };
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    shell::run(&mut apt(&["update", "--quiet"]))?;
    shell::run(apt(&["install", "--quiet", "--yes", "--no-install-recommends"]).args(packages))
}

fn install_linker() -> Result<()> {
    let root = linker_root()?;
    let mut install =
        cargo(&["install", "bpf-linker", "--locked", "--version", BPF_LINKER_VERSION, "--root"]);
    install.arg(&root);
    if Path::new(LLVM_PREFIX).is_dir() {
        // llvm-config must come from the versioned directory, else the build looks for libLLVM in the wrong place.
        let path = std::env::var("PATH").unwrap_or_default();
        install
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", LLVM_PREFIX)
            .env("PATH", format!("{LLVM_PREFIX}/bin:{path}"));
    }
    // Its build must not take this repository's target directory or flags.
    install.current_dir("/").env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    shell::run(&mut install)
        .context("bpf-linker did not build; a released binary of it in PATH serves as well")
}

fn promtool_root() -> Result<PathBuf> {
    Ok(linker_root()?.parent().context("the cache has no parent")?.join("prometheus"))
}

/// Unpacks Debian's Prometheus beside our other tools. Installing the package would start a server.
fn fetch_promtool() -> Result<()> {
    let root = promtool_root()?;
    if !in_path("apt-get") {
        bail!("promtool is not in PATH; install Prometheus");
    }
    std::fs::create_dir_all(&root)?;
    let download = |command: &mut Command| shell::run(command.current_dir(&root));
    if !succeeds(command("apt-get", &["download", "--quiet", "prometheus"]).current_dir(&root)) {
        apt_install(&[])?;
        download(&mut command("apt-get", &["download", "--quiet", "prometheus"]))?;
    }
    let package = std::fs::read_dir(&root)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    shell::run(command("dpkg-deb", &["--extract"]).arg(package).arg(&root))
}
