//! What is allowed in a pod's spec and yet surprises.
//!
//! Upstream: `pkg/api/pod/warnings.go` (1.36).

mod volumes;

use crate::{
    Object,
    core::{node::deprecated_label, pod::validate::APP_ARMOR},
    field::Errors,
    k8s::{
        api::core::v1::{
            Affinity, AppArmorProfile, Container, ContainerPort, NodeSelectorTerm, Pod,
            PodAffinityTerm, PodSpec, PodTemplateSpec, WeightedPodAffinityTerm,
        },
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::{
        Exact, ObjectMeta,
        absent::{list, text},
        addresses, names,
    },
};

/// Sentences about a new pod.
pub(super) fn of_pod(pod: &Pod) -> Vec<String> {
    let mut warnings = Vec::new();
    let problems = names::label_problems(pod.name());
    if !problems.is_empty() {
        let what = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended";
        warnings.push(format!("{what}: [{}]", problems.join(" ")));
    }
    let Some(spec) = &pod.spec else { return warnings };
    warnings.extend(of_annotations("metadata", &pod.metadata, spec));
    warnings.extend(of_spec("spec", spec));
    warnings
}

/// Sentences about a template of pods.
pub(crate) fn of_template(path: &str, template: &PodTemplateSpec) -> Vec<String> {
    let Some(spec) = &template.spec else { return Vec::new() };
    let meta = template.metadata.as_ref();
    let mut warnings =
        meta.map(|it| of_annotations(&format!("{path}.metadata"), it, spec)).unwrap_or_default();
    warnings.extend(of_spec(&format!("{path}.spec"), spec));
    warnings
}

/// Sentences about a spec, wherever it stands.
fn of_spec(path: &str, spec: &PodSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    old_labels(path, spec, &mut warnings);
    volumes::sources(&format!("{path}.volumes"), list(&spec.volumes), &mut warnings);
    volumes::overlaps(list(&spec.volumes), &mut warnings);
    named_twice(path, spec, &mut warnings);
    for name in ["memory", "ephemeral-storage"] {
        let amount = spec.overhead.as_ref().and_then(|it| it.get(name));
        warnings.extend(amount.and_then(|it| fraction(&format!("{path}.overhead[{name}]"), it)));
    }
    for (path, container) in containers(path, spec) {
        fractions(&path, container, &mut warnings);
        hidden_variables(&path, container, &mut warnings);
    }
    ports(path, spec, &mut warnings);
    if spec.termination_grace_period_seconds.is_some_and(|it| it < 0) {
        let what = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.push(format!("{path}.terminationGracePeriodSeconds: {what}"));
    }
    if let Some(affinity) = &spec.affinity {
        choose_nothing(&format!("{path}.affinity"), affinity, &mut warnings);
    }
    let servers = spec.dns_config.iter().flat_map(|it| list(&it.nameservers)).enumerate();
    let odd = servers
        .filter_map(|(n, it)| addresses::warning(format!("{path}.dnsConfig.nameservers[{n}]"), it));
    warnings.extend(odd);
    let aliases = list(&spec.host_aliases).iter().enumerate();
    let odd = aliases
        .filter_map(|(n, it)| addresses::warning(format!("{path}.hostAliases[{n}].ip"), &it.ip));
    warnings.extend(odd);
    warnings
}

/// Sentences about annotations of a pod that do nothing any more.
fn of_annotations(path: &str, meta: &ObjectMeta, spec: &PodSpec) -> Vec<String> {
    let Some(annotations) = &meta.annotations else { return Vec::new() };
    let mut warnings = Vec::new();
    let mut tell = |key: &str, what: &str| {
        if annotations.contains_key(key) {
            warnings.push(format!("{path}.annotations[{key}]: {what}"));
        }
    };
    let class = "non-functional in v1.16+; use the \"priorityClassName\" field instead";
    tell("scheduler.alpha.kubernetes.io/critical-pod", class);
    let sysctls = "non-functional in v1.11+; use the \"sysctls\" field instead";
    tell("security.alpha.kubernetes.io/sysctls", sysctls);
    tell("security.alpha.kubernetes.io/unsafe-sysctls", sysctls);
    let seccomp = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    if spec.security_context.as_ref().is_none_or(|it| it.seccomp_profile.is_none()) {
        tell("seccomp.security.alpha.kubernetes.io/pod", seccomp);
    }
    for (_, container) in containers("", spec) {
        if container.security_context.as_ref().is_none_or(|it| it.seccomp_profile.is_none()) {
            let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", container.name);
            tell(&key, seccomp);
        }
        let profile = |it: &Option<AppArmorProfile>| it.clone();
        let own = container.security_context.as_ref().and_then(|it| profile(&it.app_armor_profile));
        let key = format!("{APP_ARMOR}{}", container.name);
        let (None, Some(annotation)) = (own, annotations.get(&key)) else { continue };
        let of_pod = spec.security_context.as_ref().and_then(|it| profile(&it.app_armor_profile));
        // What the pod says anyway needs no other field.
        if of_pod.is_none() || of_pod != app_armor_of(annotation) {
            tell(&key, "deprecated since v1.30; use the \"appArmorProfile\" field instead");
        }
    }
    warnings
}

/// The profile that an annotation means.
fn app_armor_of(annotation: &str) -> Option<AppArmorProfile> {
    let of = |kind: &str, name: Option<&str>| AppArmorProfile {
        type_: kind.to_owned(),
        localhost_profile: name.map(str::to_owned),
    };
    match (annotation, annotation.strip_prefix("localhost/")) {
        ("unconfined", _) => Some(of("Unconfined", None)),
        ("runtime/default", _) => Some(of("RuntimeDefault", None)),
        (_, Some(name)) if !name.is_empty() => Some(of("Localhost", Some(name))),
        _ => None,
    }
}

/// Every container with its path, init containers first.
fn containers<'a>(path: &str, spec: &'a PodSpec) -> Vec<(String, &'a Container)> {
    let init = list(&spec.init_containers);
    let both = [("initContainers", init), ("containers", spec.containers.as_slice())];
    let all = both.into_iter().flat_map(|(field, all)| {
        all.iter().enumerate().map(move |(n, it)| (format!("{path}.{field}[{n}]"), it))
    });
    all.collect()
}

fn old_labels(path: &str, spec: &PodSpec, warnings: &mut Vec<String>) {
    for key in spec.node_selector.iter().flat_map(|it| it.keys()) {
        let what = deprecated_label(key);
        warnings.extend(what.map(|it| format!("{path}.nodeSelector[{key}]: {it}")));
    }
    let affinity = spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
    if let Some(affinity) = affinity {
        let path = format!("{path}.affinity.nodeAffinity");
        let required = affinity.required_during_scheduling_ignored_during_execution.iter();
        for (n, term) in required.flat_map(|it| &it.node_selector_terms).enumerate() {
            let path = format!(
                "{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{n}]"
            );
            warnings.extend(of_term(&path, term));
        }
        let preferred = list(&affinity.preferred_during_scheduling_ignored_during_execution);
        for (n, it) in preferred.iter().enumerate() {
            let path =
                format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{n}].preference");
            warnings.extend(of_term(&path, &it.preference));
            odd_values(&path, &it.preference, warnings);
        }
    }
    for (n, it) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{n}]");
        let key = &it.topology_key;
        let what = deprecated_label(key);
        warnings.extend(what.map(|it| format!("{path}.topologyKey: {key} is {it}")));
        if it.label_selector.is_none() {
            warnings.push(nothing(&format!("{path}.labelSelector")));
        }
    }
}

/// Sentences about the labels that a term chooses nodes by.
pub(crate) fn of_term(path: &str, term: &NodeSelectorTerm) -> Vec<String> {
    let expressions = list(&term.match_expressions).iter().enumerate();
    let old = expressions.filter_map(|(n, it)| {
        let what = deprecated_label(&it.key)?;
        Some(format!("{path}.matchExpressions[{n}].key: {} is {what}", it.key))
    });
    old.collect()
}

/// Values that no label can have.
fn odd_values(path: &str, term: &NodeSelectorTerm, warnings: &mut Vec<String>) {
    for (n, it) in list(&term.match_expressions).iter().enumerate() {
        for (m, value) in list(&it.values).iter().enumerate() {
            let mut errors = Errors::default();
            names::label_value("", value, &mut errors);
            let path = format!("{path}.matchExpressions[{n}].values[{m}]");
            let why =
                errors.0.iter().map(|it| format!("{path}: {value} is invalid, {}", it.detail));
            warnings.extend(why);
        }
    }
}

fn nothing(path: &str) -> String {
    format!("{path}: a null labelSelector results in matching no pod")
}

fn choose_nothing(path: &str, affinity: &Affinity, warnings: &mut Vec<String>) {
    let mut both = |path: String,
                    required: &Option<Vec<PodAffinityTerm>>,
                    preferred: &Option<Vec<WeightedPodAffinityTerm>>| {
        for (n, it) in list(required).iter().enumerate() {
            let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution[{n}]");
            if it.label_selector.is_none() {
                warnings.push(nothing(&format!("{path}.labelSelector")));
            }
        }
        for (n, it) in list(preferred).iter().enumerate() {
            let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{n}]");
            if it.pod_affinity_term.label_selector.is_none() {
                warnings.push(nothing(&format!("{path}.podAffinityTerm.labelSelector")));
            }
        }
    };
    if let Some(it) = &affinity.pod_affinity {
        both(
            format!("{path}.podAffinity"),
            &it.required_during_scheduling_ignored_during_execution,
            &it.preferred_during_scheduling_ignored_during_execution,
        );
    }
    if let Some(it) = &affinity.pod_anti_affinity {
        both(
            format!("{path}.podAntiAffinity"),
            &it.required_during_scheduling_ignored_during_execution,
            &it.preferred_during_scheduling_ignored_during_execution,
        );
    }
}

fn named_twice(path: &str, spec: &PodSpec, warnings: &mut Vec<String>) {
    let aliases = list(&spec.host_aliases);
    for (n, it) in aliases.iter().enumerate() {
        if aliases[..n].iter().any(|other| other.ip == it.ip) {
            warnings.push(format!("{path}.hostAliases[{n}].ip: duplicate ip {:?}", it.ip));
        }
    }
    let secrets = list(&spec.image_pull_secrets);
    for (n, it) in secrets.iter().enumerate() {
        if secrets[..n].iter().any(|other| other.name == it.name) {
            warnings
                .push(format!("{path}.imagePullSecrets[{n}].name: duplicate name {:?}", it.name));
        }
    }
    for (n, _) in secrets.iter().enumerate().filter(|it| it.1.name.is_empty()) {
        warnings.push(format!("{path}.imagePullSecrets[{n}].name: invalid empty name \"\""));
    }
}

fn ports(path: &str, spec: &PodSpec, warnings: &mut Vec<String>) {
    let all: Vec<(String, &ContainerPort)> = containers(path, spec)
        .into_iter()
        .flat_map(|(path, container)| {
            let ports = list(&container.ports).iter().enumerate();
            ports.map(move |(n, it)| (format!("{path}.ports[{n}]"), it))
        })
        .collect();
    let on_host = |it: &ContainerPort| it.host_port.unwrap_or(0);
    for (n, (path, port)) in all.iter().enumerate() {
        let address = text(&port.host_ip);
        if !address.is_empty() && on_host(port) == 0 {
            let (name, protocol) = (text(&port.name), text(&port.protocol));
            let number = port.container_port;
            warnings.push(format!(
                "{path}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{address}}}"
            ));
        }
        let same = |it: &&(String, &ContainerPort)| {
            it.1.container_port == port.container_port && it.1.protocol == port.protocol
        };
        for (first, other) in all[..n].iter().filter(same) {
            let theirs = text(&other.host_ip);
            let (here, there) = (on_host(port), on_host(other));
            if (address, here) == (theirs, there) {
                warnings.push(format!("{path}: duplicate port definition with {first}"));
            } else if here == 0 || there == 0 {
                warnings.push(format!("{path}: overlapping port definition with {first}"));
            } else if here == there && address.is_empty() != theirs.is_empty() {
                warnings
                    .push(format!("{path}: dangerously ambiguous port definition with {first}"));
            }
        }
    }
    for (n, (path, port)) in all.iter().enumerate() {
        let name = text(&port.name);
        let first = all[..n].iter().find(|it| !name.is_empty() && text(&it.1.name) == name);
        if let Some((first, _)) = first {
            warnings.push(format!(
                "{path}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
            ));
        }
    }
}

/// What is not whole bytes.
pub(crate) fn fraction(path: &str, amount: &Quantity) -> Option<String> {
    let exact = Exact::of(amount);
    let is_whole = Exact::from_units(exact.units()) == exact;
    let what = format!("fractional byte value {:?} is invalid", amount.0);
    (!is_whole).then(|| format!("{path}: {what}, must be an integer"))
}

fn fractions(path: &str, container: &Container, warnings: &mut Vec<String>) {
    let Some(resources) = &container.resources else { return };
    for name in ["memory", "ephemeral-storage"] {
        for (field, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
            let Some(amount) = amounts.as_ref().and_then(|it| it.get(name)) else { continue };
            warnings.extend(fraction(&format!("{path}.resources.{field}[{name}]"), amount));
        }
    }
}
/// A variable that is set twice and does not build on its first value.
fn hidden_variables(path: &str, container: &Container, warnings: &mut Vec<String>) {
    let variables = list(&container.env);
    for (n, it) in variables.iter().enumerate() {
        let reference = format!("$({})", it.name);
        let value = text(&it.value);
        let builds_on = value.contains(&reference) && value != reference && it.value_from.is_none();
        let again = variables[..n].iter().any(|other| other.name == it.name);
        if again && !builds_on {
            let what = format!("hides previous definition of {:?}", it.name);
            warnings
                .push(format!("{path}.env[{n}]: {what}, which may be dropped when using apply"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn warns_of_what_is_allowed_and_surprises() {
        let env = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"},
            {"name": "A", "value": "3"}]);
        let spec = json!({"terminationGracePeriodSeconds": -1, "containers": [{"name": "c",
            "env": env, "resources": {"limits": {"memory": "100m"}}}]});
        assert_eq!(
            of_spec("spec", &serde_json::from_value(spec).unwrap()),
            [
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }
}
