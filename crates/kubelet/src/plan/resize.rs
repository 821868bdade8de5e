//! Other requests and limits for containers that run.
//!
//! What a container may use is read from the runtime and compared with what the spec asks for: nothing is remembered.
//! Upstream: `kuberuntime_manager.go` (computePodResizeAction), `pkg/kubelet/allocation` (1.36). Deviation: while a resize
//! waits for room, a container that has to be restarted already gets what was asked for.

use crate::{
    runtime::{Container as Seen, Limits, State},
    spec::resources::limits_of,
};
use api::{
    Object,
    core::{
        node::allocatable,
        pod::{Amounts, requests},
        v1::{Container, Node, Pod},
    },
    k8s::apimachinery::pkg::api::resource::Quantity,
    meta::Exact,
};
use std::collections::BTreeMap;

/// Why a resize waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `Infeasible` or `Deferred`.
    pub reason: &'static str,
    pub message: String,
}

/// Whether the container runs with other limits than its spec asks for.
pub fn is_outdated(pod: &Pod, container: &Container, seen: &Seen) -> bool {
    seen.state == State::Running && seen.limits.is_some_and(|it| it != limits_of(pod, container))
}

/// Whether that needs a new run of it.
pub(super) fn restarts(pod: &Pod, container: &Container, now: Limits) -> bool {
    let wanted = limits_of(pod, container);
    let cpu = (now.cpu_shares, now.cpu_quota) != (wanted.cpu_shares, wanted.cpu_quota);
    let memory = now.memory != wanted.memory;
    container.resize_policy.iter().flatten().any(|it| {
        it.restart_policy == "RestartContainer"
            && match it.resource_name.as_str() {
                "cpu" => cpu,
                "memory" => memory,
                _ => false,
            }
    })
}

/// Whether the spec asks for other amounts than the node has set aside, as the status tells them.
pub fn is_unallocated(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let all = status.map(|it| [&it.init_container_statuses, &it.container_statuses]);
    let of = |name: &str| {
        let all = all.into_iter().flatten().flatten().flatten();
        all.into_iter().find(|it| it.name == name && it.container_id.is_some())
    };
    let containers = pod
        .spec
        .iter()
        .flat_map(|it| it.containers.iter().chain(it.init_containers.iter().flatten()));
    let mut known = containers.filter_map(|it| Some((it, of(&it.name)?)));
    known.any(|(container, status)| {
        let wanted = container.resources.as_ref().and_then(|it| it.requests.as_ref());
        exact(wanted) != exact(status.allocated_resources.as_ref())
    })
}

fn exact(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    list.into_iter().flatten().map(|(name, it)| (name.clone(), Exact::of(it))).collect()
}

/// Whether the node has room for what the spec asks for now.
pub fn judge(pod: &Pod, node: &Node, others: &[&Pod]) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let has = allocatable(node);
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or_default();
    for (name, wanted) in
        requests(spec).into_iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
    {
        let number = |it: Exact| if name == "cpu" { it.milli() } else { it.units() };
        let capacity = of(&has, &name);
        if wanted > capacity {
            let (wanted, capacity) = (number(wanted), number(capacity));
            let message = format!(
                "Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"
            );
            return Err(Refusal { reason: "Infeasible", message });
        }
        let taken = others.iter().filter(|it| it.uid() != pod.uid());
        let taken = taken.filter_map(|it| it.spec.as_ref()).map(|it| of(&requests(it), &name));
        let used = taken.fold(Exact::ZERO, |sum, it| sum + it);
        if wanted > capacity - used {
            let (wanted, used, capacity) = (number(wanted), number(used), number(capacity));
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
            );
            return Err(Refusal { reason: "Deferred", message });
        }
    }
    Ok(())
}
