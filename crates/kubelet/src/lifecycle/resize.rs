//! Other limits for what runs. Upstream: `kuberuntime_manager.go` (doPodResizeAction, validateMemoryResizeAction), 1.36.
//!
//! Nobody gets less memory than is in use: the kernel would make it so by killing. At no moment may a part have more of
//! the CPU than the whole (control groups v1 refuse it), and at no moment is the whole without a limit: what lessens goes
//! first, then the whole, then what grows. Deviation: of a container that has too much in use, its own use is told, not
//! the pod's.

use crate::{
    kubelet::Shared,
    plan::{containers, resize::is_outdated},
    runtime::{
        Container as Seen, RuntimeError,
        message::{LinuxContainerResources, MemoryUsage, PodSandboxStats},
    },
    spec::resources,
};
use api::core::v1::Pod;

/// One running container with other limits than its spec asks for.
struct Change<'a> {
    seen: &'a Seen,
    wanted: LinuxContainerResources,
    /// It asks for memory in its own name; if not, it may use what the pod as a whole may.
    has_own_memory: bool,
}

impl Change<'_> {
    fn lessens_cpu(&self) -> bool {
        let now = self.seen.limits.unwrap_or_default();
        limit(self.wanted.cpu_quota) < limit(now.cpu_quota)
    }

    /// Bytes, before and after.
    fn memory(&self) -> (i64, i64) {
        let now = self.seen.limits.unwrap_or_default();
        (limit(now.memory), limit(self.wanted.memory_limit_in_bytes))
    }
}

/// Zero is no limit.
fn limit(it: i64) -> i64 {
    if it > 0 { it } else { i64::MAX }
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
        let has_own_memory = resources::has_memory_limit(container.resources.as_ref());
        is_outdated(pod, &container, seen).then(|| Change {
            seen,
            wanted: wanted(),
            has_own_memory,
        })
    });
    let outdated: Vec<Change<'_>> = outdated.collect();
    let whole = resources::of_pod(pod);
    if outdated.iter().map(Change::memory).any(|(before, after)| after < before) {
        let stats = shared.runtime.stats().await?;
        let of_pod =
            stats.iter().find(|it| it.attributes.as_ref().is_some_and(|it| it.id == sandbox));
        let errors = too_much_in_use(pod, &outdated, whole.memory_limit_in_bytes, of_pod);
        if !errors.is_empty() {
            let errors = match &errors[..] {
                [only] => only.clone(),
                all => format!("[{}]", all.join(", ")),
            };
            let message = format!("cannot decrease memory limits: {errors}");
            return Err(RuntimeError::new("look at the memory in use", message));
        }
    }
    let (less, more): (Vec<_>, Vec<_>) = outdated.into_iter().partition(Change::lessens_cpu);
    for change in less {
        shared.runtime.limit_container(&change.seen.id, change.wanted).await?;
    }
    shared.runtime.limit_sandbox(sandbox, whole).await?;
    for change in more {
        shared.runtime.limit_container(&change.seen.id, change.wanted).await?;
    }
    Ok(())
}

/// Why memory cannot be taken from the containers and from the pod as a whole, in upstream's words.
fn too_much_in_use(
    pod: &Pod,
    outdated: &[Change<'_>],
    whole: i64,
    stats: Option<&PodSandboxStats>,
) -> Vec<String> {
    let linux = stats.and_then(|it| it.linux.as_ref());
    let used = |it: Option<&MemoryUsage>| {
        let bytes = it?.usage_bytes?.value;
        Some(i64::try_from(bytes).unwrap_or(i64::MAX))
    };
    let mut errors = Vec::new();
    if limit(whole) < whole_before(pod, outdated, whole) {
        match used(linux.and_then(|it| it.memory.as_ref())) {
            Some(used) if used < whole => {}
            Some(used) => errors.push(format!(
                "attempting to set pod memory limit ({whole}) below current usage ({used})"
            )),
            None => errors.push("missing pod memory usage".to_owned()),
        }
    }
    for change in outdated {
        let (before, after) = change.memory();
        if after >= before {
            continue;
        }
        let (id, name) = (&change.seen.id, &change.seen.name);
        let mut all = linux.into_iter().flat_map(|it| &it.containers);
        let own = all.find(|it| it.attributes.as_ref().is_some_and(|it| it.id == *id));
        match used(own.and_then(|it| it.memory.as_ref())) {
            Some(used) if used < after => {}
            Some(used) => errors.push(format!(
                "attempting to set container {name:?} memory limit ({after}) below current usage ({used})"
            )),
            None => errors.push(format!("missing container {name:?} memory usage")),
        }
    }
    errors
}

/// What the pod as a whole may use so far, as its containers tell: the runtime does not.
fn whole_before(pod: &Pod, outdated: &[Change<'_>], whole: i64) -> i64 {
    let is_own =
        resources::has_memory_limit(pod.spec.as_ref().and_then(|it| it.resources.as_ref()));
    let mut parts = outdated.iter().filter(|it| !it.has_own_memory || !is_own);
    if is_own {
        // Those that ask for nothing themselves have had as much as the pod.
        return parts.next().map_or(limit(whole), |it| it.memory().0);
    }
    parts
        .map(Change::memory)
        .fold(limit(whole), |sum, (before, after)| sum.saturating_add(before).saturating_sub(after))
}
