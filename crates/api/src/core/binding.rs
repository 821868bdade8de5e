//! How a volume and a claim look once they are bound to each other.
//!
//! Upstream: `pv_controller.go`, bindVolumeToClaim and bindClaimToVolume: four writes there, one pair
//! of values here.

use crate::{
    core::{persistent_volume as volumes, persistent_volume_claim as claims},
    k8s::api::core::v1::{
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
        PersistentVolumeStatus,
    },
    kind::Object,
};

/// On a claim whose binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On the side that the binder chose, rather than a user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim for which the scheduler chose a node.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// How the two look once they are bound to each other.
pub fn bound_pair(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> (PersistentVolume, PersistentVolumeClaim) {
    let (mut volume, mut claim) = (volume.clone(), claim.clone());
    let yes = || "yes".to_owned();
    if volumes::claim_ref(&volume).is_none() {
        let annotations = volume.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), yes());
    }
    let spec = volume.spec.get_or_insert_default();
    let held = spec.claim_ref.as_ref().and_then(|it| it.uid.as_deref());
    if held != Some(claim.uid()) {
        spec.claim_ref = Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            namespace: claim.metadata.namespace.clone(),
            name: claim.metadata.name.clone(),
            uid: claim.metadata.uid.clone(),
            resource_version: claim.metadata.resource_version.clone(),
            ..ObjectReference::default()
        });
    }
    let status = volume.status.get_or_insert_default();
    if status.phase.as_deref() != Some(volumes::BOUND) {
        *status = PersistentVolumeStatus {
            phase: Some(volumes::BOUND.to_owned()),
            last_phase_transition_time: status.last_phase_transition_time.clone(),
            ..PersistentVolumeStatus::default()
        };
    }
    if claims::volume_name(&claim).is_empty() {
        let name = volume.metadata.name.clone();
        claim.spec.get_or_insert_default().volume_name = name;
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), yes());
    }
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.insert(BIND_COMPLETED.to_owned(), yes());
    let status = claim.status.get_or_insert_default();
    if status.phase.as_deref() != Some("Bound") {
        let spec = volume.spec.get_or_insert_default();
        *status = PersistentVolumeClaimStatus {
            phase: Some("Bound".to_owned()),
            access_modes: spec.access_modes.clone(),
            capacity: spec.capacity.clone(),
            conditions: status.conditions.take(),
            ..PersistentVolumeClaimStatus::default()
        };
    }
    (volume, claim)
}
