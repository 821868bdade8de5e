//! Which specs run beside each other: most of them, each process with a list of its own; the rest alone.

/// Marks of specs that change what others stand on.
const ALONE: [&str; 2] = ["[Serial]", "[Disruptive]"];

/// Specs with claims of 10Gi each: few disks have room for those of several at a time.
const IN_TURN: &str = "[sig-apps] StatefulSet";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shards {
    /// A list for each process that has one.
    pub(super) together: Vec<Vec<String>>,
    /// For one process, when the others have ended.
    pub(super) alone: Vec<String>,
}

/// Neighbours, which take alike long, go to different processes.
pub(super) fn plan<'a>(names: impl Iterator<Item = &'a String>, processes: usize) -> Shards {
    let (alone, rest): (Vec<String>, Vec<String>) =
        names.cloned().partition(|name| ALONE.iter().any(|mark| name.contains(mark)));
    let (large, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|it| it.starts_with(IN_TURN));
    let spread = processes.saturating_sub(usize::from(!large.is_empty())).max(1);
    let mut together = vec![Vec::new(); spread];
    for (number, name) in rest.into_iter().enumerate() {
        together[number % spread].push(name);
    }
    match processes {
        0 | 1 => together[0].extend(large),
        _ => together.push(large),
    }
    together.retain(|it| !it.is_empty());
    Shards { together, alone }
}

/// What `--focus` is to be for exactly these specs.
pub(super) fn regex(names: &[String]) -> String {
    let exact = |name: &String| {
        let mut regex = String::with_capacity(name.len() * 2);
        for letter in name.chars() {
            if letter.is_ascii_punctuation() {
                regex.push('\\');
            }
            regex.push(letter);
        }
        format!("{regex}$")
    };
    names.iter().map(exact).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_runs_once_and_serial_ones_alone() {
        let names = ["a", "b [Serial]", "c", "d", "e [Disruptive]"].map(str::to_owned);
        let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let shards = plan(names.iter(), 2);
        assert_eq!(shards.together, [list(&["a", "d"]), list(&["c"])]);
        assert_eq!(shards.alone, list(&["b [Serial]", "e [Disruptive]"]));
        assert_eq!(plan(names.iter(), 9).together.len(), 3);
        let large =
            ["[sig-apps] StatefulSet x", "[sig-apps] StatefulSet y", "z"].map(str::to_owned);
        let shards = plan(large.iter(), 4).together;
        assert_eq!(
            shards,
            [list(&["z"]), list(&["[sig-apps] StatefulSet x", "[sig-apps] StatefulSet y"])]
        );
        assert_eq!(plan(large.iter(), 1).together.len(), 1);
    }

    #[test]
    fn a_name_stands_for_itself_to_its_end() {
        let names = ["[sig-a] *not* (x)", "b"].map(str::to_owned);
        assert_eq!(regex(&names), r"\[sig\-a\] \*not\* \(x\)$|b$");
    }
}
