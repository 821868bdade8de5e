//! What the API is told of a pod: computed from the object and from what was observed, and from nothing else.
//!
//! Upstream: `kubelet_pods.go` (generateAPIPodStatus, convertToAPIContainerStatuses, getPhase), `status/generate.go`.

mod conditions;
mod containers;
mod phase;

use crate::{
    plan::{Memory, Waiting},
    runtime::Observed,
};
use api::{
    core::{
        pod,
        v1::{HostIP, Pod, PodIP, PodStatus},
    },
    meta,
};
use std::collections::BTreeMap;
use stdx::Timestamp;

/// Everything that a status is made of.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// Container id → what it wrote before it ended.
    pub last_words: &'a BTreeMap<String, String>,
    pub node_address: &'a str,
    /// Every process of the pod has ended, and none will come.
    pub ended: bool,
    pub now: Timestamp,
}

pub fn compute(inputs: &Inputs<'_>) -> PodStatus {
    let pod = inputs.pod;
    let old = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let mut status = PodStatus {
        qos_class: old.qos_class.clone().or_else(|| Some(pod::qos_class(&spec).to_owned())),
        start_time: old.start_time.clone().or_else(|| Some(meta::time(inputs.now))),
        observed_generation: pod.metadata.generation,
        nominated_node_name: old.nominated_node_name.clone(),
        reason: old.reason.clone(),
        message: old.message.clone(),
        host_ip: Some(inputs.node_address.to_owned()),
        host_ips: Some(vec![HostIP { ip: inputs.node_address.to_owned() }]),
        ephemeral_container_statuses: old.ephemeral_container_statuses.clone(),
        resize: old.resize.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    let init = containers::statuses(inputs, &spec, true);
    let mut all = containers::statuses(inputs, &spec, false);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    status.container_statuses = Some(all);
    status.init_container_statuses = Some(init).filter(|it| !it.is_empty());
    let computed = phase::of(&spec, &status, inputs.ended);
    status.phase = Some(match old.phase.as_deref() {
        // Nothing comes back from the end.
        Some(terminal @ ("Succeeded" | "Failed")) => terminal.to_owned(),
        Some(_) | None => computed.to_owned(),
    });
    if inputs.ended {
        containers::end(&mut status, &old);
        if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            status.phase = Some("Failed".to_owned());
        }
    }
    addresses(inputs, &old, &mut status);
    status.conditions = Some(conditions::of(inputs, &spec, &old, &status));
    status
}

fn addresses(inputs: &Inputs<'_>, old: &PodStatus, status: &mut PodStatus) {
    let host_network = inputs.pod.spec.as_ref().is_some_and(|it| it.host_network == Some(true));
    let seen = inputs.observed.sandbox().filter(|it| it.ready && !it.ip.is_empty());
    let address = match (host_network, seen) {
        (true, _) => Some(inputs.node_address.to_owned()),
        (false, Some(sandbox)) => Some(sandbox.ip.clone()),
        // It stays readable who it was.
        (false, None) if inputs.ended => old.pod_ip.clone(),
        (false, None) => None,
    };
    status.pod_ips = address.clone().map(|ip| vec![PodIP { ip }]);
    status.pod_ip = address;
}
