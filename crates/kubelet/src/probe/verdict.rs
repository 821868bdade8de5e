//! From single checks to a verdict: thresholds.

use api::core::v1;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) success_threshold: u32,
    pub(crate) failure_threshold: u32,
}

impl Timing {
    pub(crate) fn of(probe: &v1::Probe) -> Timing {
        let seconds = |it: Option<i32>, default: u32| {
            let seconds = it.and_then(|it| u32::try_from(it).ok()).filter(|it| *it > 0);
            Duration::from_secs(u64::from(seconds.unwrap_or(default)))
        };
        let count = |it: Option<i32>, default: u32| {
            it.and_then(|it| u32::try_from(it).ok()).filter(|it| *it > 0).unwrap_or(default)
        };
        Timing {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }
}

/// The checks so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    last: Option<bool>,
    run: u32,
    told: Option<bool>,
}

impl Verdict {
    /// Counts one check; the verdict if this check changed it.
    pub(crate) fn observe(&mut self, success: bool, timing: &Timing) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { timing.success_threshold } else { timing.failure_threshold };
        if self.run < threshold || self.told == Some(success) {
            return None;
        }
        self.told = Some(success);
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_when_a_threshold_is_reached_and_only_then() {
        let timing = Timing {
            success_threshold: 2,
            failure_threshold: 3,
            ..Timing::of(&v1::Probe::default())
        };
        let mut verdict = Verdict::default();
        let checks = "+-++--+---+-++";
        let told: Vec<Option<bool>> =
            checks.bytes().map(|it| verdict.observe(it == b'+', &timing)).collect();
        let spoken: Vec<(usize, bool)> =
            told.iter().enumerate().filter_map(|(n, it)| it.map(|it| (n, it))).collect();
        assert_eq!(spoken, [(3, true), (9, false), (13, true)]);
    }

    #[test]
    fn a_probe_without_numbers_has_upstreams() {
        let timing = Timing::of(&v1::Probe::default());
        assert_eq!((timing.period.as_secs(), timing.timeout.as_secs()), (10, 1));
        assert_eq!((timing.success_threshold, timing.failure_threshold), (1, 3));
    }
}
