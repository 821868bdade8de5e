//! Requests and limits as the kernel wants them; cgroups by quality of service.
//!
//! Upstream: `pkg/kubelet/cm/helpers_linux.go`, `kuberuntime_container_linux.go`, `pkg/kubelet/qos/policy.go`.

use super::Facts;
use crate::runtime::{Limits, message::LinuxContainerResources};
use api::{
    Object,
    core::{
        pod,
        v1::{Container, Pod, ResourceRequirements},
    },
    meta::Exact,
};

const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
/// 100 ms: the kernel's default period.
const PERIOD_MICROS: i64 = 100_000;
/// The kernel refuses less than 1 ms.
const QUOTA_MICROS_MIN: i64 = 1000;

const GUARANTEED_OOM: i64 = -997;
const BEST_EFFORT_OOM: i64 = 1000;

/// What one container may use.
pub fn of_container(pod: &Pod, container: &Container, facts: &Facts) -> LinuxContainerResources {
    let limits = limits_of(pod, container);
    LinuxContainerResources {
        cpu_period: PERIOD_MICROS,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory,
        oom_score_adj: oom_score_adjust(pod, container, facts),
        ..LinuxContainerResources::default()
    }
}

/// The part of it that can change while it runs.
pub fn limits_of(pod: &Pod, container: &Container) -> Limits {
    let whole = pod.spec.as_ref().and_then(|it| it.resources.as_ref());
    let resources = container.resources.as_ref();
    let limit = |name: &str| {
        amount(resources, name, true).or_else(|| amount(whole, name, true)).unwrap_or_default()
    };
    let cpu_limit = limit("cpu").milli();
    let cpu_request = amount(resources, "cpu", false).map_or(cpu_limit, Exact::milli);
    Limits {
        cpu_quota: quota(cpu_limit),
        cpu_shares: shares(cpu_request),
        memory: limit("memory").units(),
    }
}

pub(crate) fn has_memory_limit(resources: Option<&ResourceRequirements>) -> bool {
    amount(resources, "memory", true).is_some()
}

/// What the whole pod may use: limits only if every container has one.
pub fn of_pod(pod: &Pod) -> LinuxContainerResources {
    let Some(spec) = &pod.spec else { return LinuxContainerResources::default() };
    let (requests, limits) = (pod::requests(spec), pod::limits(spec));
    let limited = |name: &str| {
        let each =
            spec.containers.iter().all(|it| amount(it.resources.as_ref(), name, true).is_some());
        let whole = amount(spec.resources.as_ref(), name, true).is_some();
        let all = (each && !spec.containers.is_empty()) || whole;
        limits.get(name).copied().filter(|_| all).unwrap_or_default()
    };
    LinuxContainerResources {
        cpu_period: PERIOD_MICROS,
        cpu_quota: quota(limited("cpu").milli()),
        cpu_shares: shares(requests.get("cpu").copied().unwrap_or_default().milli()),
        memory_limit_in_bytes: limited("memory").units(),
        ..LinuxContainerResources::default()
    }
}

/// `/stanchion-1a2b/kubepods/burstable/pod<uid>`; guaranteed pods lie one level higher.
pub fn cgroup_parent(pod: &Pod, facts: &Facts) -> String {
    let class = pod.spec.as_ref().map_or("BestEffort", pod::qos_class);
    let root = facts.cgroup_root.trim_end_matches('/');
    match class {
        "Guaranteed" => format!("{root}/kubepods/pod{}", pod.uid()),
        class => format!("{root}/kubepods/{}/pod{}", class.to_lowercase(), pod.uid()),
    }
}

fn oom_score_adjust(pod: &Pod, container: &Container, facts: &Facts) -> i64 {
    let critical = pod.spec.as_ref().and_then(|it| it.priority_class_name.as_deref());
    if critical == Some("system-node-critical") {
        return GUARANTEED_OOM;
    }
    match pod.spec.as_ref().map_or("BestEffort", pod::qos_class) {
        "Guaranteed" => GUARANTEED_OOM,
        "BestEffort" => BEST_EFFORT_OOM,
        _ => {
            let request = amount(container.resources.as_ref(), "memory", false).unwrap_or_default();
            let score = 1000 - 1000 * request.units() / facts.memory_bytes.max(1);
            // Above guaranteed pods, below best-effort ones.
            score.clamp(1000 + GUARANTEED_OOM, BEST_EFFORT_OOM - 1)
        }
    }
}

fn amount(resources: Option<&ResourceRequirements>, name: &str, limit: bool) -> Option<Exact> {
    let resources = resources?;
    let list = if limit { &resources.limits } else { &resources.requests };
    list.as_ref()?.get(name).map(Exact::of).filter(|it| !limit || *it > Exact::ZERO)
}

fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// Zero: as much as there is.
fn quota(milli: i64) -> i64 {
    match milli {
        0 => 0,
        milli => (milli.saturating_mul(PERIOD_MICROS) / 1000).max(QUOTA_MICROS_MIN),
    }
}
