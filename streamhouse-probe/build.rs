//! Embeds the kernel program when it has been built: the file named by `STREAMHOUSE_BPF_OBJECT`, else the one that
//! `cargo xtask build-ebpf` leaves in the target folder. Without either the probe takes it by path at run time.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(embedded_bpf)");
    println!("cargo::rerun-if-env-changed=STREAMHOUSE_BPF_OBJECT");
    let object = env::var_os("STREAMHOUSE_BPF_OBJECT").map_or_else(built_object, PathBuf::from);
    if let Ok(object) = object.canonicalize() {
        println!("cargo::rerun-if-changed={}", object.display());
        println!("cargo::rustc-cfg=embedded_bpf");
        println!("cargo::rustc-env=STREAMHOUSE_BPF_OBJECT={}", object.display());
    } else if let Some(folder) = object.parent() {
        // Cargo takes a path that does not exist as always changed, and would build the probe anew each time; the
        // folder changes when the object appears in it. Without the folder that is what happens.
        let _ = fs::create_dir_all(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
    }
}

/// Where `cargo xtask build-ebpf` leaves the kernel program.
fn built_object() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/streamhouse.bpf.o")
}
