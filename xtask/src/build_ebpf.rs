//! `cargo xtask build-ebpf`: the kernel program, with whichever toolchain can build it here.
//!
//! Stable Rust ships no `core` for `bpfel-unknown-none`. Debian packages one for its own compiler; elsewhere nightly
//! builds it from rust-src.

use crate::setup::BPF_LINKER_VERSION;
use crate::shell::{self, command, find_in_path, output, root};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The target of the kernel program.
const TARGET: &str = "bpfel-unknown-none";
/// Debian's compiler, which has a precompiled `core` for it.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// What can build the kernel program here.
pub(crate) enum Toolchain {
    /// Debian's compiler.
    Debian,
    /// rustup's nightly, building `core` itself.
    Nightly,
}

impl Toolchain {
    /// The first that is complete.
    pub(crate) fn find() -> Option<Toolchain> {
        let debian = || {
            let sysroot =
                output(command(DEBIAN_RUSTC, &["--print", "sysroot"]).stderr(std::process::Stdio::null()));
            sysroot.is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir())
        };
        let nightly = || {
            let sysroot = output(
                command("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])
                    .env("RUSTUP_AUTO_INSTALL", "0"),
            );
            sysroot
                .is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
        };
        if Path::new(DEBIAN_RUSTC).is_file() && debian() {
            Some(Toolchain::Debian)
        } else if find_in_path("rustup").is_some() && nightly() {
            Some(Toolchain::Nightly)
        } else {
            None
        }
    }
}

/// Where `cargo xtask setup` installs bpf-linker.
pub(crate) fn linker_root() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("streamhouse").join(format!("bpf-linker-{BPF_LINKER_VERSION}")))
}

/// The linker that setup installed, or one in PATH.
pub(crate) fn linker() -> Option<PathBuf> {
    let installed = linker_root().ok()?.join("bin/bpf-linker");
    if installed.is_file() { Some(installed) } else { find_in_path("bpf-linker") }
}

/// Where the built object lies; the probe's build script looks there, whatever cargo's target directory is.
pub(crate) fn object() -> PathBuf {
    root().join("target/bpf/streamhouse.bpf.o")
}

/// Builds the kernel program.
pub(crate) fn run() -> Result<()> {
    let (Some(toolchain), Some(linker)) = (Toolchain::find(), linker()) else {
        bail!("no toolchain for {TARGET} or no bpf-linker here; run `cargo xtask setup`");
    };
    let build_dir = root().join("target/bpf-build");
    let mut cargo = command("cargo", &[]);
    cargo.current_dir(root().join("streamhouse-ebpf"));
    match toolchain {
        // RUSTC_BOOTSTRAP: aya-ebpf uses the unstable asm_experimental_arch, and this compiler is a stable one.
        Toolchain::Debian => cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build"),
        Toolchain::Nightly => cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").args([
            "+nightly",
            "build",
            "-Z",
            "build-std=core",
        ]),
    };
    cargo
        .args(["--locked", "--release", "--target", TARGET, "--target-dir"])
        .arg(&build_dir)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    shell::run(&mut cargo)?;
    let built = build_dir.join(TARGET).join("release/streamhouse-ebpf");
    let object = object();
    std::fs::create_dir_all(object.parent().expect("the object lies in a directory"))?;
    // An unchanged object keeps its date, so that the probe is not built again for nothing.
    let bytes = std::fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    if std::fs::read(&object).ok().as_ref() != Some(&bytes) {
        std::fs::write(&object, bytes)?;
    }
    println!("built {}", object.display());
    Ok(())
}
