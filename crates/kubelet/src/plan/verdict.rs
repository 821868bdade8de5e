//! Why this node ends a pod, or never lets it begin.
//!
//! Upstream: `pkg/kubelet/active_deadline.go`, `kubelet.go` (rejectPod), 1.36.

use api::{core::v1::Pod, meta};
use std::time::Duration;
use stdx::Timestamp;

/// A pod under a verdict is taken down, and its phase becomes `Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `DeadlineExceeded`, `OutOfcpu`, `Terminated`, …
    pub reason: &'static str,
    pub message: String,
    /// It never ran here: its containers have no status.
    pub rejected: bool,
    /// How long its processes may take to end; `None`: as long as the pod says.
    pub grace_seconds: Option<i64>,
    /// For the sake of the node: the pod's condition DisruptionTarget says so.
    pub disrupts: bool,
}

impl Verdict {
    /// As upstream words a pod that its node does not take.
    pub fn rejected(reason: &'static str, why: impl std::fmt::Display) -> Verdict {
        Verdict {
            reason,
            message: format!("Pod was rejected: {why}"),
            rejected: true,
            grace_seconds: None,
            disrupts: false,
        }
    }

    /// What the event about it says.
    pub fn event(&self) -> &str {
        self.message.strip_prefix("Pod was rejected: ").unwrap_or(&self.message)
    }

    pub fn deadline_exceeded() -> Verdict {
        Verdict {
            reason: "DeadlineExceeded",
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
            rejected: false,
            grace_seconds: None,
            disrupts: false,
        }
    }
}

/// When the pod has been active for as long as it may be.
pub fn active_until(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?;
    Some(meta::timestamp_of(start).plus(Duration::from_secs(seconds.max(0).unsigned_abs())))
}
