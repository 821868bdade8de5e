//! Woken, not sleeping: only `stdx` and the simulator know how to sleep.

use super::{Finding, Tree, code};

const MAY_SLEEP: [&str; 2] = ["crates/simulator/", "crates/stdx/"];

/// In two pieces, so that this file does not find itself.
const SLEEPS: [(&str, &str); 3] =
    [("thread::", "sleep"), ("time::", "sleep"), ("time::", "interval")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let files = tree.below("", ".rs");
    for (path, text) in files.filter(|(path, _)| !MAY_SLEEP.iter().any(|it| path.starts_with(it))) {
        for (number, line) in code(text) {
            if SLEEPS.iter().any(|(module, name)| line.contains(&format!("{module}{name}"))) {
                let what = "sleeps: wait for the condition; back-off and periods are in stdx";
                findings.push(Finding::new(path, number, what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::tests::found, SLEEPS, check};

    #[test]
    fn finds_sleeps_in_tests_too() {
        for (module, name) in SLEEPS {
            let text = format!("fn waits() {{\n    std::{module}{name}(second);\n}}\n");
            let files =
                [("crates/stdx/src/clock.rs", &*text), ("crates/kubelet/tests/pod.rs", &*text)];
            assert_eq!(
                found(check, &files),
                [
                    "crates/kubelet/tests/pod.rs:2: sleeps: wait for the condition; back-off and periods are in stdx"
                ]
            );
        }
    }
}
