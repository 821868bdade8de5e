//! What the program reports, read: its JSON report names every spec it holds, also those that did not run.
//!
//! Upstream: github.com/onsi/ginkgo/v2/types, Report and SpecReport.

use super::{Ended, Outcome, Outcomes};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{fs, path::Path};

/// A reason is one line of a table.
const SAID_CHARACTERS_MAX: usize = 200;

pub(crate) fn read(path: &Path) -> Result<Outcomes> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let report =
        serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))?;
    Ok(outcomes(&report))
}

fn outcomes(report: &Value) -> Outcomes {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut outcomes = Outcomes::new();
    for suite in list(report) {
        for spec in list(&suite["SpecReports"]) {
            let said = spec["Failure"]["Message"].as_str().unwrap_or_default();
            let result = match spec["State"].as_str().unwrap_or_default() {
                "passed" => Ended::Passed,
                // Without a word: left out by the focus.
                "skipped" if said.is_empty() => continue,
                "skipped" => Ended::Skipped,
                "pending" => continue,
                _ => Ended::Failed,
            };
            let name = name(&spec);
            // What the suite does before and after is a result only where it fails.
            if result == Ended::Passed && spec["LeafNodeType"] != "It" {
                continue;
            }
            let said = if result == Ended::Passed { String::new() } else { one_line(said) };
            outcomes.insert(name, Outcome { result, said });
        }
    }
    outcomes
}

/// The full name, as `--focus` sees it; a node of the suite itself goes by its kind.
fn name(spec: &Value) -> String {
    let texts = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let mut words: Vec<&str> =
        texts.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).collect();
    words.retain(|it| !it.is_empty());
    if words.is_empty() {
        words.extend(spec["LeafNodeType"].as_str());
    }
    words.join(" ")
}

fn one_line(said: &str) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    words.join(" ").chars().take(SAID_CHARACTERS_MAX).collect()
}

pub(crate) fn print(outcomes: &Outcomes) {
    for (name, outcome) in outcomes {
        println!("  {} {name}", outcome.result.word());
        if !outcome.said.is_empty() {
            println!("         {}", outcome.said);
        }
    }
}

impl Ended {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Ended::Passed => "passed",
            Ended::Failed => "failed",
            Ended::Skipped => "skipped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tells_a_spec_that_skipped_itself_from_one_left_out() {
        let spec = |leaf: &str, state: &str, said: Option<&str>| {
            let mut spec = json!({
                "ContainerHierarchyTexts": ["[sig-apps] StatefulSet", "Basic"],
                "LeafNodeType": "It", "LeafNodeText": leaf, "State": state,
            });
            if let Some(said) = said {
                spec["Failure"] = json!({ "Message": said });
            }
            spec
        };
        let report = json!([{ "SpecReports": [
            spec("a", "passed", None),
            spec("b", "skipped", None),
            spec("c", "skipped", Some("needs\n  two nodes")),
            spec("d", "timedout", Some("too long")),
        ]}]);
        let found: Vec<(String, &str, String)> = outcomes(&report)
            .into_iter()
            .map(|(name, it)| {
                (name.replace("[sig-apps] StatefulSet Basic ", ""), it.result.word(), it.said)
            })
            .collect();
        let of = |name: &str, word, said: &str| (name.to_owned(), word, said.to_owned());
        assert_eq!(
            found,
            [
                of("a", "passed", ""),
                of("c", "skipped", "needs two nodes"),
                of("d", "failed", "too long")
            ]
        );
    }
}
