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
    /// Reads what was written; what nobody wrote counts as nothing.
    pub(super) fn read(text: &str) -> Indexes {
        let ranges = text.split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
        });
        Indexes(ranges.flatten().collect())
    }

    pub(super) fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// How many of these are among the others.
    pub(super) fn common(&self, others: &Indexes) -> i32 {
        i32::try_from(self.0.intersection(&others.0).count()).unwrap_or(i32::MAX)
    }

    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }
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
            assert_eq!(Indexes::read(text).to_string(), text);
        }
        assert_eq!(Indexes::read("0-2,5").count(), 4);
    }
}
