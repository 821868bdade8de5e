//! How upstream names pods and durations in its messages.

use api::{Object, core::v1::Pod};
use std::time::Duration;

/// `web-0_default(7c9e…)`. Upstream: `kubelet/util/format/pod.go`.
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}

/// `10s`, `1m20s`, `5m0s`: as Go prints a duration of whole seconds.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
