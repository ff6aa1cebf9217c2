//! `cargo xtask tidy`: what the compiler does not check.

use crate::reference;
use crate::shell::{cargo, output, root};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use streamhouse_abi::Site;

/// Which of our crates each may depend on, in what ships. Tests may reach further.
const EDGES: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("core", &[]),
    ("hooks", &["abi", "metrics"]),
    ("logs", &[]),
    ("metrics", &["abi"]),
    ("proto", &["core", "metadata"]),
    ("metadata", &["core", "hooks"]),
    ("storage", &["core", "hooks"]),
    ("client", &["core", "hooks", "metadata", "metrics", "proto", "storage"]),
    ("agent", &["core", "hooks", "logs", "metadata", "metrics", "proto", "storage"]),
    ("cli", &["client", "core", "logs", "metadata", "metrics", "storage"]),
    ("probe", &["abi", "logs", "metrics"]),
    ("fuzz", &["abi", "core", "metadata", "probe", "proto", "storage"]),
    ("tests", &[]),
    ("s3-server", &["tests"]),
    ("hooked", &["hooks"]),
    ("planes", &["agent", "client", "core", "metadata", "metrics", "storage", "tests"]),
    ("torture", &["client", "core", "metadata", "storage"]),
    ("simulation", &["agent", "client", "core", "hooks", "metadata", "proto", "storage"]),
];

/// The only crate that may load programs into the kernel.
const LOADER: &str = "streamhouse-probe";

type Edges = BTreeMap<String, BTreeSet<String>>;

/// What to do.
#[derive(Default, clap::Args)]
pub(crate) struct Options {
    /// Write docs/metrics.md first.
    #[arg(long)]
    write: bool,
}

/// The command.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.write {
        reference::write()?;
    }
    let mut problems = crate_edges(&dependencies()?);
    problems.extend(nouns(&root().join("crates/streamhouse-hooks/src"))?);
    problems.extend(nouns(&root().join("streamhouse-ebpf/src"))?);
    problems.extend(reference::problems()?);
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    ensure!(problems.is_empty(), "{} problems", problems.len());
    println!("tidy: crate edges and nouns hold, and catalog, reference, alerts and panels agree");
    Ok(())
}

/// Normal and build dependencies of every workspace member, by name.
fn dependencies() -> Result<Edges> {
    let metadata = output(&mut cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let mut edges = Edges::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
        let ships = |dependency: &&Value| dependency["kind"] != "dev";
        let names = package["dependencies"].as_array().into_iter().flatten().filter(ships);
        edges.insert(name(package)?, names.map(name).collect::<Result<_>>()?);
    }
    Ok(edges)
}

fn name(value: &Value) -> Result<String> {
    Ok(value["name"].as_str().context("a package without a name")?.to_owned())
}

fn crate_edges(edges: &Edges) -> Vec<String> {
    let mut problems = Vec::new();
    for (package, dependencies) in edges {
        if package == "xtask" {
            continue;
        }
        let short = package.trim_start_matches("streamhouse-");
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == short) else {
            problems.push(format!("{package} is not in the list of crate edges (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in dependencies {
            let ours = dependency.strip_prefix("streamhouse-");
            if ours.is_some_and(|ours| !allowed.contains(&ours)) {
                problems.push(format!("{package} must not depend on {dependency}"));
            }
            if dependency.starts_with("aya") && package != LOADER {
                problems.push(format!("{package} must not depend on {dependency}: only {LOADER} does"));
            }
        }
    }
    problems
}

/// Every site has a file of its name in a layer's folder.
fn nouns(layer: &Path) -> Result<Vec<String>> {
    if !layer.is_dir() {
        bail!("{} is not there", layer.display());
    }
    let missing =
        Site::ALL.iter().map(|site| layer.join(format!("{}.rs", site.name()))).filter(|file| !file.is_file());
    Ok(missing
        .map(|file| format!("{} is missing: every site has a file in every layer", file.display()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(package: &str, dependencies: &[&str]) -> Edges {
        [(package.to_owned(), dependencies.iter().map(|&name| name.to_owned()).collect())].into()
    }

    #[test]
    fn a_forbidden_edge_is_found() {
        assert_eq!(crate_edges(&edges("streamhouse-probe", &["streamhouse-abi", "aya"])), [""; 0]);
        assert_eq!(crate_edges(&edges("streamhouse-probe", &["streamhouse-client"])).len(), 1);
        assert_eq!(crate_edges(&edges("streamhouse-agent", &["aya"])).len(), 1);
        assert_eq!(crate_edges(&edges("streamhouse-unknown", &[])).len(), 1);
    }
}
