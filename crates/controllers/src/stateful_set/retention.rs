//! Whose a claim is: by the set's retention policy it goes with the set, with its pod when the set is
//! scaled down, or with neither. The garbage collector does the rest.
//!
//! Upstream: `stateful_set_utils.go` (1.36), isClaimOwnerUpToDate and updateClaimOwnerRefForSetAndPod.

use crate::owner;
use api::{
    Kind,
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
    meta::OwnerReference,
};

/// What happens to claims when their pod or their set goes.
#[derive(Clone, Copy)]
struct Policy {
    delete_with_set: bool,
    delete_with_pod: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|it| it.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |it: Option<&String>| it.is_some_and(|it| it == "Delete");
    Policy {
        delete_with_set: deletes(policy.and_then(|it| it.when_deleted.as_ref())),
        delete_with_pod: deletes(policy.and_then(|it| it.when_scaled.as_ref())),
    }
}

/// The claim with the owners that it should have, if they are others now. `pod` is the pod by its name;
/// one that is not made yet has no uid. `is_condemned`: the set is to shrink below this pod.
pub(super) fn corrected(
    set: &StatefulSet,
    pod: &Pod,
    is_condemned: bool,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolumeClaim> {
    // It belongs to an earlier set or pod of the name: whatever that meant for it is not ours to undo.
    if is_stale(claim, set) || is_stale(claim, pod) {
        return None;
    }
    let refs = claim.metadata.owner_references.clone().unwrap_or_default();
    let policy = policy(set);
    let is_ours = |it: &OwnerReference| names(it, set) || names(it, pod);
    let retains = !policy.delete_with_set && !policy.delete_with_pod;
    let has_other_controller = refs.iter().any(|it| !is_ours(it) && it.controller == Some(true));
    let mut wanted = Vec::new();
    if retains || !has_other_controller {
        if policy.delete_with_set && !(policy.delete_with_pod && is_condemned) {
            wanted.push(owner(set));
        }
        if policy.delete_with_pod && is_condemned {
            wanted.push(owner(pod));
        }
    }
    let now: Vec<&OwnerReference> = refs.iter().filter(|it| is_ours(it)).collect();
    let is_right = now.len() == wanted.len()
        && now.iter().all(|it| {
            it.controller == Some(true) && wanted.iter().any(|wanted| wanted.uid == it.uid)
        });
    if is_right {
        return None;
    }
    let mut refs: Vec<OwnerReference> = refs.into_iter().filter(|it| !is_ours(it)).collect();
    refs.extend(wanted);
    let mut claim = claim.clone();
    claim.metadata.owner_references = (!refs.is_empty()).then_some(refs);
    Some(claim)
}

/// Whether the claim is about to go with an earlier pod of this name: the new pod has to wait.
pub(super) fn goes_with_another_pod(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
) -> bool {
    policy(set).delete_with_pod && is_stale(claim, pod)
}

fn names<T: Kind>(reference: &OwnerReference, object: &T) -> bool {
    reference.api_version == T::API_VERSION
        && reference.kind == T::KIND
        && reference.name == object.name()
}

/// Whether the claim is owned by another object of this name.
fn is_stale<T: Kind>(claim: &PersistentVolumeClaim, object: &T) -> bool {
    let refs = claim.metadata.owner_references.iter().flatten();
    let mut named = refs.filter(|it| names(it, object));
    named.next().is_some_and(|it| it.uid != object.uid())
}
