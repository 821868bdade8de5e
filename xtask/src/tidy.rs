//! Keeps the house as ARCHITECTURE.md describes it: `cargo xtask tidy` reads files and says what broke a rule.
//!
//! One rule is one file below `tidy/` and one line in [`RULES`]. A rule reads a [`Tree`] and nothing else,
//! so each one's tests show it a small tree that breaks it.

mod documents;
mod edges;
mod lists;
mod manifests;
mod purity;
mod sleeps;
mod unsafety;

use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, fmt, fs, path::Path};

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [Rule; 7] = [
    documents::check,
    edges::check,
    lists::check,
    manifests::check,
    purity::check,
    sleeps::check,
    unsafety::check,
];

/// Nothing of ours is written there.
const LEFT_OUT: [&str; 3] = ["target", ".git", "node_modules"];

/// Ends of the names of files that rules read.
const READ: [&str; 3] = [".rs", ".toml", ".md"];

/// `cargo xtask tidy`: prints one line for each thing that breaks a rule, and fails if there is one.
pub(crate) fn run() -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let tree = Tree::read(root)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} things are not tidy", findings.len());
    }
    Ok(())
}

/// The texts of the workspace by their paths below its root.
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

/// What broke a rule, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Tree {
    fn read(root: &Path) -> Result<Tree> {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries =
                fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
            for entry in entries {
                let (path, kind) = entry.and_then(|it| Ok((it.path(), it.file_type()?)))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if kind.is_dir() && !LEFT_OUT.contains(&&*name) {
                    folders.push(path);
                } else if kind.is_file() && READ.iter().any(|end| name.ends_with(end)) {
                    let text = fs::read_to_string(&path)
                        .with_context(|| format!("read {}", path.display()))?;
                    files.insert(path.strip_prefix(root)?.to_string_lossy().into_owned(), text);
                }
            }
        }
        Ok(Tree { files })
    }

    /// Files below `folder` whose names end so.
    fn below<'a>(
        &'a self,
        folder: &'a str,
        end: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        all.filter(move |(path, _)| path.starts_with(folder) && path.ends_with(end))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Name and manifest of each crate: below `crates/`, then `tests` and `xtask`.
    fn crates(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.files.iter().filter_map(|(path, text)| {
            let folder = path.strip_suffix("/Cargo.toml")?;
            let name = folder.strip_prefix("crates/").unwrap_or(folder);
            (!name.contains('/')).then_some((name, path.as_str(), text.as_str()))
        })
    }
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.into(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Numbered lines from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Numbered lines of code, without what follows `//`.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(text).map(|(number, line)| {
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        (number, comment.map_or(line, |(at, _)| &line[..at]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
        Tree { files: files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect() }
    }

    /// The findings of a rule, a line each.
    pub(crate) fn found(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
        rule(&tree(files)).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn this_workspace_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let tree = Tree::read(root).unwrap();
        let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn comments_are_no_code_and_addresses_are_no_comments() {
        let lines: Vec<&str> =
            code("let a = 1; // sleep\nlet b = \"http://x\";").map(|it| it.1).collect();
        assert_eq!(lines, ["let a = 1; ", "let b = \"http://x\";"]);
    }
}
