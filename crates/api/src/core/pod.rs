//! `v1` Pod: containers that share a node, an address and volumes.
//!
//! Upstream: `pkg/registry/core/pod/strategy.go`.

mod condition;
mod defaults;
mod ephemeral;
mod labels;
mod print;
pub mod references;
mod resources;
mod restart;
mod sources;
mod toleration;
mod validate;
mod warnings;

pub use condition::{
    condition, is_available, is_ready, is_scheduled, is_terminal, node_name, phase, set_condition,
};
pub use defaults::default_spec;
pub use ephemeral::as_container;
pub use resources::{Amounts, limits, qos_class, requests};
pub use restart::{may_restart_all, restarts, restarts_all};
pub use toleration::tolerates;
pub(crate) use validate::{validate_overhead, validate_template, validate_tolerations};
pub(crate) use warnings::{fraction, of_template as template_warnings, of_term};

use crate::{
    batch::job,
    field::Errors,
    k8s::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus},
    kind::{Column, Kind, Names, Object, Scope, Subresource},
    meta::{
        absent::{list, omit_zero, same, text},
        next_generation,
    },
};

/// The Job that keeps a pod until it is counted: its controller, or what its label says where that is gone.
fn counted_by(pod: &Pod) -> Option<&str> {
    if !pod.has_finalizer(job::TRACKING) {
        return None;
    }
    let mut owners = pod.metadata.owner_references.iter().flatten();
    match owners.find(|it| it.controller == Some(true)) {
        Some(it) => (it.kind == "Job").then_some(&it.name),
        None => pod.label(job::NAME_LABEL),
    }
}

/// The index of pods that have ended, in the order in which they may be cleared away.
pub const ENDED: &str = "ended";

/// What was evicted goes first, then the oldest. Upstream: `pkg/controller/podgc`, byEvictionAndCreationTimestamp.
fn turn_to_go(pod: &Pod) -> String {
    let is_evicted = pod.status.as_ref().is_some_and(|it| it.reason.as_deref() == Some("Evicted"));
    let turn = if is_evicted { 0 } else { 1 };
    let created = pod.metadata.creation_timestamp.as_ref();
    let created = created.map(|it| crate::meta::timestamp_of(it).rfc3339()).unwrap_or_default();
    format!("{turn} {created}")
}

impl Kind for Pod {
    const NAMES: Names =
        Names { plural: "pods", singular: "pod", short: &["po"], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/pods";
    const SUBRESOURCES: &'static [Subresource] = &[
        Subresource::Status,
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Log,
        Subresource::Exec,
        Subresource::Attach,
        Subresource::PortForward,
        Subresource::EphemeralContainers,
        Subresource::Resize,
        Subresource::Proxy,
    ];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<Pod>] = print::COLUMNS;

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_spec(spec);
        defaults::default_pod(spec);
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
        labels::merge(self);
        let spec = self.spec.get_or_insert_default();
        self.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos_class(spec).to_owned()),
            ..PodStatus::default()
        });
        if !list(&spec.scheduling_gates).is_empty() {
            let conditions = self.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.push(PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: Some("SchedulingGated".to_owned()),
                message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
                ..PodCondition::default()
            });
        }
    }

    fn prepare_update(&mut self, old: &Pod) {
        self.status.clone_from(&old.status);
        // To be given a node is no change that anybody asked for.
        let mut before = old.spec.clone();
        if let (Some(before), false) = (&mut before, is_scheduled(old)) {
            before.node_name = self.spec.as_ref().and_then(|it| it.node_name.clone());
        }
        let changed = !same(&self.spec, &before);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &Pod) {
        self.spec.clone_from(&old.spec);
        // A node's word on the status must neither start a deletion nor change owners.
        self.metadata.owner_references.clone_from(&old.metadata.owner_references);
        self.metadata.deletion_timestamp.clone_from(&old.metadata.deletion_timestamp);
        let of_old = old.status.as_ref().and_then(|it| it.qos_class.clone());
        let status = self.status.get_or_insert_default();
        if text(&status.qos_class).is_empty() {
            status.qos_class = of_old;
        }
        keep_generations(status, old.status.as_ref());
    }

    fn prepare_part(&mut self, part: Subresource, old: &Pod) {
        self.status.clone_from(&old.status);
        validate::keep_all_but(part, self, old);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate::validate_create(self, errors);
    }

    fn validate_part(&self, part: Subresource, old: &Pod, errors: &mut Errors) {
        validate::validate_part(part, self, old, errors);
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_update(&self, old: &Pod, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_status(&self, old: &Pod, errors: &mut Errors) {
        validate::validate_status(self, old, errors);
    }

    /// Only about new pods: who changes one is a loop, mostly.
    fn warnings(&self, old: Option<&Pod>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { warnings::of_pod(self) }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        // Also of a pod without a spec: the labels are the same.
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let of_spec =
            |it: fn(&PodSpec) -> &Option<String>| spec.map_or("", |spec| text(it(spec))).to_owned();
        let ip = status.and_then(|it| list(&it.pod_ips).first()).map_or("", |it| it.ip.as_str());
        let nominated = status.map_or("", |it| text(&it.nominated_node_name));
        vec![
            ("spec.nodeName", node_name(self).to_owned()),
            ("spec.restartPolicy", of_spec(|it| &it.restart_policy)),
            ("spec.schedulerName", of_spec(|it| &it.scheduler_name)),
            ("spec.serviceAccountName", of_spec(|it| &it.service_account_name)),
            ("spec.hostNetwork", spec.and_then(|it| it.host_network).unwrap_or(false).to_string()),
            ("status.phase", phase(self).to_owned()),
            ("status.podIP", ip.to_owned()),
            ("status.nominatedNodeName", nominated.to_owned()),
        ]
    }

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        let namespace = self.namespace();
        let claims = claims(self).into_iter();
        let mut keys: Vec<_> =
            claims.map(|(_, claim)| ("claim", format!("{namespace}/{claim}"))).collect();
        keys.push(("node", node_name(self).to_owned()));
        let mut owners = self.metadata.owner_references.iter().flatten();
        if !owners.any(|it| it.controller == Some(true)) {
            keys.push(("orphan", namespace.to_owned()));
        }
        keys.extend(addresses(self).into_iter().map(|it| ("address", it.to_owned())));
        if let Some(job) = counted_by(self) {
            keys.push(("job", format!("{namespace}/{job}")));
        }
        if is_terminal(self) {
            keys.push((ENDED, turn_to_go(self)));
        }
        if has_anti_affinity(self) {
            keys.push(("anti-affinity", "required".to_owned()));
        }
        if !is_scheduled(self) && is_refused(self) && needs_pods(self) {
            keys.push(("needs-pods", "refused".to_owned()));
        }
        keys
    }

    /// A binding: the node is set once, by whoever decides where pods go.
    fn validate_both(&self, old: &Pod, errors: &mut crate::Errors) {
        let mut old = old.clone();
        if !is_scheduled(&old) {
            let node = self.spec.as_ref().and_then(|it| it.node_name.clone());
            old.spec.get_or_insert_default().node_name = node;
        }
        self.validate_update(&old, errors);
    }

    fn deletion_grace(&self, asked: Option<i64>) -> Option<i64> {
        let of_spec = || self.spec.as_ref()?.termination_grace_period_seconds;
        if !is_scheduled(self) || is_terminal(self) {
            return Some(0);
        }
        // A negative period means the shortest one.
        match asked.or_else(of_spec).unwrap_or(30) {
            negative if negative < 0 => Some(1),
            seconds => Some(seconds),
        }
    }
}

/// A node that does not say which generation it looked at does not take back what was said before.
fn keep_generations(status: &mut PodStatus, old: Option<&PodStatus>) {
    omit_zero(&mut status.observed_generation);
    let Some(old) = old else { return };
    status.observed_generation = status.observed_generation.or(old.observed_generation);
    let mut before: Vec<&PodCondition> = list(&old.conditions).iter().collect();
    for condition in status.conditions.iter_mut().flatten() {
        omit_zero(&mut condition.observed_generation);
        let at = before.iter().position(|it| it.type_ == condition.type_);
        let was = at.and_then(|at| before.remove(at).observed_generation);
        condition.observed_generation = condition.observed_generation.or(was);
    }
}

/// The pod's addresses, each once.
pub fn addresses(pod: &Pod) -> Vec<&str> {
    let status = pod.status.iter();
    let all = status.flat_map(|it| it.pod_ips.iter().flatten().map(|it| &it.ip).chain(&it.pod_ip));
    let mut all: Vec<&str> = all.map(String::as_str).filter(|it| !it.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether the pod must be kept apart from others.
fn has_anti_affinity(pod: &Pod) -> bool {
    let affinity = || pod.spec.as_ref()?.affinity.as_ref()?.pod_anti_affinity.as_ref();
    let required = affinity();
    let required =
        required.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_some_and(|it| !it.is_empty())
}

/// Whether some scheduler has found no node for the pod.
fn is_refused(pod: &Pod) -> bool {
    condition(pod, "PodScheduled").is_some_and(|it| it.status == "False")
}

/// Whether a pod that comes may open a node to this one: it wants company, or that others are spread evenly.
fn needs_pods(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let together = spec.affinity.as_ref().and_then(|it| it.pod_affinity.as_ref());
    let together =
        together.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let mut spread = spec.topology_spread_constraints.iter().flatten();
    together.is_some_and(|it| !it.is_empty())
        || spread.any(|it| it.when_unsatisfiable == "DoNotSchedule")
}

/// The claims that the pod uses, by the name of its volume: (volume, claim). A generic ephemeral
/// volume `data` of the pod `p` has the claim `p-data`.
pub fn claims(pod: &Pod) -> Vec<(&str, String)> {
    let volumes = pod.spec.iter().filter_map(|it| it.volumes.as_ref()).flatten();
    let named = volumes.filter_map(|volume| {
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => source.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", pod.name(), volume.name),
            (None, None) => return None,
        };
        Some((volume.name.as_str(), claim))
    });
    named.collect()
}
