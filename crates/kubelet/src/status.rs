//! What the API is told of a pod: computed from the object and from what was observed, and from nothing else.
//!
//! Upstream: `kubelet_pods.go` (generateAPIPodStatus, convertToAPIContainerStatuses, getPhase), `status/generate.go`.

mod conditions;
mod containers;
mod phase;

use crate::plan::containers::List;
use crate::{
    plan::{Memory, Verdict, Waiting},
    runtime::Observed,
};
use api::{
    core::{
        pod,
        v1::{HostIP, Pod, PodIP, PodStatus},
    },
    meta,
};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Why this node ends the pod.
    pub verdict: Option<&'a Verdict>,
    /// Containers run with other limits than the spec asks for.
    pub resizing: bool,
    /// Containers that are being started, until their postStart hooks are over.
    pub starting: &'a BTreeSet<String>,
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
        resize: old.resize.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    let is_end = |it: &str| matches!(it, "Succeeded" | "Failed");
    // Of what never came to this node there is nothing to say.
    let rejected = inputs.verdict.is_some_and(|it| it.rejected)
        || (old.phase.as_deref().is_some_and(is_end) && old.container_statuses.is_none());
    if inputs.observed.is_empty() && rejected {
        (status.host_ip, status.host_ips) = (None, None);
    } else {
        let some = |it: Vec<_>| Some(it).filter(|it| !it.is_empty());
        status.init_container_statuses = some(containers::statuses(inputs, &spec, List::Init));
        let mut all = containers::statuses(inputs, &spec, List::Regular);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        status.container_statuses = Some(all);
        let mut all = containers::statuses(inputs, &spec, List::Ephemeral);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        status.ephemeral_container_statuses = some(all);
    }
    let computed = phase::of(&spec, &status, inputs.ended);
    status.phase = Some(match old.phase.as_deref() {
        // Nothing comes back from the end.
        Some(terminal) if is_end(terminal) => terminal.to_owned(),
        // And it is not the end while something may still run.
        Some(before @ ("Pending" | "Running")) if is_end(computed) && !inputs.ended => {
            before.to_owned()
        }
        Some(_) | None => computed.to_owned(),
    });
    if let Some(verdict) = inputs.verdict
        && inputs.ended
        && !old.phase.as_deref().is_some_and(is_end)
    {
        status.phase = Some("Failed".to_owned());
        status.reason = Some(verdict.reason.to_owned());
        status.message = Some(verdict.message.clone());
    }
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
    // What has ended keeps the address it had, even if nobody was told of it while it ran.
    let had = |it: &&crate::runtime::Sandbox| (it.ready || inputs.ended) && !it.ip.is_empty();
    let seen = inputs.observed.sandbox().filter(had);
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
