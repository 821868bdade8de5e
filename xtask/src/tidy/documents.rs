//! What is written about the house is about this house: every crate is in ARCHITECTURE.md, every source
//! file says first what it is for, decisions have a number each, and paths in documents lead somewhere.

use super::{Finding, Tree, numbered};
use std::collections::BTreeMap;

const PLAN: &str = "ARCHITECTURE.md";
const DECISIONS: &str = "docs/decisions/";

/// Folders of the root that a path in a document may begin with.
const FOLDERS: [&str; 5] = ["crates/", "docs/", "examples/", "tests/", "xtask/"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = crates(tree);
    findings.extend(heads(tree));
    findings.extend(decisions(tree));
    findings.extend(paths(tree));
    findings
}

fn crates(tree: &Tree) -> Vec<Finding> {
    let plan = tree.text(PLAN).unwrap_or_default();
    let missing = tree.crates().filter(|(name, ..)| !plan.contains(&format!("`{name}`")));
    missing
        .map(|(name, ..)| Finding::new(PLAN, 1, format!("says nothing about `{name}`")))
        .collect()
}

fn heads(tree: &Tree) -> Vec<Finding> {
    let headless = tree.below("", ".rs").filter(|(_, text)| !text.starts_with("//!"));
    headless
        .map(|(path, _)| Finding::new(path, 1, "does not begin with `//!`: what it is for"))
        .collect()
}

fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut numbers = BTreeMap::new();
    for (path, text) in tree.below(DECISIONS, ".md") {
        let name = path.strip_prefix(DECISIONS).unwrap_or(path);
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || number.parse::<u16>().is_err() {
            findings.push(Finding::new(path, 1, "is not named NNNN-title.md"));
        } else if let Some(other) = numbers.insert(number, name) {
            findings.push(Finding::new(path, 1, format!("has the number of {other}")));
        } else if !text.starts_with(&format!("# {number}: ")) {
            findings.push(Finding::new(path, 1, format!("does not begin with `# {number}: `")));
        }
    }
    findings
}

/// Words in backquotes that look like paths of the workspace, without placeholders.
fn paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.below("", ".md") {
        for (number, line) in numbered(text) {
            for word in line.split('`').skip(1).step_by(2) {
                let is_path = FOLDERS.iter().any(|folder| word.starts_with(folder))
                    && !word.contains(['<', '{', '*', ' ', '$', ':'])
                    && !word.contains("NNNN");
                let name = word.trim_end_matches('/');
                let leads_somewhere = tree
                    .files
                    .keys()
                    .any(|file| file == name || file.starts_with(&format!("{name}/")));
                let is_read = name.ends_with(".rs") || name.ends_with(".md") || !name.contains('.');
                // Folders of manifests hold nothing that is read here.
                if is_path
                    && is_read
                    && !leads_somewhere
                    && !word.starts_with("examples/")
                    && !word.contains("manifests")
                {
                    findings.push(Finding::new(path, number, format!("`{word}` does not exist")));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::tests::found, check};

    #[test]
    fn finds_a_crate_that_nobody_describes() {
        let files = [
            ("ARCHITECTURE.md", "`api`"),
            ("crates/api/Cargo.toml", ""),
            ("crates/store/Cargo.toml", ""),
        ];
        assert_eq!(found(check, &files), ["ARCHITECTURE.md:1: says nothing about `store`"]);
    }

    #[test]
    fn finds_two_decisions_of_one_number() {
        let files =
            [("docs/decisions/0001-a.md", "# 0001: a"), ("docs/decisions/0001-b.md", "# 0001: b")];
        assert_eq!(
            found(check, &files),
            ["docs/decisions/0001-b.md:1: has the number of 0001-a.md"]
        );
    }

    #[test]
    fn finds_paths_that_lead_nowhere() {
        let files = [
            (
                "README.md",
                "See `crates/store/src/lib.rs`,\n`crates/api/src/gone.rs`, `crates/<name>`.",
            ),
            ("crates/store/src/lib.rs", "//! x"),
        ];
        assert_eq!(found(check, &files), ["README.md:2: `crates/api/src/gone.rs` does not exist"]);
    }

    #[test]
    fn finds_a_file_without_a_head() {
        let files = [("crates/store/src/lib.rs", "fn main() {}")];
        assert_eq!(
            found(check, &files),
            ["crates/store/src/lib.rs:1: does not begin with `//!`: what it is for"]
        );
    }
}
