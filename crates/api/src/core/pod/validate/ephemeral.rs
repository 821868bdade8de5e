//! Containers that come to a pod that runs already, to look at it.
//!
//! Upstream: `validation.go` (validateEphemeralContainers, ValidatePodEphemeralContainersUpdate), 1.36.

use super::{
    container::{Volumes, common},
    update::MIRROR,
};
use crate::{
    core::pod::as_container,
    field::{Errors, quoted},
    k8s::api::core::v1::{EphemeralContainer, Pod, PodSpec},
    meta::{
        absent::{list, same, text},
        difference::difference,
    },
};
use std::collections::BTreeSet;

const REFUSED: &str = "cannot be set for an Ephemeral Container";

/// Says what is wrong with the ephemeral containers of a spec.
pub(super) fn validate(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let volumes: Volumes<'_> =
        list(&spec.volumes).iter().map(|it| (it.name.as_str(), it)).collect();
    let others = spec.containers.iter().chain(list(&spec.init_containers));
    let others: BTreeSet<&str> = others.map(|it| it.name.as_str()).collect();
    let mut all = others.clone();
    for (n, it) in list(&spec.ephemeral_containers).iter().enumerate() {
        let path = format!("{path}.ephemeralContainers[{n}]");
        let container = as_container(it);
        common(&path, &container, spec, &volumes, errors);
        super::trimmed(format!("{path}.image"), text(&it.image), errors);
        if !all.insert(&it.name) {
            errors.duplicate(format!("{path}.name"), quoted(&it.name));
        }
        let target = text(&it.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(format!("{path}.targetContainerName"), quoted(target));
        }
        for field in unfit(it) {
            errors.forbidden(format!("{path}.{field}"), REFUSED);
        }
        for (m, mount) in list(&it.volume_mounts).iter().enumerate() {
            let path = format!("{path}.volumeMounts[{m}]");
            if !text(&mount.sub_path).is_empty() {
                errors.forbidden(format!("{path}.subPath"), REFUSED);
            }
            if !text(&mount.sub_path_expr).is_empty() {
                errors.forbidden(format!("{path}.subPathExpr"), REFUSED);
            }
        }
    }
}

/// What a pod may not depend on.
fn unfit(it: &EphemeralContainer) -> impl Iterator<Item = &'static str> {
    let resources = it.resources.as_ref().is_some_and(|it| *it != Default::default());
    let set = [
        ("ports", !list(&it.ports).is_empty()),
        ("resources", resources),
        ("resizePolicy", !list(&it.resize_policy).is_empty()),
        ("restartPolicy", it.restart_policy.is_some()),
        ("restartPolicyRules", !list(&it.restart_policy_rules).is_empty()),
        ("livenessProbe", it.liveness_probe.is_some()),
        ("readinessProbe", it.readiness_probe.is_some()),
        ("startupProbe", it.startup_probe.is_some()),
        ("lifecycle", it.lifecycle.is_some()),
    ];
    set.into_iter().filter(|it| it.1).map(|it| it.0)
}

/// The pod as it was, with the ephemeral containers that were asked for.
pub(super) fn keep_others(pod: &mut Pod, old: &Pod) {
    let wanted = pod.spec.take().and_then(|it| it.ephemeral_containers);
    pod.spec.clone_from(&old.spec);
    pod.spec.get_or_insert_default().ephemeral_containers = wanted;
}

/// They come, and neither change nor go.
pub(super) fn validate_update(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let annotations = old.metadata.annotations.as_ref();
    if annotations.is_some_and(|it| it.contains_key(MIRROR)) {
        errors.0.clear();
        return errors.forbidden("[]", "static pods do not support ephemeral containers");
    }
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|it| it.ephemeral_containers.clone());
    let (now, before) = (of(pod).unwrap_or_default(), of(old).unwrap_or_default());
    let path = "spec.ephemeralContainers";
    for old in &before {
        match now.iter().find(|it| it.name == old.name) {
            None => {
                let why =
                    format!("existing ephemeral containers {:?} may not be removed\n", old.name);
                errors.forbidden(path, why);
            }
            Some(new) if !same(new, old) => {
                let why =
                    format!("existing ephemeral containers {:?} may not be changed", old.name);
                errors.forbidden(path, format!("{why}\n{}", difference(old, new)));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Errors, Kind, Subresource, k8s::api::core::v1::Pod};
    use serde_json::{Value, json};

    fn pod(ephemeral: Value) -> Pod {
        let spec = json!({"containers": [{"name": "app", "image": "a"}], "ephemeralContainers": ephemeral});
        let mut pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec}),
        )
        .unwrap();
        Kind::default(&mut pod);
        pod
    }

    fn wrong(pod: &Pod, old: &Pod) -> String {
        let mut errors = Errors::default();
        pod.validate(&mut errors);
        pod.validate_part(Subresource::EphemeralContainers, old, &mut errors);
        errors.message()
    }

    #[test]
    fn they_come_and_neither_change_nor_go() {
        let debug = json!([{"name": "debug", "image": "b", "targetContainerName": "app"}]);
        let (none, one) = (pod(json!([])), pod(debug));
        assert_eq!(wrong(&one, &none), "");
        assert!(
            wrong(&none, &one).contains("\"debug\" may not be removed"),
            "{}",
            wrong(&none, &one)
        );
        let other = pod(json!([{"name": "debug", "image": "c", "targetContainerName": "app"}]));
        assert!(wrong(&other, &one).contains("\"debug\" may not be changed"));
        let mut errors = Errors::default();
        one.validate_create(&mut errors);
        assert!(errors.message().contains("cannot be set on create"));
        let mut errors = Errors::default();
        one.validate_update(&none, &mut errors);
        assert!(errors.message().contains("pod updates may not change fields other than"));
    }

    #[test]
    fn they_have_names_of_their_own_and_nothing_that_a_pod_depends_on() {
        let odd = pod(json!([{"name": "app", "image": "b", "ports": [{"containerPort": 1}],
            "targetContainerName": "nobody", "livenessProbe": {"tcpSocket": {"port": 1}}}]));
        let text = wrong(&odd, &pod(json!([])));
        for part in [
            "spec.ephemeralContainers[0].name: Duplicate value: \"app\"",
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"nobody\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[0].livenessProbe: Forbidden: cannot be set",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
