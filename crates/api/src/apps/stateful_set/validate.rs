//! What a StatefulSet must be, and what may not change in it.
//!
//! Upstream: `pkg/apis/apps/validation/validation.go`, ValidateStatefulSetSpec and Update.

use crate::{
    apps::{
        template,
        templated::{Counts, validate_collisions},
    },
    core::persistent_volume_claim as claims,
    field::{Errors, quoted},
    k8s::api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, Volume},
    },
    meta::{
        absent::{list, same, text},
        int_or_percent, names,
    },
};

pub(super) fn validate(set: &StatefulSet, errors: &mut Errors) {
    let empty = StatefulSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&empty);
    match text(&spec.pod_management_policy) {
        "" => errors.required("spec.podManagementPolicy", ""),
        "OrderedReady" | "Parallel" => {}
        policy => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.invalid("spec.podManagementPolicy", quoted(policy), detail);
        }
    }
    validate_strategy(spec, errors);
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let known = ["Retain", "Delete"];
        let fields = [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)];
        for (field, value) in fields {
            if !known.contains(&text(value)) {
                let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
                errors.not_supported(path, text(value), &known);
            }
        }
    }
    for (n, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
        let path = format!("spec.volumeClaimTemplates[{n}].spec");
        claims::validate_spec(&path, &claim.spec.clone().unwrap_or_default(), errors);
    }
    let start = spec.ordinals.as_ref().and_then(|it| it.start);
    let numbers = [
        ("replicas", spec.replicas),
        ("minReadySeconds", spec.min_ready_seconds),
        ("ordinals.start", start),
    ];
    for (field, number) in numbers {
        names::not_negative(format!("spec.{field}"), i64::from(number.unwrap_or(0)), errors);
    }
    if !text(&spec.service_name).is_empty() {
        names::dns_label("spec.serviceName", text(&spec.service_name), errors);
    }
    template::require_selector(&spec.selector, &spec.template, errors);
    validate_pods(spec, errors);
}

fn validate_strategy(spec: &StatefulSetSpec, errors: &mut Errors) {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let path = "spec.updateStrategy";
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.required(path, ""),
        ("OnDelete", Some(rolling)) => {
            let shown = template::shown_rolling(rolling);
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(format!("{path}.rollingUpdate"), shown, detail);
        }
        ("RollingUpdate", Some(rolling)) => {
            let partition = i64::from(rolling.partition.unwrap_or(0));
            names::not_negative(format!("{path}.rollingUpdate.partition"), partition, errors);
            let (most, path) =
                (rolling.max_unavailable.as_ref(), format!("{path}.rollingUpdate.maxUnavailable"));
            int_or_percent::validate(&path, most, errors);
            if let Some(most) = most.filter(|it| int_or_percent::is_zero(Some(it))) {
                errors.invalid(&path, int_or_percent::shown(most), "cannot be 0");
            }
            int_or_percent::at_most_all(&path, most, errors);
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        (kind, rolling) => {
            let shown = template::shown_strategy(kind, rolling);
            errors.invalid(path, shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

fn validate_pods(spec: &StatefulSetSpec, errors: &mut Errors) {
    let pods = spec.template.spec.clone().unwrap_or_default();
    let whole = PodTemplateSpec {
        metadata: spec.template.metadata.clone(),
        spec: Some(with_claims(pods, spec)),
    };
    template::validate_pods(&whole, &spec.selector, "StatefulSet", errors);
}

/// The template as its pods will have it: with a volume for each claim, and without the name of host
/// and subdomain, which the set gives.
fn with_claims(pods: PodSpec, spec: &StatefulSetSpec) -> PodSpec {
    let templates = list(&spec.volume_claim_templates);
    let name = |n: usize| templates[n].metadata.name.clone().unwrap_or_default();
    let claims = (0..templates.len()).map(|n| Volume {
        name: name(n),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name(n),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    });
    let own = list(&pods.volumes).iter();
    let own = own.filter(|it| !(0..templates.len()).any(|n| name(n) == it.name)).cloned();
    let volumes = Some(claims.chain(own).collect());
    PodSpec { volumes, hostname: None, subdomain: None, ..pods }
}

pub(super) fn validate_update(set: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
    let (Some(spec), Some(before)) = (&set.spec, &old.spec) else { return };
    let masked = StatefulSetSpec {
        replicas: before.replicas,
        template: before.template.clone(),
        update_strategy: before.update_strategy.clone(),
        min_ready_seconds: before.min_ready_seconds,
        ordinals: before.ordinals.clone(),
        revision_history_limit: before.revision_history_limit,
        persistent_volume_claim_retention_policy: before
            .persistent_volume_claim_retention_policy
            .clone(),
        ..spec.clone()
    };
    if !same(&masked, before) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.forbidden("spec", detail);
    }
}

pub(super) fn validate_status(set: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
    let Some(status) = &set.status else { return };
    let counts = Counts {
        replicas: status.replicas,
        of_replicas: &[
            ("readyReplicas", status.ready_replicas),
            ("currentReplicas", status.current_replicas),
            ("updatedReplicas", status.updated_replicas),
            ("availableReplicas", status.available_replicas),
        ],
        others: &[("observedGeneration", status.observed_generation)],
        ready: status.ready_replicas,
        available: status.available_replicas,
        ready_name: "status.readyReplicas",
    };
    counts.validate(errors);
    let before = old.status.as_ref().and_then(|it| it.collision_count);
    validate_collisions(status.collision_count, before, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn set(changes: Value) -> StatefulSet {
        let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "serviceName": "nginx",
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "c", "image": "nginx:1.9.1", "volumeMounts": [{"name": "www", "mountPath": "/w"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "www"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}}]});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut set =
            from_value(&json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}))
                .unwrap();
        <StatefulSet as Kind>::default(&mut set);
        set
    }

    #[track_caller]
    fn check(changes: Value, expected: &str) {
        let mut errors = Errors::default();
        set(changes).validate(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn fills_in_what_the_author_left_out() {
        let spec = crate::codec::to_value(&set(json!({})))["spec"].clone();
        for (field, value) in [
            ("replicas", json!(1)),
            ("podManagementPolicy", json!("OrderedReady")),
            ("updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
            ("revisionHistoryLimit", json!(10)),
            (
                "persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            ),
        ] {
            assert_eq!(spec[field], value, "{field}");
        }
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
        assert_eq!(claim["status"]["phase"], "Pending");
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    }

    #[test]
    fn a_set_selects_its_own_pods() {
        check(json!({}), "");
        check(
            json!({"selector": {}}),
            "[spec.selector: Required value, spec.template.metadata.labels: Invalid value: \
             {\"app\":\"web\"}: `selector` does not match template `labels`]",
        );
        check(
            json!({"selector": {"matchLabels": {"app": "db"}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: \
             `selector` does not match template `labels`",
        );
        check(
            json!({"replicas": -1}),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            json!({"volumeClaimTemplates": []}),
            "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"www\"",
        );
        check(
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}, "type": "RollingUpdate"}}),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
        );
        check(
            json!({"updateStrategy": {"type": "Odd"}}),
            "spec.updateStrategy: Invalid value: {\"Type\":\"Odd\",\"RollingUpdate\":null}: \
             must be 'RollingUpdate' or 'OnDelete'",
        );
        check(
            json!({"podManagementPolicy": "Fast"}),
            "spec.podManagementPolicy: Invalid value: \"Fast\": must be 'OrderedReady' or 'Parallel'",
        );
    }

    #[test]
    fn a_status_counts_what_there_is_and_leaves_out_zeros() {
        let of = |status: Value| {
            let mut set = set(json!({}));
            set.status = serde_json::from_value(status).unwrap();
            set
        };
        let old = of(json!({"replicas": 1, "collisionCount": 2}));
        let mut errors = Errors::default();
        of(json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "observedGeneration": -1}))
            .validate_status(&old, &mut errors);
        assert_eq!(
            errors.message(),
            "[status.observedGeneration: Invalid value: -1: must be greater than or equal to 0, \
             status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas, \
             status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas, \
             status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas, \
             status.collisionCount: Invalid value: 0: cannot be decremented]"
        );
        let mut zeros = of(json!({"replicas": 0, "readyReplicas": 0, "currentReplicas": 0}));
        zeros.spec.as_mut().unwrap().min_ready_seconds = Some(0);
        Kind::default(&mut zeros);
        let shown = crate::codec::to_value(&zeros);
        assert_eq!(shown["status"], json!({"replicas": 0, "availableReplicas": 0}));
        assert_eq!(shown["spec"].get("minReadySeconds"), None);
    }

    #[test]
    fn only_some_fields_of_a_set_change() {
        let changed = |changes: Value| {
            let mut errors = Errors::default();
            set(changes).validate_update(&set(json!({})), &mut errors);
            errors.message()
        };
        assert_eq!(changed(json!({"replicas": 3, "minReadySeconds": 5})), "");
        assert_eq!(
            changed(json!({"serviceName": "other"})),
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', \
             'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' \
             and 'minReadySeconds' are forbidden"
        );
    }

    #[test]
    fn the_generation_counts_changes_of_the_spec() {
        let mut old = set(json!({}));
        old.prepare_create();
        assert_eq!(old.metadata.generation, Some(1));
        let mut same = old.clone();
        same.status.as_mut().unwrap().replicas = 7;
        same.prepare_update(&old);
        assert_eq!((same.metadata.generation, same.status.unwrap().replicas), (Some(1), 0));
        let mut scaled = set(json!({"replicas": 2}));
        scaled.prepare_update(&old);
        assert_eq!(scaled.metadata.generation, Some(2));
        assert_eq!(row(&scaled), "web | 0/2 | <unknown> | c | nginx:1.9.1");
    }
}
