//! Other requests and limits for a pod that runs already.
//!
//! Upstream: `validation.go` (ValidatePodResize), `pkg/registry/core/pod/strategy.go` (dropNonResizeUpdates), 1.36.

use super::update::MIRROR;
use crate::{
    core::pod::qos_class,
    field::{Errors, quoted},
    k8s::{
        api::core::v1::{Container, Pod, PodSpec, ResourceRequirements},
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::absent::{list, same, text},
};
use std::collections::BTreeMap;

type List = Option<BTreeMap<String, Quantity>>;

/// The pod as it was, with the resources that were asked for. Containers that came, went or were renamed stay for the
/// validation to find.
pub(super) fn keep_others(pod: &mut Pod, old: &Pod) {
    let (Some(wanted), Some(before)) = (&pod.spec, &old.spec) else { return };
    let counts = |it: &PodSpec| (it.containers.len(), list(&it.init_containers).len());
    if counts(wanted) != counts(before) {
        return;
    }
    let mut spec = before.clone();
    spec.resources.clone_from(&wanted.resources);
    spec.containers = merged(&wanted.containers, &before.containers);
    if let Some(init) = &before.init_containers {
        spec.init_containers = Some(merged(list(&wanted.init_containers), init));
    }
    pod.spec = Some(spec);
}

fn merged(wanted: &[Container], before: &[Container]) -> Vec<Container> {
    if wanted.iter().zip(before).any(|(new, old)| new.name != old.name) {
        return wanted.to_vec();
    }
    let one = |(new, old): (&Container, &Container)| Container {
        resources: new.resources.clone(),
        resize_policy: new.resize_policy.clone(),
        ..old.clone()
    };
    wanted.iter().zip(before).map(one).collect()
}

/// cpu and memory may change, and nothing that has them may lose them.
pub(super) fn validate_update(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let refuse = |errors: &mut Errors, why: &str| {
        errors.0.clear();
        errors.forbidden("[]", why);
    };
    if old.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(MIRROR)) {
        return refuse(errors, "static pods cannot be resized");
    }
    let (Some(spec), Some(before)) = (&pod.spec, &old.spec) else { return };
    if before.os.as_ref().is_some_and(|it| it.name == "windows") {
        return refuse(errors, "windows pods cannot be resized");
    }
    let class = old.status.as_ref().map_or("", |it| text(&it.qos_class));
    let class = if class.is_empty() { qos_class(before) } else { class };
    if class != qos_class(spec) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.invalid("spec", quoted(class), why);
    }
    validate_whole(spec, before, errors);
    if !validate_order(spec, before, errors) {
        return;
    }
    let init = list(&spec.init_containers).iter().zip(list(&before.init_containers));
    for (n, (new, old)) in init.enumerate() {
        let path = format!("spec.initContainers[{n}]");
        validate_kept(&format!("{path}.resources"), new, old, errors);
        if !same(&masked(new, old), old) {
            let why = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.forbidden(&path, why);
        }
        let restarts =
            list(&new.resize_policy).iter().any(|it| it.restart_policy == "RestartContainer");
        if restarts && new.restart_policy.as_deref() != Some("Always") && !same(new, old) {
            let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.forbidden(path, why);
        }
    }
    for (n, (new, old)) in spec.containers.iter().zip(&before.containers).enumerate() {
        validate_kept(&format!("spec.containers[{n}].resources"), new, old, errors);
        if !same(&masked(new, old), old) {
            errors.forbidden("spec", "only cpu and memory resources are mutable");
        }
    }
}

fn validate_whole(spec: &PodSpec, before: &PodSpec, errors: &mut Errors) {
    let empty = ResourceRequirements::default();
    let (new, old) = match (&spec.resources, &before.resources) {
        (None, None) => return,
        (None, Some(_)) => {
            return errors.forbidden("spec.resources", "pod-level resources cannot be removed");
        }
        (Some(new), old) => (new, old.as_ref().unwrap_or(&empty)),
    };
    if is_less(&new.requests, &old.requests) {
        let why = "pod-level resource requests cannot be removed";
        errors.forbidden("spec.resources.requests", why);
    }
    if is_less(&new.limits, &old.limits) {
        errors.forbidden("spec.resources.limits", "pod-level resource limits cannot be removed");
    }
    if !same(&masked_resources(new, old), old) {
        errors.forbidden("spec", "only cpu and memory resources are mutable at pod-level");
    }
}

/// False if there is no sense in comparing container by container.
fn validate_order(spec: &PodSpec, before: &PodSpec, errors: &mut Errors) -> bool {
    let known = errors.0.len();
    let lists = [
        ("containers", spec.containers.as_slice(), before.containers.as_slice()),
        ("initContainers", list(&spec.init_containers), list(&before.init_containers)),
    ];
    for (field, new, old) in lists {
        if new.len() != old.len() {
            let why = format!("{field} may not be added or removed on resize");
            errors.forbidden(format!("spec.{field}"), why);
            continue;
        }
        for (n, (new, old)) in new.iter().zip(old).enumerate() {
            if new.name != old.name {
                let why = format!("{field} may not be renamed or reordered on resize");
                errors.forbidden(format!("spec.{field}[{n}].name"), why);
            }
        }
    }
    errors.0.len() == known
}

fn validate_kept(path: &str, new: &Container, old: &Container, errors: &mut Errors) {
    let of = |it: &Container| it.resources.clone().unwrap_or_default();
    let (new, old) = (of(new), of(old));
    if is_less(&new.requests, &old.requests) {
        errors.forbidden(format!("{path}.requests"), "resource requests cannot be removed");
    }
    if is_less(&new.limits, &old.limits) {
        errors.forbidden(format!("{path}.limits"), "resource limits cannot be removed");
    }
}

/// Something of `old` is missing.
fn is_less(new: &List, old: &List) -> bool {
    let has = |name: &String| new.as_ref().is_some_and(|it| it.contains_key(name));
    old.iter().flatten().any(|(name, _)| !has(name))
}

/// The new container with cpu and memory, and when they restart it, as they were.
fn masked(new: &Container, old: &Container) -> Container {
    let of = |it: &Container| it.resources.clone().unwrap_or_default();
    Container {
        resources: Some(masked_resources(&of(new), &of(old))),
        resize_policy: old.resize_policy.clone(),
        ..new.clone()
    }
}

fn masked_resources(
    new: &ResourceRequirements,
    old: &ResourceRequirements,
) -> ResourceRequirements {
    let list = |new: &List, old: &List| -> List {
        let others =
            new.iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory"));
        let own =
            old.iter().flatten().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
        let all: BTreeMap<_, _> =
            others.chain(own).map(|(name, amount)| (name.clone(), amount.clone())).collect();
        Some(all).filter(|it| !it.is_empty())
    };
    ResourceRequirements {
        limits: list(&new.limits, &old.limits),
        requests: list(&new.requests, &old.requests),
        claims: new.claims.clone(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Errors, Kind, Subresource, k8s::api::core::v1::Pod};
    use serde_json::{Value, json};

    fn pod(resources: Value, image: &str) -> Pod {
        let spec = json!({"containers": [{"name": "app", "image": image, "resources": resources}]});
        let mut pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec}),
        )
        .unwrap();
        Kind::default(&mut pod);
        pod.metadata.generation = Some(1);
        pod
    }

    fn wrong(pod: &Pod, old: &Pod) -> String {
        let mut errors = Errors::default();
        pod.validate_part(Subresource::Resize, old, &mut errors);
        errors.message()
    }

    #[test]
    fn cpu_and_memory_change_and_nothing_else_does() {
        let old = pod(json!({"requests": {"cpu": "10m", "memory": "10Mi"}}), "a");
        let mut new = pod(json!({"requests": {"cpu": "20m", "memory": "5Mi"}}), "b");
        new.prepare_part(Subresource::Resize, &old);
        let container = &new.spec.as_ref().unwrap().containers[0];
        assert_eq!(container.image.as_deref(), Some("a"), "the image is none of its business");
        assert_eq!(
            container.resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0,
            "20m"
        );
        assert_eq!(new.metadata.generation, Some(2));
        assert_eq!(wrong(&new, &old), "");
    }

    #[test]
    fn nothing_is_taken_away_and_the_class_stays() {
        let old = pod(json!({"requests": {"cpu": "10m", "memory": "10Mi"}}), "a");
        let less = pod(json!({"requests": {"cpu": "10m"}}), "a");
        assert!(wrong(&less, &old).contains("resource requests cannot be removed"));
        let amounts = json!({"cpu": "10m", "memory": "10Mi"});
        let full = pod(json!({"requests": amounts, "limits": amounts}), "a");
        assert!(
            wrong(&full, &old).contains("Pod QOS Class may not change as a result of resizing")
        );
        let disk = pod(
            json!({"requests": {"cpu": "10m", "memory": "10Mi", "ephemeral-storage": "1Gi"}}),
            "a",
        );
        assert!(wrong(&disk, &old).contains("only cpu and memory resources are mutable"));
    }
}
