//! Every version, feature, lint and profile is in the root's Cargo.toml, once.

use super::{Finding, Tree, edges, numbered};

const INHERITED: [&str; 4] = ["version", "edition", "license", "publish"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, path, manifest) in tree.crates() {
        let lines: Vec<&str> = manifest.lines().collect();
        for dependency in edges::dependencies(manifest) {
            let (line, name) = (lines[dependency.line - 1], &dependency.name);
            let optional = format!("{name} = {{ workspace = true, optional = true }}");
            if line != format!("{name}.workspace = true") && line != optional {
                let what = format!(
                    "versions and features are in the root: write `{}.workspace = true`",
                    dependency.name
                );
                findings.push(Finding::new(path, dependency.line, what));
            }
        }
        for (number, line) in numbered(manifest).filter(|(_, line)| line.starts_with('[')) {
            let section = line.trim_matches(['[', ']']);
            let table = section.split_once("dependencies.").is_some();
            if table || section.starts_with("profile") {
                findings.push(Finding::new(
                    path,
                    number,
                    format!("[{section}] belongs into the root"),
                ));
            }
        }
        for key in INHERITED.map(|key| format!("{key}.workspace = true")) {
            if !lines.contains(&&*key) {
                findings.push(Finding::new(path, 1, format!("lacks `{key}`")));
            }
        }
        if !manifest.contains("[lints]\nworkspace = true\n") {
            findings.push(Finding::new(path, 1, "lacks the workspace's lints"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::tests::found, check};

    const HEAD: &str = "[package]\nversion.workspace = true\nedition.workspace = true\n\
        license.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n";

    #[test]
    fn finds_versions_outside_of_the_root() {
        let manifest = format!(
            "{HEAD}[dependencies]\nbytes.workspace = true\nhttp = \"1\"\n[profile.release]\n"
        );
        assert_eq!(
            found(check, &[("crates/api/Cargo.toml", &manifest)]),
            [
                "crates/api/Cargo.toml:10: versions and features are in the root: write `http.workspace = true`",
                "crates/api/Cargo.toml:11: [profile.release] belongs into the root",
            ]
        );
    }

    #[test]
    fn finds_a_crate_without_the_lints() {
        let manifest = HEAD.replace("[lints]\nworkspace = true\n", "");
        assert_eq!(
            found(check, &[("crates/api/Cargo.toml", &manifest)]),
            ["crates/api/Cargo.toml:1: lacks the workspace's lints"]
        );
    }
}
