//! Rooms that decide touch nothing: no files, sockets, processes, threads, clocks or chance.
//!
//! Dependencies alone do not show it: the standard library has all of these.

use super::{Finding, Tree, code};

/// A folder, or a file with the folder of the same name.
const PURE: [&str; 6] = [
    "crates/api/src/",
    "crates/controllers/src/",
    "crates/kubelet/src/plan.rs",
    "crates/kubelet/src/plan/",
    "crates/scheduler/src/",
    "crates/world/src/",
];

const IMPURE: [(&str, &str); 18] = [
    ("HashMap::new", "has an order of chance: use BTreeMap"),
    ("Instant::now", "reads a clock"),
    ("SystemClock", "reads a clock"),
    ("SystemEntropy", "draws chance"),
    ("SystemTime", "reads a clock"),
    ("TcpStream", "opens sockets"),
    ("UdpSocket", "opens sockets"),
    ("UnixStream", "opens sockets"),
    ("hyper::", "opens sockets"),
    ("libc::", "asks the kernel"),
    ("rustix::", "asks the kernel"),
    ("std::env", "depends on who runs it"),
    ("std::fs", "touches files"),
    ("std::process", "runs programs"),
    ("std::thread", "runs beside others"),
    ("stdx::sleep", "waits"),
    ("stdx::timeout", "waits"),
    ("tokio::", "waits"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in PURE.iter().flat_map(|folder| tree.below(folder, ".rs")) {
        for (number, line) in code(text) {
            for (word, why) in IMPURE.iter().filter(|(word, _)| line.contains(word)) {
                let what = format!("`{word}` in a room that only decides: it {why}");
                findings.push(Finding::new(path, number, what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::tests::found, check};

    #[test]
    fn finds_a_controller_that_reads_files() {
        let text = "//! std::fs is only spoken of here.\nuse std::fs::read;\n";
        assert_eq!(
            found(
                check,
                &[("crates/controllers/src/x.rs", text), ("crates/kubelet/src/pod.rs", text)]
            ),
            [
                "crates/controllers/src/x.rs:2: `std::fs` in a room that only decides: it touches files"
            ]
        );
    }

    #[test]
    fn finds_a_clock_in_the_plan_of_a_node() {
        let files = [("crates/kubelet/src/plan/pod.rs", "let now = Instant::now();")];
        assert_eq!(found(check, &files).len(), 1);
    }
}
