//! The completions of an indexed Job that are done: `0-2,5`.
//!
//! Upstream: `pkg/controller/job/indexed_job_utils.go` (1.36).

use api::{Object, batch::job::INDEX, core::v1::Pod};
use std::{collections::BTreeSet, fmt};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Indexes(BTreeSet<i32>);

/// Which completion a pod works for.
pub(super) fn of(pod: &Pod) -> Option<i32> {
    pod.annotation(INDEX)?.parse().ok()
}

impl Indexes {
    /// Reads what was written of the indexes below `completions`; what nobody wrote counts as nothing.
    pub(super) fn read(text: &str, completions: i32) -> Indexes {
        Indexes(ranges(text).flat_map(|(first, last)| first..=last.min(completions - 1)).collect())
    }

    pub(super) fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// How many indexes a text names, and how many of them are among these. The text is a user's: its ranges may be
    /// very long.
    pub(super) fn named(&self, text: &str) -> (usize, usize) {
        let each = ranges(text).map(|(first, last)| {
            let named = usize::try_from(last.abs_diff(first)).unwrap_or(usize::MAX);
            (named.saturating_add(1), self.0.range(first..=last).count())
        });
        each.fold((0, 0), |all, it| (all.0.saturating_add(it.0), all.1 + it.1))
    }

    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }
}

fn ranges(text: &str) -> impl Iterator<Item = (i32, i32)> {
    let all = text.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    all.filter(|(first, last)| 0 <= *first && first <= last)
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = all.next() {
            let mut last = first;
            while all.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                1 => write!(f, "{separator}{first},{last}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_written_as_ranges_and_read_back() {
        for text in ["", "0", "0-2,5", "1,3-9,11,12"] {
            assert_eq!(Indexes::read(text, 13).to_string(), text);
        }
        assert_eq!(Indexes::read("0-2,5", 6).count(), 4);
        assert_eq!(Indexes::read("0-2,5", 2).to_string(), "0,1", "those there are no more");
        assert_eq!(Indexes::read("7-2147483647", 9).to_string(), "7,8");
        let done = Indexes::read("0-2,5", 6);
        assert_eq!(done.named("1-3,5"), (4, 3));
        assert_eq!(done.named("0-2147483646"), (2147483647, 4));
        assert_eq!(done.named("3-1,-2,x"), (0, 0));
    }
}
