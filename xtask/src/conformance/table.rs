//! The tables of `docs/conformance.md`: one for each special interest group, one row for each spec.
//!
//! A run that saw some specs only changes their rows. Why a spec does not pass is written by hand; it stays as long
//! as the result does, and goes once the spec passes.

use super::{Ended, Outcomes};
use std::{collections::BTreeMap, fmt::Write as _};

/// Everything below this line is made by this file.
const HEAD: &str = "## Results";

/// (result, why) by full name.
type Rows = BTreeMap<String, (String, String)>;

/// `text` with the outcomes in its tables.
pub(crate) fn merge(text: &str, outcomes: &Outcomes) -> String {
    let (prose, tables) = text.split_once(HEAD).unwrap_or((text, ""));
    let mut rows = parse(tables);
    for (name, outcome) in outcomes.iter().filter(|(name, _)| name.starts_with('[')) {
        let word = outcome.result.word();
        let why = match rows.get(name) {
            _ if outcome.result == Ended::Passed => String::new(),
            Some((result, why)) if result == word && !why.is_empty() => why.clone(),
            _ => outcome.said.replace('|', "\\|"),
        };
        rows.insert(name.clone(), (word.to_owned(), why));
    }
    format!("{}\n\n{HEAD}\n{}", prose.trim_end(), print(&rows))
}

fn parse(tables: &str) -> Rows {
    let mut rows = Rows::new();
    let mut group = "";
    for line in tables.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            group = heading;
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|it| it.strip_suffix(" |")) else {
            continue;
        };
        let cells: Vec<&str> = cells.splitn(3, " | ").collect();
        if let [name, result, why] = cells[..]
            && name != "Spec"
        {
            rows.insert(format!("{group} {name}"), (result.to_owned(), why.trim().to_owned()));
        }
    }
    rows
}

fn print(rows: &Rows) -> String {
    let mut groups: BTreeMap<&str, Vec<(&str, &str, &str)>> = BTreeMap::new();
    for (name, (result, why)) in rows {
        let (group, name) = name.split_once(' ').unwrap_or(("", name));
        groups.entry(group).or_default().push((name, result, why));
    }
    let mut text = String::new();
    for (group, specs) in groups {
        let results = specs.iter().filter_map(|(_, result, _)| Ended::from_word(result));
        let tally = tally(results);
        write!(text, "\n### {group}\n\n{tally}\n\n| Spec | Result | Why |\n|---|---|---|\n")
            .expect("writing to a String");
        for (name, result, why) in specs {
            writeln!(text, "| {name} | {result} | {why} |").expect("writing to a String");
        }
    }
    text
}

/// `3 passed, 1 failed, 0 skipped`
pub(crate) fn tally(results: impl Iterator<Item = Ended>) -> String {
    let mut counts = [0_usize; 3];
    for result in results {
        counts[result as usize] += 1;
    }
    let [passed, failed, skipped] = counts;
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

impl Ended {
    fn from_word(word: &str) -> Option<Ended> {
        [Ended::Passed, Ended::Failed, Ended::Skipped].into_iter().find(|it| it.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Outcome, *};

    fn outcome(name: &str, result: Ended, said: &str) -> (String, Outcome) {
        (name.to_owned(), Outcome { result, said: said.to_owned() })
    }

    #[test]
    fn keeps_a_reason_as_long_as_the_spec_does_not_pass() {
        let first = [
            outcome("[sig-apps] a", Ended::Failed, "x | y"),
            outcome("[sig-apps] b", Ended::Failed, "timed out"),
            outcome("[sig-node] c", Ended::Skipped, "two nodes"),
            outcome("BeforeSuite", Ended::Passed, ""),
        ];
        let text = merge("# Title\n\nProse.\n", &Outcomes::from(first));
        let text = text.replace("| timed out |", "| no such feature |");
        let again = [
            outcome("[sig-apps] a", Ended::Passed, ""),
            outcome("[sig-apps] b", Ended::Failed, "timed out again"),
        ];
        let text = merge(&text, &Outcomes::from(again));
        let expected = "\
# Title

Prose.

## Results

### [sig-apps]

1 passed, 1 failed, 0 skipped

| Spec | Result | Why |
|---|---|---|
| a | passed |  |
| b | failed | no such feature |

### [sig-node]

0 passed, 0 failed, 1 skipped

| Spec | Result | Why |
|---|---|---|
| c | skipped | two nodes |
";
        assert_eq!(text, expected);
        assert_eq!(merge(&text, &Outcomes::new()), text);
    }
}
