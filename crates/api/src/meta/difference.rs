//! What changed between two values, line by line: the tail of upstream's immutability errors.
//!
//! Upstream: `apimachinery/pkg/util/diff` (a unified diff of indented JSON, three lines around).

use serde::Serialize;

/// Lines shown around a change.
const AROUND: usize = 3;
/// Longer values are not compared: the table of common lines grows with the square.
const LINES_MOST: usize = 2000;

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Same,
    Gone,
    New,
}

/// A unified diff of the values as indented JSON; empty if they are equal, or too long to compare.
pub(crate) fn difference<T: Serialize>(old: &T, new: &T) -> String {
    let (old, new) = (indented(old), indented(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old.len() > LINES_MOST || new.len() > LINES_MOST {
        return String::new();
    }
    let lines = compared(&old, &new);
    let mut out = String::new();
    let (mut at, mut old_line, mut new_line) = (0, 1, 1);
    while let Some(next) = lines[at..].iter().position(|it| it.0 != Line::Same) {
        let start = at + next.saturating_sub(AROUND);
        old_line += start - at;
        new_line += start - at;
        let end = end_of_hunk(&lines, at + next);
        let hunk = &lines[start..end];
        let count = |not: Line| hunk.iter().filter(|it| it.0 != not).count();
        let (olds, news) = (count(Line::New), count(Line::Gone));
        out.push_str(&format!("@@ -{old_line},{olds} +{new_line},{news} @@\n"));
        for (kind, text) in hunk {
            let mark = match kind {
                Line::Same => ' ',
                Line::Gone => '-',
                Line::New => '+',
            };
            out.push_str(&format!("{mark}{text}\n"));
        }
        (at, old_line, new_line) = (end, old_line + olds, new_line + news);
    }
    out
}

/// A hunk ends where more lines are the same than two changes share around them.
fn end_of_hunk(lines: &[(Line, &str)], first: usize) -> usize {
    let mut last = first;
    for (n, (kind, _)) in lines.iter().enumerate().skip(first) {
        if *kind != Line::Same {
            last = n;
        } else if n - last > 2 * AROUND {
            break;
        }
    }
    (last + AROUND + 1).min(lines.len())
}

/// The longest common lines, as a list of steps from old to new.
fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Line, &'a str)> {
    let mut common = vec![vec![0u16; new.len() + 1]; old.len() + 1];
    for (i, line) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            common[i][j] = match line == other {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            out.push((Line::Same, old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            out.push((Line::Gone, old[i]));
            i += 1;
        } else {
            out.push((Line::New, new[j]));
            j += 1;
        }
    }
    out
}

fn indented<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_vec(value).expect("API objects are plain data");
    let value: serde_json::Value =
        serde_json::from_slice(&json).expect("what was just written can be read");
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).expect("a document is plain data");
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_changed_lines_with_three_around() {
        let old = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6});
        let new = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 7, "f": 6});
        assert_eq!(
            difference(&old, &new),
            "@@ -3,6 +3,6 @@\n  \"b\": 2,\n  \"c\": 3,\n  \"d\": 4,\n- \"e\": 5,\n+ \"e\": 7,\n  \"f\": 6\n }\n"
        );
        assert_eq!(difference(&old, &old), "");
    }
}
