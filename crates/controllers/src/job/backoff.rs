//! How long a Job waits before it starts a pod again after others failed.
//!
//! Upstream: `pkg/controller/job/backoff_utils.go` (1.36).

use api::{
    core::{pod::phase, v1::Pod},
    meta,
};
use std::time::Duration;
use stdx::Timestamp;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(600);

/// What is left of the wait, if anything: it doubles with each failure since the last success.
pub(super) fn remaining(pods: &[Pod], now: Timestamp) -> Option<Duration> {
    let ended = |wanted: &'static str| {
        pods.iter().filter(move |it| phase(it) == wanted).filter_map(ended_at)
    };
    let success = ended("Succeeded").max();
    let failures: Vec<Timestamp> =
        ended("Failed").filter(|it| success.is_none_or(|success| *it > success)).collect();
    let last = failures.iter().max()?;
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(10);
    let wait = FIRST.saturating_mul(1 << doublings).min(MOST);
    let left = last.plus(wait).since(now);
    (!left.is_zero()).then_some(left)
}

/// What is left of the wait for a pod's successor where each index waits by itself.
pub(super) fn remaining_after(failures: i32, pod: &Pod, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures).unwrap_or(0).min(10);
    let wait = FIRST.saturating_mul(1 << doublings).min(MOST);
    let left = ended_at(pod)?.plus(wait).since(now);
    (!left.is_zero()).then_some(left)
}

/// When the last of its containers ended.
pub(super) fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
    let ends =
        statuses.filter_map(|it| it.state.as_ref()?.terminated.as_ref()?.finished_at.clone());
    let deleted = pod.metadata.deletion_timestamp.as_ref();
    ends.map(|it| meta::timestamp_of(&it)).max().or_else(|| deleted.map(meta::timestamp_of))
}
