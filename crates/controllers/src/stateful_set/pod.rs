//! What makes a pod the pod with this ordinal: its name, labels, host name and claims.
//!
//! Upstream: `pkg/controller/statefulset/stateful_set_utils.go`, newStatefulSetPod.

use crate::owner;
use api::{
    Object,
    apps::{
        stateful_set::{POD_INDEX_LABEL, POD_NAME_LABEL, REVISION_LABEL, claim_name, pod_name},
        v1::StatefulSet,
    },
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume},
    meta::ObjectMeta,
};

pub(super) fn new(set: &StatefulSet, revision: &str, ordinal: i32) -> Pod {
    let template = set.spec.as_ref().map(|it| it.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(pod_name(set, ordinal)),
            generate_name: Some(format!("{}-", set.name())),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    let name = pod.name().to_owned();
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|it| it.service_name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    set_identity(&mut pod, ordinal);
    set_storage(set, &mut pod, ordinal);
    pod
}

/// The pod with its identity put right, if something of it was lost.
pub(super) fn with_identity(set: &StatefulSet, pod: &Pod, ordinal: i32) -> Option<Pod> {
    debug_assert_eq!(pod.name(), pod_name(set, ordinal));
    let mut fixed = pod.clone();
    set_identity(&mut fixed, ordinal);
    (fixed != *pod).then_some(fixed)
}

/// The claims of the pod with this ordinal, as they are when made.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let selector = set.spec.as_ref().and_then(|it| it.selector.match_labels.clone());
    let templates = set.spec.iter().flat_map(|it| it.volume_claim_templates.iter().flatten());
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template.name(), ordinal));
        claim.metadata.namespace = set.metadata.namespace.clone();
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(selector.clone().unwrap_or_default());
        claim.status = None;
        claim
    };
    templates.map(claim).collect()
}

fn set_identity(pod: &mut Pod, ordinal: i32) {
    let name = pod.name().to_owned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name);
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
}

/// A volume for each claim template; it takes the place of a volume of the same name.
fn set_storage(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let templates = set.spec.iter().flat_map(|it| it.volume_claim_templates.iter().flatten());
    let own: Vec<Volume> = templates
        .map(|template| Volume {
            name: template.name().to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template.name(), ordinal),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    volumes.retain(|it| !own.iter().any(|other| other.name == it.name));
    volumes.extend(own);
}
