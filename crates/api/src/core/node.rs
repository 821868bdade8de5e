//! `v1` Node: a machine, and which selectors choose it.
//!
//! Upstream: `component-helpers/scheduling/corev1/nodeaffinity`.

mod validate;

pub(crate) use validate::{validate_effect, validate_selector, validate_term};

use crate::{
    field::Errors,
    k8s::api::core::v1::{
        Node, NodeSelectorRequirement, NodeSelectorTerm, NodeSystemInfo, PodSpec,
    },
    kind::{Column, Kind, Names, Object, Scope, Subresource},
    meta::{
        Exact,
        absent::omit_zero,
        addresses,
        columns::{NONE, UNKNOWN, age, name, or, text, wide},
        quantity,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// Labels of nodes that have another name today, and what is said to those who use them. Sorted.
///
/// Upstream: `pkg/api/node/util.go`.
const OLD_LABELS: [(&str, &str); 8] = [
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
];

/// What to say to those who choose nodes by an old label.
pub(crate) fn deprecated_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|it| it.0 == key).map(|it| it.1)
}

impl Kind for Node {
    const NAMES: Names =
        Names { plural: "nodes", singular: "node", short: &["no"], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/minions";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Proxy];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<Node>] = &[
        name(),
        text("Status", "Whether the node is ready, and whether it takes pods.", |node, _| {
            let mut status = match condition(node, "Ready") {
                Some("True") => "Ready".to_owned(),
                Some(_) => "NotReady".to_owned(),
                None => "Unknown".to_owned(),
            };
            if is_unschedulable(node) {
                status.push_str(",SchedulingDisabled");
            }
            status.into()
        }),
        text("Roles", "The roles that its labels give it.", |node, _| {
            let roles: Vec<&str> = roles(node).into_iter().collect();
            or(&roles.join(","), NONE).into()
        }),
        age(),
        text("Version", "The version of its kubelet.", |node, _| {
            system(node, |it| &it.kubelet_version).into()
        }),
        wide("Internal-IP", "Its address in the cluster.", |node, _| {
            address(node, "InternalIP").unwrap_or(NONE).into()
        }),
        wide("External-IP", "Its address for the world.", |node, _| {
            address(node, "ExternalIP").unwrap_or(NONE).into()
        }),
        wide("OS-Image", "Its operating system.", |node, _| {
            or(system(node, |it| &it.os_image), UNKNOWN).into()
        }),
        wide("Kernel-Version", "Its kernel, and the architecture.", |node, _| {
            let kernel = or(system(node, |it| &it.kernel_version), UNKNOWN);
            match system(node, |it| &it.architecture) {
                "" => kernel.into(),
                architecture => format!("{kernel} ({architecture})").into(),
            }
        }),
        wide("Container-Runtime", "What runs its containers.", |node, _| {
            or(system(node, |it| &it.container_runtime_version), UNKNOWN).into()
        }),
    ];

    fn default(&mut self) {
        let status = self.status.get_or_insert_default();
        quantity::canonicalize(&mut status.capacity);
        quantity::canonicalize(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
        omit_zero(&mut self.spec.get_or_insert_default().unschedulable);
    }

    fn prepare_create(&mut self) {
        self.spec.get_or_insert_default().config_source = None;
        self.status.get_or_insert_default().config = None;
    }

    fn prepare_update(&mut self, old: &Node) {
        self.status.clone_from(&old.status);
        if old.spec.as_ref().is_none_or(|it| it.config_source.is_none()) {
            self.spec.get_or_insert_default().config_source = None;
        }
    }

    fn prepare_status(&mut self, old: &Node) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_update(&self, old: &Node, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_status(&self, _old: &Node, errors: &mut Errors) {
        validate::validate_status(self, errors);
    }

    fn warnings(&self, _old: Option<&Node>) -> Vec<String> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let mut warnings = Vec::new();
        if spec.config_source.is_some() {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if spec.external_id.as_ref().is_some_and(|it| !it.is_empty()) {
            let what = "this field is deprecated, and is unused by Kubernetes";
            warnings.push(format!("spec.externalID: {what}"));
        }
        for (n, range) in spec.pod_cidrs.iter().flatten().enumerate() {
            warnings.extend(addresses::range_warnings(format!("spec.podCIDRs[{n}]"), range));
        }
        warnings
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_unschedulable(self).to_string())]
    }
}

/// Whether someone closed the node for new pods.
pub fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|it| it.unschedulable).unwrap_or(false)
}

/// Its first address of a type: `InternalIP`, `ExternalIP`, `Hostname`.
pub fn address<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    Some(addresses.iter().find(|it| it.type_ == kind)?.address.as_str())
}

fn system(node: &Node, field: fn(&NodeSystemInfo) -> &String) -> &str {
    let info = node.status.as_ref().and_then(|it| it.node_info.as_ref());
    info.map_or("", |it| field(it))
}

fn roles(node: &Node) -> BTreeSet<&str> {
    let labels = node.metadata.labels.iter().flatten();
    let roles = labels.filter_map(|(key, value)| match key.as_str() {
        "kubernetes.io/role" => Some(value.as_str()),
        key => key.strip_prefix("node-role.kubernetes.io/"),
    });
    roles.filter(|it| !it.is_empty()).collect()
}

/// Whether the kubelet says so, and said so last.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready") == Some("True")
}

/// The status of a condition: `True`, `False` or `Unknown`.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    Some(conditions.iter().find(|it| it.type_ == kind)?.status.as_str())
}

/// What pods may use, by resource name.
pub fn allocatable(node: &Node) -> BTreeMap<String, Exact> {
    let status = node.status.as_ref();
    let listed = status.and_then(|it| it.allocatable.as_ref().or(it.capacity.as_ref()));
    listed.into_iter().flatten().map(|(name, amount)| (name.clone(), Exact::of(amount))).collect()
}

/// Whether the pod's own words, its node selector and required affinity, let it go to the node.
pub fn is_chosen_by(node: &Node, spec: &PodSpec) -> bool {
    let mut selector = spec.node_selector.iter().flatten();
    let affinity = spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
    let required =
        affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    selector.all(|(key, value)| node.label(key) == Some(value))
        && required.is_none_or(|it| matches_selector_terms(node, &it.node_selector_terms))
}

/// Whether one of the terms chooses the node. An empty term chooses none, and so does an empty list.
pub fn matches_selector_terms(node: &Node, terms: &[NodeSelectorTerm]) -> bool {
    terms.iter().any(|it| matches_term(node, it))
}

/// Whether the node has everything that one term asks for. An empty term asks for the impossible.
pub fn matches_term(node: &Node, term: &NodeSelectorTerm) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = |it: &NodeSelectorRequirement| (it.key == "metadata.name").then(|| node.name());
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|it| matches_requirement(node.label(&it.key), it))
        && fields.iter().all(|it| matches_requirement(name(it), it))
}

fn matches_requirement(value: Option<&str>, requirement: &NodeSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|it| it == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let both = value.and_then(number).zip(values.first().and_then(|it| number(it)));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => both.is_some_and(|(value, limit)| value > limit),
        "Lt" => both.is_some_and(|(value, limit)| value < limit),
        // Validation lets no other operator in.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_value;
    use serde_json::{Value, json};

    #[test]
    fn a_node_has_taints_ranges_and_amounts_that_make_sense() {
        let mut node: Node = from_value(&json!({"metadata": {"name": "n1"},
            "spec": {"podCIDRs": ["10.0.0.0/24", "10.1.0.0/24"], "unschedulable": false, "taints": [
                {"key": "a", "effect": "NoSchedule", "value": "b c"}, {"key": "a", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "-1", "example.com/gpu": "500m"}}}))
        .unwrap();
        Kind::default(&mut node);
        assert_eq!(node.spec.as_ref().unwrap().unschedulable, None);
        let mut errors = Errors::default();
        node.validate(&mut errors);
        let fields: Vec<String> =
            errors.0.iter().map(|it| format!("{} {}", it.path, it.detail)).collect();
        assert_eq!(
            fields[..4],
            [
                "status.capacity.cpu must be greater than or equal to 0",
                "status.capacity.example.com/gpu must be an integer",
                "status.allocatable.cpu must be greater than or equal to 0",
                "status.allocatable.example.com/gpu must be an integer",
            ]
        );
        assert_eq!(fields[4], "spec.podCIDRs may specify no more than one CIDR for each IP family");
        assert!(fields[5].starts_with("metadata.taints[0].value a valid label must be"));
        assert_eq!(fields[6], "metadata.taints[1] taints must be unique by key and effect pair");
        let address = json!({"type": "InternalIP", "address": "10.0.0.1"});
        node.status = serde_json::from_value(json!({"addresses": [address, address]})).unwrap();
        let mut errors = Errors::default();
        node.validate_status(&node, &mut errors);
        assert_eq!(
            errors.message(),
            "status.addresses[1]: Duplicate value: {\"Type\":\"InternalIP\",\"Address\":\"10.0.0.1\"}"
        );
    }

    #[test]
    fn terms_choose_by_label_and_name_and_an_empty_term_chooses_nothing() {
        let node: Node =
            from_value(&json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}}}))
                .unwrap();
        let chosen = |terms: Value| {
            let terms: Vec<NodeSelectorTerm> = serde_json::from_value(terms).unwrap();
            matches_selector_terms(&node, &terms)
        };
        let label = |key, operator, values: Value| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        assert!(chosen(label("zone", "In", json!(["a", "b"]))));
        assert!(!chosen(label("zone", "NotIn", json!(["a"]))));
        assert!(chosen(label("other", "NotIn", json!(["a"]))));
        assert!(chosen(label("cores", "Gt", json!(["4"]))));
        assert!(!chosen(label("cores", "Lt", json!(["4"]))));
        assert!(chosen(json!([{}, {"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])));
        assert!(!chosen(json!([{}])));
        assert!(!chosen(json!([])));
    }
}
