//! `cargo xtask setup`: installs what the build and the tests need. Does nothing where it is there.

use crate::build_ebpf::{Toolchain, linker, linker_root};
use crate::shell::{self, cargo, command, find_in_path, in_path, succeeds};
use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use streamhouse_tests::Postgres;

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

/// Where Debian's Alertmanager looks for the templates of its messages, and does not start without.
const ALERTMANAGER_TEMPLATES: &str = "/usr/share/prometheus/alertmanager";

/// The PostgreSQL that tests run against: Debian 12's. Where it is not to be had, the distribution's own does.
const POSTGRES_PACKAGE: &str = "postgresql-15";
/// Where Debian's packages look for settings that are not theirs.
const POSTGRES_SETTINGS: &str = "/etc/postgresql-common/createcluster.d";
/// Ours.
const POSTGRES_SETTING: &str = "/etc/postgresql-common/createcluster.d/streamhouse.conf";

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
        fetch("prometheus")?;
    }
    if amtool().is_none() {
        fetch("prometheus-alertmanager")?;
    }
    if in_path("apt-get") && !Path::new(ALERTMANAGER_TEMPLATES).is_dir() {
        place_templates()?;
    }
    if !Postgres::is_installed() {
        install_postgres()?;
    }
    println!("everything is here");
    Ok(())
}

/// Prometheus' checker of metric pages: in PATH, or where setup put it.
pub(crate) fn promtool() -> Option<PathBuf> {
    let fetched = prometheus_root().ok()?.join("usr/bin/promtool");
    find_in_path("promtool").or_else(|| fetched.is_file().then_some(fetched))
}

/// Alertmanager's checker of its configuration: in PATH, or where setup put it.
pub(crate) fn amtool() -> Option<PathBuf> {
    let fetched = prometheus_root().ok()?.join("usr/bin/amtool");
    find_in_path("amtool").or_else(|| fetched.is_file().then_some(fetched))
}

/// PATH with the programs of Prometheus at its end, where setup put them.
pub(crate) fn path() -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain([prometheus_root()?.join("usr/bin")]);
    Ok(std::env::join_paths(all)?)
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
    let apt = |arguments: &[&str]| -> Result<Command> {
        let mut apt = as_root("apt-get", arguments).with_context(|| {
            format!("missing: apt-get install --no-install-recommends {}", packages.join(" "))
        })?;
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        Ok(apt)
    };
    shell::run(&mut apt(&["update", "--quiet"])?)?;
    shell::run(apt(&["install", "--quiet", "--yes", "--no-install-recommends"])?.args(packages))
}

fn as_root(program: &str, arguments: &[&str]) -> Result<Command> {
    if geteuid().is_root() {
        Ok(command(program, arguments))
    } else if in_path("sudo") {
        let mut sudo = command("sudo", &[program]);
        sudo.args(arguments);
        Ok(sudo)
    } else {
        bail!("run this as root, or install sudo")
    }
}

/// Installs the server's programs, without the server that Debian's package would start.
fn install_postgres() -> Result<()> {
    if !in_path("apt-get") {
        bail!("PostgreSQL is not installed here; install its server, version 15 or later");
    }
    let script = |script: &str| shell::run(&mut as_root("sh", &["-c", script])?);
    script(&format!(
        "mkdir -p {POSTGRES_SETTINGS} && echo 'create_main_cluster = false' > {POSTGRES_SETTING}"
    ))?;
    let installed = apt_install(&[POSTGRES_PACKAGE]).or_else(|_| apt_install(&["postgresql"]));
    // Only for this installation: a server that is installed on purpose later is to have its cluster.
    script(&format!("rm {POSTGRES_SETTING} && rmdir --ignore-fail-on-non-empty {POSTGRES_SETTINGS}"))?;
    installed
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

fn prometheus_root() -> Result<PathBuf> {
    Ok(linker_root()?.parent().context("the cache has no parent")?.join("prometheus"))
}

/// Unpacks a Debian package of Prometheus beside our other tools. Installing it would start a server.
fn fetch(package: &str) -> Result<()> {
    let root = prometheus_root()?;
    if !in_path("apt-get") {
        bail!("promtool or amtool is not in PATH; install Prometheus and Alertmanager");
    }
    std::fs::create_dir_all(&root)?;
    let download = |command: &mut Command| shell::run(command.current_dir(&root));
    if !succeeds(command("apt-get", &["download", "--quiet", package]).current_dir(&root)) {
        apt_install(&[])?;
        download(&mut command("apt-get", &["download", "--quiet", package]))?;
    }
    let file = format!("{package}_");
    let is_it = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&file) && name.ends_with(".deb")
    };
    let package = std::fs::read_dir(&root)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(is_it)
        .context("apt-get downloaded no package")?;
    shell::run(command("dpkg-deb", &["--extract"]).arg(package).arg(&root))
}

/// Puts Alertmanager's templates, which are data only, where it looks for them.
fn place_templates() -> Result<()> {
    let unpacked = prometheus_root()?.join(ALERTMANAGER_TEMPLATES.trim_start_matches('/'));
    let parent = Path::new(ALERTMANAGER_TEMPLATES).parent().context("it has a parent")?;
    shell::run(as_root("mkdir", &["-p"])?.arg(parent))?;
    shell::run(as_root("cp", &["-r"])?.arg(unpacked).arg(parent))
}
