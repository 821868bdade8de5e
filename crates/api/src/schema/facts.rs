//! Which lists are sets or maps, what a strategic merge patch merges and by which key: facts about the
//! types of the API that their Rust forms do not carry.
//!
//! Fields that are not here are lists replaced whole, or objects merged field by field.
//!
//! Upstream: the tags `listType`, `listMapKey`, `mapType`, `structType`, `patchStrategy` and
//! `patchMergeKey` in `staging/src/k8s.io/{api,apimachinery}/**/types.go`.

/// How the content of a field is owned and merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// A list with one owner, replaced whole.
    Atomic,
    /// The same for owners, but a patch merges items by this key.
    AtomicMerged(&'static str),
    /// A list without doubles, each item with its owner.
    Set,
    /// The same, and a patch adds to it.
    SetMerged,
    /// A list whose items are told apart by these keys.
    Keyed(&'static [&'static str]),
    /// The same, and a patch merges items by the first of them.
    Merged(&'static [&'static str]),
    /// The same, and a patch names the fields of an item that stay.
    Retained(&'static [&'static str]),
    /// An object with one owner.
    AtomicMap,
    /// An object each field of which has its owner, though its type says otherwise.
    GranularMap,
    /// An object of which a patch names the fields that stay.
    RetainedMap,
    /// An object that a patch replaces whole.
    Replaced,
}

impl Treatment {
    /// The key by which a strategic merge patch tells items apart.
    pub fn merge_key(self) -> Option<&'static str> {
        match self {
            Treatment::AtomicMerged(key) => Some(key),
            Treatment::Merged(keys) | Treatment::Retained(keys) => keys.first().copied(),
            Treatment::Atomic
            | Treatment::Set
            | Treatment::SetMerged
            | Treatment::Keyed(_)
            | Treatment::AtomicMap
            | Treatment::GranularMap
            | Treatment::RetainedMap
            | Treatment::Replaced => None,
        }
    }

    /// What a strategic merge patch does, in the API's words.
    pub fn patch_strategy(self) -> Option<&'static str> {
        match self {
            Treatment::AtomicMerged(_) | Treatment::SetMerged | Treatment::Merged(_) => {
                Some("merge")
            }
            Treatment::Retained(_) => Some("merge,retainKeys"),
            Treatment::RetainedMap => Some("retainKeys"),
            Treatment::Replaced => Some("replace"),
            Treatment::Atomic
            | Treatment::Set
            | Treatment::Keyed(_)
            | Treatment::AtomicMap
            | Treatment::GranularMap => None,
        }
    }
}

/// How a field of a type is treated; `of` is the name of the type's definition
/// (`io.k8s.api.core.v1.PodSpec`).
pub fn of(of: &str, field: &str) -> Option<Treatment> {
    let of = short(of)?;
    if let Ok(at) = FIELDS.binary_search_by(|it| (it.0, it.1).cmp(&(of, field))) {
        return Some(FIELDS[at].2);
    }
    let at = ATOMIC.binary_search_by(|it| it.0.cmp(of)).ok()?;
    ATOMIC[at].1.contains(&field).then_some(Treatment::Atomic)
}

/// Whether objects of a type have one owner each.
pub fn is_atomic(of: &str) -> bool {
    short(of).is_some_and(|it| ATOMIC_TYPES.binary_search(&it).is_ok())
}

/// Whether a type's `name` may be left out: it was optional before it was there, and stays so.
pub fn has_optional_name(of: &str) -> bool {
    short(of).is_some_and(|it| OPTIONAL_NAMES.binary_search(&it).is_ok())
}

/// What a field that tells items apart holds when it is left out, as JSON.
pub fn default_of_key(of: &str, field: &str) -> Option<&'static str> {
    let of = short(of)?;
    KEY_DEFAULTS.iter().find(|it| (it.0, it.1) == (of, field)).map(|it| it.2)
}

fn short(name: &str) -> Option<&str> {
    name.strip_prefix("io.k8s.api.").or_else(|| name.strip_prefix("io.k8s.apimachinery.pkg.apis."))
}

/// How many fields the tables tell of.
#[cfg(test)]
pub(crate) fn count() -> usize {
    FIELDS.len() + ATOMIC.iter().map(|it| it.1.len()).sum::<usize>()
}

use Treatment::{
    AtomicMap, AtomicMerged, GranularMap, Keyed, Merged, Replaced, Retained, RetainedMap, Set,
    SetMerged,
};

/// Defaults of fields by which items are told apart: the tag `default` on such a field.
const KEY_DEFAULTS: &[(&str, &str, &str)] = &[
    ("core.v1.ContainerPort", "protocol", "\"TCP\""),
    ("core.v1.ServicePort", "protocol", "\"TCP\""),
];

/// Types that refer to an object of the same namespace by a name that may be missing. Sorted.
const OPTIONAL_NAMES: &[&str] = &[
    "core.v1.ConfigMapEnvSource",
    "core.v1.ConfigMapKeySelector",
    "core.v1.ConfigMapProjection",
    "core.v1.ConfigMapVolumeSource",
    "core.v1.LocalObjectReference",
    "core.v1.SecretEnvSource",
    "core.v1.SecretKeySelector",
    "core.v1.SecretProjection",
];

/// Types whose objects have one owner each. Sorted.
const ATOMIC_TYPES: &[&str] = &[
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TopologySelectorTerm",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
    "networking.v1.ServiceBackendPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// Lists that are replaced whole, by type. Sorted.
const ATOMIC: &[(&str, &[&str])] = &[
    ("apps.v1.StatefulSetSpec", &["volumeClaimTemplates"]),
    ("authentication.v1.TokenRequestSpec", &["audiences"]),
    ("batch.v1.PodFailurePolicy", &["rules"]),
    ("batch.v1.PodFailurePolicyRule", &["onPodConditions"]),
    ("batch.v1.SuccessPolicy", &["rules"]),
    ("core.v1.Capabilities", &["add", "drop"]),
    ("core.v1.CephFSPersistentVolumeSource", &["monitors"]),
    ("core.v1.CephFSVolumeSource", &["monitors"]),
    ("core.v1.ConfigMapProjection", &["items"]),
    ("core.v1.ConfigMapVolumeSource", &["items"]),
    ("core.v1.Container", &["args", "command", "envFrom", "resizePolicy", "restartPolicyRules"]),
    ("core.v1.ContainerImage", &["names"]),
    ("core.v1.DownwardAPIProjection", &["items"]),
    ("core.v1.DownwardAPIVolumeSource", &["items"]),
    ("core.v1.EndpointSubset", &["addresses", "notReadyAddresses", "ports"]),
    ("core.v1.Endpoints", &["subsets"]),
    (
        "core.v1.EphemeralContainer",
        &["args", "command", "envFrom", "resizePolicy", "restartPolicyRules"],
    ),
    ("core.v1.ExecAction", &["command"]),
    ("core.v1.FCVolumeSource", &["targetWWNs", "wwids"]),
    ("core.v1.HTTPGetAction", &["httpHeaders"]),
    ("core.v1.HostAlias", &["hostnames"]),
    ("core.v1.ISCSIPersistentVolumeSource", &["portals"]),
    ("core.v1.ISCSIVolumeSource", &["portals"]),
    ("core.v1.LimitRangeSpec", &["limits"]),
    ("core.v1.LinuxContainerUser", &["supplementalGroups"]),
    ("core.v1.LoadBalancerIngress", &["ports"]),
    ("core.v1.LoadBalancerStatus", &["ingress"]),
    ("core.v1.NamespaceSpec", &["finalizers"]),
    ("core.v1.NodeAffinity", &["preferredDuringSchedulingIgnoredDuringExecution"]),
    ("core.v1.NodeSelector", &["nodeSelectorTerms"]),
    ("core.v1.NodeSelectorRequirement", &["values"]),
    ("core.v1.NodeSelectorTerm", &["matchExpressions", "matchFields"]),
    ("core.v1.NodeSpec", &["taints"]),
    (
        "core.v1.NodeStatus",
        &["declaredFeatures", "images", "runtimeHandlers", "volumesAttached", "volumesInUse"],
    ),
    ("core.v1.PersistentVolumeClaimSpec", &["accessModes"]),
    ("core.v1.PersistentVolumeClaimStatus", &["accessModes"]),
    ("core.v1.PersistentVolumeSpec", &["accessModes", "mountOptions"]),
    (
        "core.v1.PodAffinity",
        &[
            "preferredDuringSchedulingIgnoredDuringExecution",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ],
    ),
    ("core.v1.PodAffinityTerm", &["matchLabelKeys", "mismatchLabelKeys", "namespaces"]),
    (
        "core.v1.PodAntiAffinity",
        &[
            "preferredDuringSchedulingIgnoredDuringExecution",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ],
    ),
    ("core.v1.PodDNSConfig", &["nameservers", "options", "searches"]),
    ("core.v1.PodExtendedResourceClaimStatus", &["requestMappings"]),
    ("core.v1.PodSecurityContext", &["supplementalGroups", "sysctls"]),
    ("core.v1.PodSpec", &["readinessGates", "tolerations"]),
    (
        "core.v1.PodStatus",
        &[
            "containerStatuses",
            "ephemeralContainerStatuses",
            "initContainerStatuses",
            "nodeAllocatableResourceClaimStatuses",
        ],
    ),
    ("core.v1.ProjectedVolumeSource", &["sources"]),
    ("core.v1.RBDPersistentVolumeSource", &["monitors"]),
    ("core.v1.RBDVolumeSource", &["monitors"]),
    ("core.v1.ResourceQuotaSpec", &["scopes"]),
    ("core.v1.ScopeSelector", &["matchExpressions"]),
    ("core.v1.ScopedResourceSelectorRequirement", &["values"]),
    ("core.v1.SecretProjection", &["items"]),
    ("core.v1.SecretVolumeSource", &["items"]),
    ("core.v1.ServiceAccount", &["imagePullSecrets"]),
    (
        "core.v1.ServiceSpec",
        &["clusterIPs", "externalIPs", "ipFamilies", "loadBalancerSourceRanges"],
    ),
    ("core.v1.TopologySelectorLabelRequirement", &["values"]),
    ("core.v1.TopologySelectorTerm", &["matchLabelExpressions"]),
    ("core.v1.TopologySpreadConstraint", &["matchLabelKeys"]),
    ("discovery.v1.EndpointHints", &["forNodes", "forZones"]),
    ("discovery.v1.EndpointSlice", &["endpoints", "ports"]),
    ("meta.v1.DeleteOptions", &["dryRun"]),
    ("meta.v1.LabelSelector", &["matchExpressions"]),
    ("meta.v1.LabelSelectorRequirement", &["values"]),
    ("meta.v1.ObjectMeta", &["managedFields"]),
    ("meta.v1.StatusDetails", &["causes"]),
    ("node.v1.Scheduling", &["tolerations"]),
    ("storage.v1.CSIDriverSpec", &["tokenRequests"]),
    ("storage.v1.CSINodeDriver", &["topologyKeys"]),
    ("storage.v1.StorageClass", &["allowedTopologies", "mountOptions"]),
];

/// All other fields, sorted by type and name.
const FIELDS: &[(&str, &str, Treatment)] = &[
    ("apps.v1.DaemonSetStatus", "conditions", Merged(&["type"])),
    ("apps.v1.DeploymentSpec", "strategy", RetainedMap),
    ("apps.v1.DeploymentStatus", "conditions", Merged(&["type"])),
    ("apps.v1.ReplicaSetStatus", "conditions", Merged(&["type"])),
    ("apps.v1.StatefulSetStatus", "conditions", Merged(&["type"])),
    ("autoscaling.v2.HorizontalPodAutoscalerStatus", "conditions", Merged(&["type"])),
    ("batch.v1.JobStatus", "conditions", AtomicMerged("type")),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", Set),
    ("batch.v1.UncountedTerminatedPods", "failed", Set),
    ("batch.v1.UncountedTerminatedPods", "succeeded", Set),
    ("certificates.v1.CertificateSigningRequestStatus", "conditions", Keyed(&["type"])),
    ("core.v1.Container", "env", Merged(&["name"])),
    ("core.v1.Container", "ports", Merged(&["containerPort", "protocol"])),
    ("core.v1.Container", "volumeDevices", Merged(&["devicePath"])),
    ("core.v1.Container", "volumeMounts", Merged(&["mountPath"])),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values", Set),
    ("core.v1.ContainerStatus", "allocatedResourcesStatus", Merged(&["name"])),
    ("core.v1.ContainerStatus", "volumeMounts", Merged(&["mountPath"])),
    ("core.v1.EphemeralContainer", "env", Merged(&["name"])),
    ("core.v1.EphemeralContainer", "ports", Merged(&["containerPort", "protocol"])),
    ("core.v1.EphemeralContainer", "volumeDevices", Merged(&["devicePath"])),
    ("core.v1.EphemeralContainer", "volumeMounts", Merged(&["mountPath"])),
    ("core.v1.NamespaceStatus", "conditions", Merged(&["type"])),
    ("core.v1.NodeAllocatableResourceClaimStatus", "containers", Set),
    ("core.v1.NodeSpec", "podCIDRs", SetMerged),
    ("core.v1.NodeStatus", "addresses", Merged(&["type"])),
    ("core.v1.NodeStatus", "conditions", Merged(&["type"])),
    ("core.v1.PersistentVolumeClaimStatus", "allocatedResourceStatuses", GranularMap),
    ("core.v1.PersistentVolumeClaimStatus", "conditions", Merged(&["type"])),
    ("core.v1.PersistentVolumeSpec", "claimRef", GranularMap),
    ("core.v1.PodSpec", "containers", Merged(&["name"])),
    ("core.v1.PodSpec", "ephemeralContainers", Merged(&["name"])),
    ("core.v1.PodSpec", "hostAliases", Merged(&["ip"])),
    ("core.v1.PodSpec", "imagePullSecrets", Merged(&["name"])),
    ("core.v1.PodSpec", "initContainers", Merged(&["name"])),
    ("core.v1.PodSpec", "nodeSelector", AtomicMap),
    ("core.v1.PodSpec", "resourceClaims", Retained(&["name"])),
    ("core.v1.PodSpec", "schedulingGates", Merged(&["name"])),
    ("core.v1.PodSpec", "topologySpreadConstraints", Merged(&["topologyKey", "whenUnsatisfiable"])),
    ("core.v1.PodSpec", "volumes", Retained(&["name"])),
    ("core.v1.PodStatus", "conditions", Merged(&["type"])),
    ("core.v1.PodStatus", "hostIPs", AtomicMerged("ip")),
    ("core.v1.PodStatus", "podIPs", Merged(&["ip"])),
    ("core.v1.PodStatus", "resourceClaimStatuses", Retained(&["name"])),
    ("core.v1.ReplicationControllerSpec", "selector", AtomicMap),
    ("core.v1.ReplicationControllerStatus", "conditions", Merged(&["type"])),
    ("core.v1.ResourceRequirements", "claims", Keyed(&["name"])),
    ("core.v1.ResourceStatus", "resources", Keyed(&["resourceID"])),
    ("core.v1.ServiceAccount", "secrets", Merged(&["name"])),
    ("core.v1.ServiceSpec", "ports", Merged(&["port", "protocol"])),
    ("core.v1.ServiceSpec", "selector", AtomicMap),
    ("core.v1.ServiceStatus", "conditions", Merged(&["type"])),
    ("discovery.v1.Endpoint", "addresses", Set),
    ("meta.v1.ObjectMeta", "finalizers", SetMerged),
    ("meta.v1.ObjectMeta", "ownerReferences", Merged(&["uid"])),
    ("networking.v1.ServiceCIDRStatus", "conditions", Merged(&["type"])),
    ("node.v1.Scheduling", "nodeSelector", AtomicMap),
    ("policy.v1.PodDisruptionBudgetSpec", "selector", Replaced),
    ("policy.v1.PodDisruptionBudgetStatus", "conditions", Merged(&["type"])),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes", Set),
    ("storage.v1.CSINodeSpec", "drivers", Merged(&["name"])),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(ATOMIC.is_sorted_by(|a, b| a.0 < b.0));
        assert!(ATOMIC_TYPES.is_sorted_by(|a, b| a < b));
        assert!(OPTIONAL_NAMES.is_sorted_by(|a, b| a < b));
        assert!(FIELDS.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
    }

    #[test]
    fn the_first_key_of_a_list_is_what_a_patch_merges_by() {
        let ports = of("io.k8s.api.core.v1.Container", "ports").unwrap();
        assert_eq!(ports.merge_key(), Some("containerPort"));
        assert_eq!(ports.patch_strategy(), Some("merge"));
        assert_eq!(of("io.k8s.api.core.v1.Container", "args"), Some(Treatment::Atomic));
        assert_eq!(of("io.k8s.api.core.v1.Container", "image"), None);
    }
}
