//! What a pod must be, and what may change in it.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidatePodSpec, ValidatePodUpdate and
//! ValidatePodStatusUpdate.

mod annotations;
mod container;
mod environment;
mod ephemeral;
mod probe;
mod resize;
mod resource;
mod scheduling;
mod security;
mod update;
mod volume;

pub(super) use annotations::APP_ARMOR;
pub(crate) use scheduling::tolerations as validate_tolerations;
pub(super) use update::{validate_status, validate_update};

use crate::kind::Subresource;

use super::node_name;
use crate::{
    Object,
    core::resource_name,
    field::{Errors, quoted},
    k8s::{
        api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec, ResourceRequirements},
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::{
        absent::{list, text},
        addresses, names,
    },
};

use std::collections::BTreeMap;

/// Longest deadline, in seconds: it must fit where upstream keeps it.
const DEADLINE_MOST: i64 = i32::MAX as i64;

/// Longest host name, in bytes: what the kernel takes.
const HOSTNAME_MOST: usize = 64;

/// Says what is wrong with a pod in itself.
pub(super) fn validate(pod: &Pod, errors: &mut Errors) {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let own = pod.metadata.annotations.as_ref();
    annotations::validate("metadata.annotations", own, "spec", spec, errors);
    validate_spec("spec", spec, Some(pod.name()), errors);
    let init = list(&spec.init_containers);
    for (field, containers) in
        [("containers", spec.containers.as_slice()), ("initContainers", init)]
    {
        for (n, it) in containers.iter().enumerate() {
            trimmed(format!("spec.{field}[{n}].image"), text(&it.image), errors);
        }
    }
    ephemeral::validate("spec", spec, errors);
    if text(&spec.service_account_name).is_empty() {
        volume::forbid_tokens("spec.volumes", list(&spec.volumes), errors);
    }
    if !node_name(pod).is_empty() && !list(&spec.scheduling_gates).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden("spec.nodeName", detail);
    }
}

/// Says what a new pod may not have.
pub(super) fn validate_create(pod: &Pod, errors: &mut Errors) {
    let spec = pod.spec.as_ref();
    if spec.is_some_and(|it| !list(&it.ephemeral_containers).is_empty()) {
        errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
}

/// Takes back what was changed besides that part of the spec.
pub(super) fn keep_all_but(part: Subresource, pod: &mut Pod, old: &Pod) {
    match part {
        Subresource::EphemeralContainers => ephemeral::keep_others(pod, old),
        Subresource::Resize => resize::keep_others(pod, old),
        _ => pod.spec.clone_from(&old.spec),
    }
}

/// Says which changes of that part are not allowed.
pub(super) fn validate_part(part: Subresource, pod: &Pod, old: &Pod, errors: &mut Errors) {
    match part {
        Subresource::EphemeralContainers => ephemeral::validate_update(pod, old, errors),
        Subresource::Resize => resize::validate_update(pod, old, errors),
        _ => {}
    }
}

/// Says what is wrong with a template.
pub(crate) fn validate_template(path: &str, template: &PodTemplateSpec, errors: &mut Errors) {
    let meta = template.metadata.as_ref();
    crate::meta::validate::validate_template(path, meta, errors);
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    let own = meta.and_then(|it| it.annotations.as_ref());
    let at = format!("{path}.spec");
    annotations::validate(&format!("{path}.annotations"), own, &at, spec, errors);
    validate_spec(&at, spec, None, errors);
    if !list(&spec.ephemeral_containers).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.forbidden(format!("{at}.ephemeralContainers"), detail);
    }
}

/// Says what is wrong with a spec wherever it stands. `pod` is the pod's name, or `None` in a
/// template.
fn validate_spec(path: &str, spec: &PodSpec, pod: Option<&str>, errors: &mut Errors) {
    let at = |field: &str| format!("{path}.{field}");
    let volumes = volume::validate(&at("volumes"), list(&spec.volumes), pod, errors);
    resource::pod_claims(&at("resourceClaims"), spec, errors);
    container::validate(path, spec, &volumes, errors);
    validate_whole(path, spec, errors);
    if spec.host_network == Some(true) {
        validate_host_ports(&at("containers"), &spec.containers, pod.is_some(), errors);
    }
    one_of(
        at("restartPolicy"),
        text(&spec.restart_policy),
        &["Always", "OnFailure", "Never"],
        errors,
    );
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(at("dnsPolicy"), text(&spec.dns_policy), &policies, errors);
    if let Some(labels) = &spec.node_selector {
        names::labels(at("nodeSelector"), labels, errors);
    }
    security::validate_pod(path, spec, errors);
    if let Some(affinity) = &spec.affinity {
        scheduling::affinity(&at("affinity"), affinity, errors);
    }
    validate_dns(&at("dnsConfig"), spec, errors);
    for (n, it) in list(&spec.readiness_gates).iter().enumerate() {
        let path = at(&format!("readinessGates[{n}].conditionType"));
        names::qualified_name(path, &it.condition_type, errors);
    }
    let mut gates = Vec::new();
    for (n, it) in list(&spec.scheduling_gates).iter().enumerate() {
        let path = at(&format!("schedulingGates[{n}]"));
        names::qualified_name(&path, &it.name, errors);
        if gates.contains(&&it.name) {
            errors.duplicate(path, quoted(&it.name));
        }
        gates.push(&it.name);
    }
    scheduling::spread(&at("topologySpreadConstraints"), spec, errors);
    let named = [
        ("serviceAccountName", text(&spec.service_account_name)),
        ("nodeName", text(&spec.node_name)),
        ("priorityClassName", text(&spec.priority_class_name)),
    ];
    for (field, name) in named.into_iter().filter(|it| !it.1.is_empty()) {
        names::dns_subdomain(at(field), name, errors);
    }
    if let Some(name) = &spec.runtime_class_name {
        names::dns_subdomain(at("runtimeClassName"), name, errors);
    }
    validate_hostname(path, spec, errors);
    if let Some(seconds) = spec.active_deadline_seconds {
        names::in_range(at("activeDeadlineSeconds"), seconds, 1, DEADLINE_MOST, errors);
    }
    let labels = [("hostname", text(&spec.hostname)), ("subdomain", text(&spec.subdomain))];
    for (field, name) in labels.into_iter().filter(|it| !it.1.is_empty()) {
        names::dns_label(at(field), name, errors);
    }
    scheduling::tolerations(&at("tolerations"), list(&spec.tolerations), errors);
    for (n, it) in list(&spec.host_aliases).iter().enumerate() {
        let path = at(&format!("hostAliases[{n}]"));
        addresses::validate(format!("{path}.ip"), &it.ip, errors);
        for (n, name) in list(&it.hostnames).iter().enumerate() {
            names::dns_subdomain(format!("{path}.hostnames[{n}]"), name, errors);
        }
    }
    if let Some(policy) = &spec.preemption_policy {
        one_of(at("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"], errors);
    }
    if let Some(overhead) = &spec.overhead {
        validate_overhead(&at("overhead"), overhead, errors);
    }
    validate_os(path, spec, errors);
    container::files_of_variables(path, spec, errors);
}

/// What a pod takes besides its containers, which upstream looks at as at limits.
pub(crate) fn validate_overhead(
    path: &str,
    overhead: &BTreeMap<String, Quantity>,
    errors: &mut Errors,
) {
    let limits = Some(overhead.clone());
    let limits = ResourceRequirements { limits, ..ResourceRequirements::default() };
    resource::validate_resources(path, &limits, resource_name::of_container, errors);
}

fn validate_os(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let known = ["linux", "windows"];
    match spec.os.as_ref().map(|it| it.name.as_str()) {
        None | Some("windows") => {}
        Some("") => errors.required(format!("{path}.os.name"), ""),
        Some("linux") => {
            let detail = "windows options cannot be set for a linux pod";
            if spec.security_context.as_ref().is_some_and(|it| it.windows_options.is_some()) {
                errors.forbidden(format!("{path}.securityContext.windowsOptions"), detail);
            }
            let init = list(&spec.init_containers);
            for (field, all) in [("initContainers", init), ("containers", &spec.containers[..])] {
                for (n, it) in all.iter().enumerate() {
                    if it.security_context.as_ref().is_some_and(|it| it.windows_options.is_some()) {
                        let at = format!("{path}.{field}[{n}].securityContext.windowsOptions");
                        errors.forbidden(at, detail);
                    }
                }
            }
        }
        Some(name) => errors.not_supported(format!("{path}.os"), name, &known),
    }
}

/// A host name that is a whole domain name, of its own.
fn validate_hostname(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let Some(name) = &spec.hostname_override else { return };
    let path = format!("{path}.hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > HOSTNAME_MOST {
        errors.too_long(&path, HOSTNAME_MOST);
    }
    names::dns_subdomain(path, name, errors);
}

/// Requests and limits of the pod as a whole hold those of its containers.
fn validate_whole(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let Some(whole) = &spec.resources else { return };
    let path = format!("{path}.resources");
    if whole.claims.is_some() {
        let detail = "claims may not be set for Resources at pod-level";
        errors.forbidden(format!("{path}.claims"), detail);
    }
    resource::validate_resources(&path, whole, resource::validate_pod_resource, errors);
    let parts = PodSpec { resources: None, overhead: None, ..spec.clone() };
    let amount = crate::meta::Exact::of;
    for (name, together) in super::requests(&parts) {
        let Some(given) = whole.requests.as_ref().and_then(|it| it.get(&name)) else { continue };
        if together > amount(given) {
            let shown = match name.as_str() {
                "cpu" => format!("{}m", together.milli()),
                _ => together.units().to_string(),
            };
            let shown = crate::meta::Exact::canonical(&shown).unwrap_or(shown);
            let detail =
                format!("must be greater than or equal to aggregate container requests of {shown}");
            errors.invalid(format!("{path}.requests[{name}]"), quoted(&given.0), detail);
        }
    }
    for (n, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|it| it.limits.as_ref());
        for (name, limit) in limits.into_iter().flatten() {
            let Some(most) = whole.limits.as_ref().and_then(|it| it.get(name)) else { continue };
            if amount(limit) > amount(most) {
                let path = format!("{path}.containers[{n}][{name}].limits");
                let detail = format!("must be less than or equal to pod limits of {}", most.0);
                errors.invalid(path, quoted(&limit.0), detail);
            }
        }
    }
}

fn validate_host_ports(path: &str, containers: &[Container], in_pod: bool, errors: &mut Errors) {
    for (n, container) in containers.iter().enumerate() {
        for (m, port) in list(&container.ports).iter().enumerate() {
            let host = port.host_port.unwrap_or(0);
            if (in_pod || host != 0) && host != port.container_port {
                let path = format!("{path}[{n}].ports[{m}].hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(path, host, detail);
            }
        }
    }
}

fn validate_dns(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let own = text(&spec.dns_policy) == "None";
    let Some(config) = &spec.dns_config else {
        if own {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = list(&config.nameservers);
    let at = format!("{path}.nameservers");
    if own && servers.is_empty() {
        errors.required(at, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        return;
    }
    let shown = |list: &[String]| {
        format!("[{}]", list.iter().map(|it| quoted(it)).collect::<Vec<_>>().join(","))
    };
    if servers.len() > 3 {
        errors.invalid(&at, shown(servers), "must not have more than 3 nameservers");
    }
    for (n, server) in servers.iter().enumerate() {
        addresses::validate(format!("{at}[{n}]"), server, errors);
    }
    let searches = list(&config.searches);
    let at = format!("{path}.searches");
    if searches.len() > 32 {
        errors.invalid(&at, shown(searches), "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let detail =
            "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&at, shown(searches), detail);
    }
    for (n, search) in searches.iter().enumerate().filter(|it| it.1 != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        names::dns_subdomain_with_underscores(format!("{at}[{n}]"), search, errors);
    }
    for (n, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.required(format!("{path}.options[{n}]"), "must not be empty");
        }
    }
}

/// A value from a closed list, in the list's order.
fn one_of(path: String, value: &str, known: &[&str], errors: &mut Errors) {
    match value {
        "" => errors.required(path, ""),
        value if known.contains(&value) => {}
        value => errors.not_supported(path, value, known),
    }
}

fn trimmed(path: String, image: &str, errors: &mut Errors) {
    if image.trim() != image {
        errors.invalid(path, quoted(image), "must not have leading or trailing whitespace");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value};
    use serde_json::{Value, json};

    fn pod(changes: Value) -> Pod {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut pod =
            from_value(&json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}))
                .unwrap();
        <Pod as Kind>::default(&mut pod);
        pod
    }

    #[track_caller]
    fn check(changes: Value, expected: &str) {
        let mut errors = Errors::default();
        pod(changes).validate(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[track_caller]
    fn container(mut changes: Value, expected: &str) {
        let fields = changes.as_object_mut().unwrap();
        fields.entry("name").or_insert("c".into());
        fields.entry("image").or_insert("i".into());
        let volumes =
            json!([{"name": "v"}, {"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]);
        check(json!({"containers": [changes], "volumes": volumes}), expected);
    }

    #[test]
    fn a_pod_has_named_containers_with_images() {
        check(json!({}), "");
        check(json!({"containers": []}), "spec.containers: Required value");
        container(json!({"name": ""}), "spec.containers[0].name: Required value");
        container(json!({"image": ""}), "spec.containers[0].image: Required value");
        let same = json!({"name": "c", "image": "i"});
        check(
            json!({"containers": [same, same]}),
            "spec.containers[1].name: Duplicate value: \"c\"",
        );
        check(
            json!({"restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"OnFailure\", \"Never\"",
        );
        check(
            json!({"hostname": "a.b"}),
            "spec.hostname: Invalid value: \"a.b\": must not contain dots",
        );
    }

    #[test]
    fn containers_say_their_ports_variables_and_mounts() {
        container(
            json!({"ports": [{"containerPort": 0}, {"containerPort": 70000}]}),
            "[spec.containers[0].ports[0].containerPort: Required value, \
             spec.containers[0].ports[1].containerPort: Invalid value: 70000: \
             must be between 1 and 65535, inclusive]",
        );
        container(
            json!({"env": [{"name": "a=b"}, {"name": "A", "valueFrom": {}}]}),
            "[spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name \
             must consist only of printable ASCII characters other than '=', \
             spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
             `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`]",
        );
        container(
            json!({"volumeMounts": [{"name": "none", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"},
                {"name": "v", "mountPath": "/b", "subPath": "../x"}]}),
            "[spec.containers[0].volumeMounts[0].name: Not found: \"none\", \
             spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique, \
             spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..']",
        );
        container(
            json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}),
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"v\": can only use volume source \
             type of PersistentVolumeClaim or Ephemeral for block mode",
        );
        container(
            json!({"readinessProbe": {}}),
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        );
        container(
            json!({"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        );
    }

    #[test]
    fn containers_ask_for_no_more_than_their_limit() {
        container(
            json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to \
             cpu limit of 1",
        );
        container(
            json!({"resources": {"requests": {"memory": "-1"}}}),
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than \
             or equal to 0",
        );
        container(
            json!({"resources": {"requests": {"storage": "1Gi"}}}),
            "spec.containers[0].resources.requests[storage]: Invalid value: \"storage\": must be a \
             standard resource for containers",
        );
    }

    #[test]
    fn volumes_have_one_name_and_one_source() {
        check(
            json!({"volumes": [{"name": "v"}, {"name": "v"}]}),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        );
        check(
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/a", "type": "Any"}}]}),
            "spec.volumes[0].hostPath.type: Unsupported value: \"Any\": supported values: \"\", \
             \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \
             \"FileOrCreate\", \"Socket\"",
        );
        check(
            json!({"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]}),
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        );
        check(
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": ""}}]}),
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value",
        );
        check(
            json!({"volumes": [{"name": "v", "azureFile": {"secretName": "s"}}]}),
            "spec.volumes[0].azureFile.shareName: Required value",
        );
    }

    #[test]
    fn containers_say_when_they_start_again() {
        container(
            json!({"restartPolicyRules": [{"action": "Odd", "exitCodes": {"operator": "Is", "values": [1]}}, {"action": "Restart"}],
                "restartPolicy": "Never"}),
            "[spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Odd\": supported values: \"Restart\", \"RestartAllContainers\", \
             spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\", \
             spec.containers[0].restartPolicyRules[1].exitCodes: Required value: must be specified]",
        );
        let policy = |resource: &str, policy: &str| json!({"resourceName": resource, "restartPolicy": policy});
        container(
            json!({"resizePolicy": [policy("cpu", "NotRequired"), policy("cpu", "Odd"), policy("disk", "NotRequired")]}),
            "[spec.containers[0].resizePolicy[1]: Duplicate value: \"cpu\", \
             spec.containers[0].resizePolicy: Unsupported value: \"Odd\": supported values: \"NotRequired\", \"RestartContainer\", \
             spec.containers[0].resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"]",
        );
        container(
            json!({"lifecycle": {"stopSignal": "SIGTERM"}}),
            "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
        );
        check(
            json!({"os": {"name": "linux"}, "containers": [{"name": "c", "image": "i",
                "lifecycle": {"stopSignal": "SIGTERM"}}]}),
            "",
        );
        check(
            json!({"initContainers": [{"name": "i", "image": "i", "resizePolicy": [policy("cpu", "RestartContainer")]}]}),
            "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": \
             must not be set to 'RestartContainer' for non-sidecar initContainers",
        );
        container(
            json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "k", "volumeName": "d", "path": "f"}}},
                {"name": "B", "valueFrom": {"fileKeyRef": {"key": "k=", "volumeName": "none", "path": "f"}}}]}),
            "[spec.containers[0].env[1].valueFrom.fileKeyRef.key: Invalid value: \"k=\": a valid environment variable name \
             must consist only of printable ASCII characters other than '=', \
             spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: \"d\": referenced volume must be of type emptyDir, \
             spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Not found: \"none\"]",
        );
    }

    #[test]
    fn a_pod_says_where_it_goes_and_by_what_names() {
        let spread = |changes: Value| {
            let mut it = json!({"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {}});
            it.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            it
        };
        check(
            json!({"topologySpreadConstraints": [spread(json!({"minDomains": 0})), spread(json!({"nodeTaintsPolicy": "Odd"}))]}),
            "[spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, DoNotSchedule}\", \
             spec.topologySpreadConstraints[0].minDomains: Invalid value: 0: must be greater than zero, \
             spec.topologySpreadConstraints[1].nodeTaintsPolicy: Unsupported value: \"Odd\": supported values: \"Honor\", \"Ignore\"]",
        );
        check(
            json!({"topologySpreadConstraints": [spread(json!({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2,
                "labelSelector": null, "matchLabelKeys": ["a"]}))]}),
            "[spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if \
             whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway, \
             spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set]",
        );
        check(
            json!({"os": {"name": "plan9"}, "hostnameOverride": "a_b", "hostNetwork": true}),
            &format!(
                "[spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true, \
                 spec.hostnameOverride: Invalid value: \"a_b\": {}, \
                 spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"]",
                names::DNS_SUBDOMAIN
            ),
        );
        check(
            json!({"dnsConfig": {"searches": ["_a.b.", ".", "x"]}, "resourceClaims": [{"name": "a"}]}),
            "spec.resourceClaims[0]: Invalid value: {\"Name\":\"a\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: \
             must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        );
        check(
            json!({"overhead": {"hugepages-2Mi": "3Mi"}}),
            "[spec.overhead.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi, \
             spec.overhead: Forbidden: HugePages require cpu or memory]",
        );
    }

    #[test]
    fn a_gated_pods_nodes_may_become_fewer() {
        let term = |values: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": values}]}}}})
        };
        let zone = json!({"key": "zone", "operator": "Exists"});
        let disk = json!({"key": "disk", "operator": "Exists"});
        let gated = |mut spec: Value| {
            spec["schedulingGates"] = json!([{"name": "a"}]);
            pod(spec)
        };
        let changed = |new: Value, old: Value| {
            let mut errors = Errors::default();
            gated(new).validate_update(&gated(old), &mut errors);
            errors.message()
        };
        assert_eq!(changed(json!({"nodeSelector": {"a": "b"}}), json!({})), "");
        assert_eq!(changed(term(json!([zone, disk])), json!({})), "");
        assert_eq!(changed(term(json!([zone, disk])), term(json!([zone]))), "");
        assert_eq!(
            changed(json!({}), json!({"nodeSelector": {"a": "b"}})),
            "spec.nodeSelector: Invalid value: {}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        );
        assert!(
            changed(term(json!([disk])), term(json!([zone])))
                .ends_with(": only additions are allowed (no mutations or deletions)")
        );
    }

    #[test]
    fn only_images_deadlines_and_tolerations_of_a_pod_change() {
        let old = pod(json!({}));
        let changed = |changes: Value| {
            let mut errors = Errors::default();
            pod(changes).validate_update(&old, &mut errors);
            errors.message()
        };
        assert_eq!(
            changed(json!({"containers": [{"name": "c", "image": "j:1",
            "imagePullPolicy": "Always"}]})),
            ""
        );
        assert_eq!(changed(json!({"activeDeadlineSeconds": 5})), "");
        assert_eq!(changed(json!({"tolerations": [{"operator": "Exists"}]})), "");
        let text = changed(json!({"nodeName": "n1"}));
        let start = "spec: Forbidden: pod updates may not change fields other than \
             `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
             `spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n@@ ";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("+ \"nodeName\": \"n1\""), "{text}");
    }

    #[test]
    fn what_ended_for_good_does_not_run_again() {
        let of = |state: Value| {
            let mut pod = pod(json!({"restartPolicy": "Never"}));
            let container = json!({"name": "c", "ready": false, "restartCount": 0, "image": "",
                "imageID": "", "state": state});
            pod.status = serde_json::from_value(json!({"containerStatuses": [container]})).unwrap();
            pod
        };
        let (ended, running) =
            (of(json!({"terminated": {"exitCode": 0}})), of(json!({"running": {}})));
        let mut errors = Errors::default();
        running.validate_status(&ended, &mut errors);
        assert_eq!(
            errors.message(),
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
        );
    }
}
