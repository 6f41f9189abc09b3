//! Which crate may depend on which: the layers of docs/ARCHITECTURE.md as a table, checked against
//! what cargo resolves.

use crate::steps::cargo;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The crates of this workspace, each with those it may use. Tests may use `harness` besides.
const EDGES: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("api-tests", &["api", "harness"]),
    ("arch", &[]),
    ("boot-tests", &["api", "harness", "hostile"]),
    (
        "coracle",
        &[
            "api",
            "arch",
            "coracle-proto",
            "devices",
            "oci",
            "usernet",
            "vmm",
        ],
    ),
    ("coracle-init", &["coracle-proto"]),
    ("coracle-proto", &[]),
    ("devices", &[]),
    ("harness", &[]),
    ("hostile", &["devices", "harness"]),
    ("lab", &["api"]),
    ("mmds", &["devices"]),
    ("oci", &[]),
    ("usernet", &[]),
    ("vmm", &["api", "arch", "coracle-proto", "devices", "mmds"]),
    ("xtask", &["api", "harness", "lab"]),
];

/// Packages of others that only some of our crates may name.
const RESERVED: &[(&str, &[&str])] = &[
    (
        "anyhow",
        &[
            "api-tests",
            "boot-tests",
            "coracle",
            "harness",
            "lab",
            "xtask",
        ],
    ),
    ("clap", &["coracle", "xtask"]),
    ("kvm-bindings", &["vmm"]),
    ("kvm-ioctls", &["vmm"]),
    ("linux-loader", &["arch"]),
    ("event-manager", &["devices", "vmm"]),
    ("vm-superio", &["devices"]),
    ("tokio", &[]),
];

/// The most packages that the coracle program may be built from, ours included. Each one is code
/// that runs beside a hostile guest: raise the number only with a reason in the commit.
const MOST_PACKAGES: usize = 101;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
}

#[derive(Debug, Deserialize)]
struct NodeDep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Debug, Deserialize)]
struct DepKind {
    kind: Option<String>,
}

/// Prints every forbidden edge; true when there is none.
pub(crate) fn run() -> Result<bool> {
    let metadata = metadata()?;
    let mut problems = Vec::new();
    for package in &metadata.packages {
        if metadata.workspace_members.contains(&package.id) {
            edges_of(package, &mut problems);
        }
    }
    let count = packages_of_coracle(&metadata)?;
    if count > MOST_PACKAGES {
        problems.push(format!(
            "coracle is built from {count} packages, limit {MOST_PACKAGES}"
        ));
    }
    for problem in &problems {
        println!("deps: {problem}");
    }
    println!("deps: coracle is built from {count} packages (limit {MOST_PACKAGES})");
    Ok(problems.is_empty())
}

fn metadata() -> Result<Metadata> {
    let platform = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let output = cargo(&["metadata", "--format-version", "1", "--locked"])
        .args(platform)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("reading what cargo metadata prints")
}

fn edges_of(package: &Package, problems: &mut Vec<String>) {
    let name = package.name.as_str();
    let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
        problems.push(format!(
            "{name} is not in the table of ci/xtask/src/deps.rs"
        ));
        return;
    };
    for dependency in &package.dependencies {
        let other = dependency.name.as_str();
        let for_tests = dependency.kind.as_deref() == Some("dev");
        let ours = dependency.path.is_some();
        if ours && !allowed.contains(&other) && !(for_tests && other == "harness") {
            problems.push(format!("{name} must not depend on {other}"));
        }
        let reserved = RESERVED.iter().find(|(reserved, _)| *reserved == other);
        if let Some((_, users)) = reserved.filter(|(_, users)| !users.contains(&name))
            && !for_tests
        {
            problems.push(format!("{name} must not use {other}, only {users:?} may"));
        }
    }
}

/// How many packages are linked into the coracle program or run while it is built.
fn packages_of_coracle(metadata: &Metadata) -> Result<usize> {
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let start = metadata
        .packages
        .iter()
        .find(|package| package.name == "coracle");
    let start = start.context("there is no package coracle")?;
    let mut seen = BTreeSet::new();
    let mut waiting = vec![start.id.as_str()];
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let deps = nodes
            .get(id)
            .map(|node| node.deps.as_slice())
            .unwrap_or_default();
        let linked = deps
            .iter()
            .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        waiting.extend(linked.map(|dep| dep.pkg.as_str()));
    }
    Ok(seen.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_is_allowed() {
        assert!(run().unwrap(), "see the problems above");
    }
}
