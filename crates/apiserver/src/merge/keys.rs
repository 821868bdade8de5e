//! How a strategic merge patch treats each field, as data: lists are replaced, objects merged, except
//! where this table says otherwise. The facts are those of the API's types.
//!
//! Upstream: the `patchStrategy` and `patchMergeKey` tags in `staging/src/k8s.io/api/*/*/types.go`.

/// What happens to a field that is on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Objects are merged, lists replaced.
    Plain,
    /// Items are merged by the value of this field of theirs.
    ByKey(&'static str),
    /// As `ByKey`; writers also name the fields of an item that stay.
    ByKeyRetaining(&'static str),
    /// A list of texts or numbers: what is new is added.
    Set,
    /// An object whose writers name the fields that stay.
    Retaining,
    /// An object that is replaced whole.
    Replaced,
}

/// One field of one type of the API, and the type of what is in it (of an item, in a list).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) of: &'static str,
    pub(crate) name: &'static str,
    pub(crate) treatment: Treatment,
    pub(crate) inside: &'static str,
}

const fn row(
    of: &'static str,
    name: &'static str,
    treatment: Treatment,
    inside: &'static str,
) -> Field {
    Field { of, name, treatment, inside }
}

use Treatment::{ByKey, ByKeyRetaining, Plain, Replaced, Retaining, Set};

/// A type that the table says nothing about.
pub(crate) const UNKNOWN: &str = "";

/// Sorted by type and field. Roots are named like their kinds.
pub(crate) const FIELDS: &[Field] = &[
    row("CSINode", "spec", Plain, "CSINodeSpec"),
    row("CSINodeSpec", "drivers", ByKey("name"), UNKNOWN),
    row("Container", "env", ByKey("name"), UNKNOWN),
    row("Container", "ports", ByKey("containerPort"), UNKNOWN),
    row("Container", "volumeDevices", ByKey("devicePath"), UNKNOWN),
    row("Container", "volumeMounts", ByKey("mountPath"), UNKNOWN),
    row("ContainerStatus", "allocatedResourcesStatus", ByKey("name"), UNKNOWN),
    row("ContainerStatus", "volumeMounts", ByKey("mountPath"), UNKNOWN),
    row("CronJob", "spec", Plain, "CronJobSpec"),
    row("CronJobSpec", "jobTemplate", Plain, "JobTemplate"),
    row("DaemonSet", "spec", Plain, "TemplatedSpec"),
    row("DaemonSet", "status", Plain, "StatusWithConditions"),
    row("Deployment", "spec", Plain, "DeploymentSpec"),
    row("Deployment", "status", Plain, "StatusWithConditions"),
    row("DeploymentSpec", "strategy", Retaining, UNKNOWN),
    row("DeploymentSpec", "template", Plain, "PodTemplate"),
    row("Job", "spec", Plain, "TemplatedSpec"),
    row("Job", "status", Plain, "StatusWithConditions"),
    row("JobTemplate", "metadata", Plain, "ObjectMeta"),
    row("JobTemplate", "spec", Plain, "TemplatedSpec"),
    row("Namespace", "status", Plain, "StatusWithConditions"),
    row("Node", "spec", Plain, "NodeSpec"),
    row("Node", "status", Plain, "NodeStatus"),
    row("NodeSpec", "podCIDRs", Set, UNKNOWN),
    row("NodeStatus", "addresses", ByKey("type"), UNKNOWN),
    row("NodeStatus", "conditions", ByKey("type"), UNKNOWN),
    row("ObjectMeta", "finalizers", Set, UNKNOWN),
    row("ObjectMeta", "ownerReferences", ByKey("uid"), UNKNOWN),
    row("PersistentVolumeClaim", "status", Plain, "StatusWithConditions"),
    row("Pod", "spec", Plain, "PodSpec"),
    row("Pod", "status", Plain, "PodStatus"),
    row("PodDisruptionBudget", "spec", Plain, "PodDisruptionBudgetSpec"),
    row("PodDisruptionBudget", "status", Plain, "StatusWithConditions"),
    row("PodDisruptionBudgetSpec", "selector", Replaced, UNKNOWN),
    row("PodSpec", "containers", ByKey("name"), "Container"),
    row("PodSpec", "ephemeralContainers", ByKey("name"), "Container"),
    row("PodSpec", "hostAliases", ByKey("ip"), UNKNOWN),
    row("PodSpec", "imagePullSecrets", ByKey("name"), UNKNOWN),
    row("PodSpec", "initContainers", ByKey("name"), "Container"),
    row("PodSpec", "resourceClaims", ByKeyRetaining("name"), UNKNOWN),
    row("PodSpec", "schedulingGates", ByKey("name"), UNKNOWN),
    row("PodSpec", "topologySpreadConstraints", ByKey("topologyKey"), UNKNOWN),
    row("PodSpec", "volumes", ByKeyRetaining("name"), UNKNOWN),
    row("PodStatus", "conditions", ByKey("type"), UNKNOWN),
    row("PodStatus", "hostIPs", ByKey("ip"), UNKNOWN),
    row("PodStatus", "podIPs", ByKey("ip"), UNKNOWN),
    row("PodStatus", "resourceClaimStatuses", ByKeyRetaining("name"), UNKNOWN),
    row("PodTemplate", "metadata", Plain, "ObjectMeta"),
    row("PodTemplate", "spec", Plain, "PodSpec"),
    row("ReplicaSet", "spec", Plain, "TemplatedSpec"),
    row("ReplicaSet", "status", Plain, "StatusWithConditions"),
    row("Service", "spec", Plain, "ServiceSpec"),
    row("Service", "status", Plain, "StatusWithConditions"),
    row("ServiceAccount", "secrets", ByKey("name"), UNKNOWN),
    row("ServiceSpec", "ports", ByKey("port"), UNKNOWN),
    row("StatefulSet", "spec", Plain, "TemplatedSpec"),
    row("StatefulSet", "status", Plain, "StatusWithConditions"),
    row("StatusWithConditions", "conditions", ByKey("type"), UNKNOWN),
    row("TemplatedSpec", "template", Plain, "PodTemplate"),
];

/// The type of a kind's objects.
pub(crate) fn root(kind: &str) -> &'static str {
    FIELDS.iter().map(|it| it.of).find(|it| *it == kind).unwrap_or("Object")
}

/// How a field is treated, and the type of what is in it.
pub(crate) fn field(of: &str, name: &str) -> (Treatment, &'static str) {
    let at = FIELDS.binary_search_by(|it| (it.of, it.name).cmp(&(of, name)));
    match at {
        Ok(at) => (FIELDS[at].treatment, FIELDS[at].inside),
        // Roots have metadata; nothing else of that name has special fields.
        Err(_) if name == "metadata" => (Plain, "ObjectMeta"),
        Err(_) => (Plain, UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_complete() {
        let key = |it: &Field| (it.of, it.name);
        assert!(FIELDS.windows(2).all(|it| key(&it[0]) < key(&it[1])));
        for it in FIELDS.iter().filter(|it| it.inside != UNKNOWN) {
            assert!(FIELDS.iter().any(|other| other.of == it.inside), "{}", it.inside);
        }
    }
}
