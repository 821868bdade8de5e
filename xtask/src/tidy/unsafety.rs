//! Crates forbid unsafe code in their first file, except those that speak to the kernel.
//!
//! That each of their unsafe blocks says why it is sound is a lint (`undocumented_unsafe_blocks`).

use super::{Finding, Tree};

const SPEAK_TO_THE_KERNEL: [&str; 5] = ["network", "runtime", "shim", "toolbox", "volumes"];
const FORBIDS: &str = "#![forbid(unsafe_code)]";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, path, _) in tree.crates() {
        if SPEAK_TO_THE_KERNEL.contains(&name) {
            continue;
        }
        let folder = path.trim_end_matches("Cargo.toml");
        for root in ["src/lib.rs", "src/main.rs"].map(|root| format!("{folder}{root}")) {
            if let Some(text) = tree.text(&root)
                && !text.lines().any(|line| line == FORBIDS)
            {
                findings.push(Finding::new(root, 1, format!("lacks {FORBIDS}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::tests::found, check};

    #[test]
    fn finds_a_crate_that_allows_unsafe_code() {
        let files = [
            ("crates/api/Cargo.toml", ""),
            ("crates/api/src/lib.rs", "//! Words.\n#![forbid(unsafe_code)]\n"),
            ("crates/runtime/Cargo.toml", ""),
            ("crates/runtime/src/lib.rs", ""),
            ("crates/store/Cargo.toml", ""),
            ("crates/store/src/lib.rs", "//! The ledger.\n"),
        ];
        assert_eq!(
            found(check, &files),
            ["crates/store/src/lib.rs:1: lacks #![forbid(unsafe_code)]"]
        );
    }
}
