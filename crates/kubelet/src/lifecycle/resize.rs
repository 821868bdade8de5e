//! Other limits for what runs. Upstream: `kuberuntime_manager.go` (doPodResizeAction), 1.36.
//!
//! At no moment may a part have more of the CPU than the whole (control groups v1 refuse it), and at no moment is the
//! whole without a limit: what lessens goes first, then the whole, then what grows.

use crate::{
    kubelet::Shared,
    plan::{containers, resize::is_outdated},
    runtime::{Container as Seen, RuntimeError, message::LinuxContainerResources},
    spec::resources,
};
use api::core::v1::Pod;

/// One running container with other limits than its spec asks for.
struct Change<'a> {
    seen: &'a Seen,
    wanted: LinuxContainerResources,
}

impl Change<'_> {
    fn lessens_cpu(&self) -> bool {
        let quota = |it: i64| if it > 0 { it } else { i64::MAX };
        let now = self.seen.limits.unwrap_or_default();
        quota(self.wanted.cpu_quota) < quota(now.cpu_quota)
    }
}

/// Gives every running container of the pod, and the pod as a whole, what its spec asks for now.
pub(crate) async fn resize(
    shared: &Shared,
    pod: &Pod,
    sandbox: &str,
    running: &[Seen],
) -> Result<(), RuntimeError> {
    let outdated = running.iter().filter_map(|seen| {
        let container = containers::named(pod, &seen.name)?;
        let wanted = || resources::of_container(pod, &container, &shared.facts);
        is_outdated(pod, &container, seen).then(|| Change { seen, wanted: wanted() })
    });
    let (less, more): (Vec<_>, Vec<_>) = outdated.partition(Change::lessens_cpu);
    for change in less {
        shared.runtime.limit_container(&change.seen.id, change.wanted).await?;
    }
    shared.runtime.limit_sandbox(sandbox, resources::of_pod(pod)).await?;
    for change in more {
        shared.runtime.limit_container(&change.seen.id, change.wanted).await?;
    }
    Ok(())
}
