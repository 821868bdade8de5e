//! The list is the table of contents: what is written in a folder of many is also in its list.

use super::{Finding, Tree, code};

/// A list, and what belongs into it.
struct List {
    file: &'static str,
    /// How the list begins; it ends with `];` or a line `}`.
    begins: &'static str,
    folder: &'static str,
    /// A line of code with this makes its file, or the type named after it, one of the list.
    sign: &'static str,
    names: Names,
    /// Files that several of the list share.
    shared: &'static [&'static str],
}

/// How the list names what it holds.
enum Names {
    /// `file_name::`
    File,
    /// `Type>`
    Type,
}

const LISTS: [List; 6] = [
    List {
        file: "crates/api/src/lib.rs",
        begins: "pub fn kinds()",
        folder: "crates/api/src/",
        sign: "impl Kind for ",
        names: Names::Type,
        shared: &[],
    },
    List {
        file: "crates/apiserver/src/admission.rs",
        begins: "const CHAIN:",
        folder: "crates/apiserver/src/admission/",
        sign: " const PLUGIN:",
        names: Names::File,
        shared: &[],
    },
    List {
        file: "crates/controllers/src/lib.rs",
        begins: "pub fn controllers(",
        folder: "crates/controllers/src/",
        sign: "impl Controller for ",
        names: Names::File,
        shared: &[],
    },
    List {
        file: "crates/scheduler/src/filter.rs",
        begins: "static FILTERS:",
        folder: "crates/scheduler/src/filter/",
        sign: " fn filter(",
        names: Names::File,
        shared: &[],
    },
    List {
        file: "crates/scheduler/src/score.rs",
        begins: "static SCORES:",
        folder: "crates/scheduler/src/score/",
        sign: " fn score(",
        names: Names::File,
        shared: &[],
    },
    List {
        file: "crates/volumes/src/lib.rs",
        begins: "const PLUGINS:",
        folder: "crates/volumes/src/",
        sign: "impl VolumePlugin for ",
        names: Names::File,
        shared: &["atomic_files.rs"],
    },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    LISTS.iter().flat_map(|list| list.check(tree)).collect()
}

impl List {
    fn check(&self, tree: &Tree) -> Vec<Finding> {
        let Some(text) = tree.text(self.file) else { return Vec::new() };
        let Some(begin) = text.find(self.begins) else {
            return vec![Finding::new(self.file, 1, format!("has no list `{}`", self.begins))];
        };
        let rest = &text[begin..];
        let end = ["];", "\n}"].iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        let list = &rest[..end];
        let mut findings = Vec::new();
        let mut is_blind = true;
        let files = tree.below(self.folder, ".rs").filter(|(path, _)| *path != self.file);
        for (path, text) in
            files.filter(|(path, _)| !self.shared.iter().any(|it| path.ends_with(it)))
        {
            for (number, line) in code(text) {
                let Some((_, after)) = line.split_once(self.sign) else { continue };
                is_blind = false;
                let name = match self.names {
                    Names::File => format!("{}::", stem(path, self.folder)),
                    Names::Type => format!("{}>", after.trim_end_matches([' ', '{'])),
                };
                if !list.contains(&name) {
                    let what = format!(
                        "`{name}` is missing in the list `{}` of {}",
                        self.begins, self.file
                    );
                    findings.push(Finding::new(path, number, what));
                }
            }
        }
        if is_blind {
            let what =
                format!("no file of the list has `{}`: this rule would find nothing", self.sign);
            findings.push(Finding::new(self.file, 1, what));
        }
        findings
    }
}

/// `a/b.rs` and `a/b/c.rs` in `a/` are both `b`.
fn stem<'a>(path: &'a str, folder: &str) -> &'a str {
    let rest = path.strip_prefix(folder).unwrap_or(path);
    rest.split(['/', '.']).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::found, check};

    #[test]
    fn finds_a_controller_that_is_not_in_the_list() {
        let list = "pub fn controllers() -> Vec<X> {\n    vec![Arc::new(job::JobController)]\n}\nmod cron_job::x;\n";
        let controller = "pub struct X;\n\nimpl Controller for X {}\n";
        let files = [
            ("crates/controllers/src/lib.rs", list),
            ("crates/controllers/src/job.rs", controller),
            ("crates/controllers/src/cron_job.rs", controller),
        ];
        assert_eq!(
            found(check, &files),
            [
                "crates/controllers/src/cron_job.rs:3: `cron_job::` is missing in the list `pub fn controllers(` of crates/controllers/src/lib.rs"
            ]
        );
    }

    #[test]
    fn finds_a_kind_that_is_not_in_the_list() {
        let list = "pub fn kinds() -> X {\n    vec![AnyKind::of::<core::v1::Pod>()]\n}\n";
        let files = [
            ("crates/api/src/lib.rs", list),
            ("crates/api/src/core/pod.rs", "impl Kind for Pod {\n"),
            ("crates/api/src/core/node.rs", "impl Kind for Node {\n"),
        ];
        assert_eq!(
            found(check, &files),
            [
                "crates/api/src/core/node.rs:1: `Node>` is missing in the list `pub fn kinds()` of crates/api/src/lib.rs"
            ]
        );
    }
}
