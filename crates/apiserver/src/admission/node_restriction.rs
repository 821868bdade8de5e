//! A node writes about itself and its own pods, and nothing else; its labels do not draw work to it.
//!
//! Upstream: `plugin/pkg/admission/noderestriction/admission.go`.

use super::{Act, Attempt, Plugin, service_account::MIRROR};
use crate::{user::User, view::View};
use api::{
    AnyObject, Erased, Failure, Object,
    certificates::v1::CertificateSigningRequest,
    coordination::v1::Lease,
    core::{
        pod::{self, references},
        v1::{Node, PersistentVolumeClaim, Pod},
    },
    storage::v1::CSINode,
};
use client::TokenWish;
use std::collections::{BTreeMap, BTreeSet};
use world::ObjectKey;

pub(super) const PLUGIN: Plugin = Plugin { name: "NodeRestriction", admit };

const LEASES: &str = "kube-node-lease";

/// Labels of the project's domains that a node may give itself.
const LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED: &str = "node-restriction.kubernetes.io";

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    // The node of this process is the process; nobody else speaks for it.
    let Some(node) = attempt.user.node().filter(|_| !attempt.user.inside) else { return Ok(()) };
    let object = object.map(|it| &**it as &dyn Erased);
    judge(attempt, node, object)
        .map_err(|why| Failure::forbidden(attempt.kind, &attempt.key.name, &why))
}

fn judge(attempt: &Attempt<'_>, node: &str, object: Option<&dyn Erased>) -> Result<(), String> {
    let (kind, act) = (attempt.kind, attempt.act);
    let old = attempt.old;
    let is = |group: &str, plural: &str| kind.group == group && kind.plural == plural;
    if is("", "pods") {
        return pods(attempt.view, node, act, typed(object), typed(old));
    }
    if is("", "nodes") {
        return nodes(node, &attempt.key.name, act, typed(object), typed(old));
    }
    if is("", "persistentvolumeclaims") {
        return claims(node, act, typed(object), typed(old));
    }
    if let Some(lease) = typed::<Lease>(object).filter(|_| is("coordination.k8s.io", "leases")) {
        return own(lease.namespace() == LEASES && lease.name() == node, || {
            format!("can only access node lease with the same name as the requesting node {node:?}")
        });
    }
    if let Some(it) = typed::<CSINode>(object).filter(|_| is("storage.k8s.io", "csinodes")) {
        return own(it.name() == node, || {
            "can only access CSINode with the same name as the requesting node".to_owned()
        });
    }
    if let Some(request) = typed::<CertificateSigningRequest>(object) {
        return request_of(node, request);
    }
    Ok(())
}

fn own(is: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is { Ok(()) } else { Err(why()) }
}

fn typed<T: 'static>(object: Option<&dyn Erased>) -> Option<&T> {
    object?.as_any().downcast_ref()
}

fn pods(
    view: &View,
    node: &str,
    act: Act,
    new: Option<&Pod>,
    old: Option<&Pod>,
) -> Result<(), String> {
    let here = |pod: &Pod| pod::node_name(pod) == node;
    match (act, new, old) {
        (Act::Create, Some(pod), _) => mirror(view, node, pod),
        (Act::Delete, _, Some(pod)) => own(here(pod), || {
            format!("node {node:?} can only delete pods with spec.nodeName set to itself")
        }),
        (Act::Status, Some(new), Some(old)) => {
            own(here(old), || {
                format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                )
            })?;
            own(new.metadata.labels == old.metadata.labels, || {
                format!("node {node:?} cannot update labels through pod status")
            })
        }
        (act, _, _) => Err(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            format!("{act:?}").to_uppercase()
        )),
    }
}

fn mirror(view: &View, node: &str, pod: &Pod) -> Result<(), String> {
    own(pod.annotation(MIRROR).is_some(), || {
        format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        )
    })?;
    own(pod::node_name(pod) == node, || {
        format!("node {node:?} can only create pods with spec.nodeName set to itself")
    })?;
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let [owner] = owners else {
        return Err(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    };
    own(owner.api_version == "v1" && owner.kind == "Node" && owner.name == node, || {
        format!("node {node:?} can only create pods with an owner reference set to itself")
    })?;
    own(owner.controller == Some(true), || {
        format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        )
    })?;
    own(owner.block_owner_deletion != Some(true), || {
        format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
    })?;
    let uid = view.world.row_of::<Node>(&ObjectKey::cluster(node)).map(|it| it.meta.uid.clone());
    let uid = uid.ok_or_else(|| format!("nodes {node:?} not found"))?;
    own(uid == owner.uid, || {
        format!("node {node} UID mismatch: expected {} got {uid}", owner.uid)
    })?;
    let refers = !references::secrets(pod).is_empty()
        || !references::config_maps(pod).is_empty()
        || !pod::claims(pod).is_empty();
    own(!refers, || format!("node {node:?} can not create pods that reference API objects"))
}

fn nodes(
    node: &str,
    name: &str,
    act: Act,
    new: Option<&Node>,
    old: Option<&Node>,
) -> Result<(), String> {
    own(name == node, || format!("node {node:?} is not allowed to modify node {name:?}"))?;
    let Some(new) = new else { return Ok(()) };
    let none = BTreeMap::new();
    let labels = |it: Option<&'_ Node>| it.and_then(|it| it.metadata.labels.clone());
    let (now, was) = (labels(Some(new)).unwrap_or_default(), labels(old).unwrap_or(none));
    let changed: BTreeSet<&str> = now
        .iter()
        .filter(|(key, value)| was.get(*key) != Some(value))
        .chain(was.iter().filter(|(key, _)| !now.contains_key(*key)))
        .map(|(key, _)| key.as_str())
        .filter(|it| is_forbidden(it))
        .collect();
    let shown = || changed.iter().copied().collect::<Vec<_>>().join(", ");
    match (act, old) {
        (Act::Create, _) => own(changed.is_empty(), || {
            format!("node {node:?} is not allowed to set the following labels: {}", shown())
        }),
        (Act::Update | Act::Status, Some(old)) => {
            let taints = |it: &Node| it.spec.as_ref().and_then(|it| it.taints.clone());
            own(taints(new).unwrap_or_default() == taints(old).unwrap_or_default(), || {
                format!("node {node:?} is not allowed to modify taints")
            })?;
            let owners = |it: &Node| it.metadata.owner_references.clone().unwrap_or_default();
            own(owners(new) == owners(old), || {
                format!("node {node:?} is not allowed to modify ownerReferences")
            })?;
            own(changed.is_empty(), || format!("is not allowed to modify labels: {}", shown()))
        }
        (Act::Update | Act::Status | Act::Delete, _) => Ok(()),
    }
}

fn is_forbidden(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let below = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if below(RESTRICTED) {
        return true;
    }
    let known = LABELS.contains(&label) || LABEL_DOMAINS.iter().any(|it| below(it));
    (below("kubernetes.io") || below("k8s.io")) && !known
}

fn claims(
    node: &str,
    act: Act,
    new: Option<&PersistentVolumeClaim>,
    old: Option<&PersistentVolumeClaim>,
) -> Result<(), String> {
    let (Act::Status, Some(new), Some(old)) = (act, new, old) else {
        return Err("may only update PVC status".to_owned());
    };
    let bare = |it: &PersistentVolumeClaim| {
        let mut copy = it.clone();
        copy.metadata.resource_version = None;
        copy.metadata.managed_fields = None;
        if let Some(status) = copy.status.as_mut() {
            status.capacity = None;
            status.conditions = None;
            status.allocated_resources = None;
            status.allocated_resource_statuses = None;
        }
        copy
    };
    own(bare(new) == bare(old), || {
        format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        )
    })
}

/// A node asks for certificates in its own name only.
fn request_of(node: &str, request: &CertificateSigningRequest) -> Result<(), String> {
    let signer = request.spec.signer_name.as_str();
    if !matches!(
        signer,
        "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet"
    ) {
        return Ok(());
    }
    let name = crate::certificates::common_name(&request.spec.request.0);
    let name = name.ok_or_else(|| "unable to parse csr".to_owned())?;
    let expected = format!("system:node:{node}");
    own(name == expected, || format!("can only create a node CSR with CN={expected}"))
}

/// A node gets tokens for pods that it runs, and for nothing else.
pub(crate) fn token(view: &View, user: &User, wish: &TokenWish) -> Result<(), Failure> {
    let Some(node) = user.node().filter(|_| !user.inside) else { return Ok(()) };
    let kind = api::kind_of::<api::core::v1::ServiceAccount>();
    let refuse = |why: &str| Err(Failure::forbidden(kind, &wish.account, why));
    let bound = wish
        .bound
        .as_ref()
        .filter(|it| it.api_version == "v1" && it.kind == "Pod" && !it.name.is_empty());
    let Some(bound) = bound else { return refuse("node requested token not bound to a pod") };
    if bound.uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = view.world.get::<Pod>(&ObjectKey::new(&wish.namespace, &bound.name));
    let pod = pod.ok_or_else(|| Failure::not_found(api::kind_of::<Pod>(), &bound.name))?;
    if pod.uid() != bound.uid {
        return refuse(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound.uid
        ));
    }
    if pod::node_name(&pod) != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    audience(&pod, wish).or_else(|why| refuse(&why))
}

/// Only audiences that the pod itself asks for.
fn audience(pod: &Pod, wish: &TokenWish) -> Result<(), String> {
    let asked = match wish.audiences.as_slice() {
        [] => "",
        [one] => one,
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    let volumes = pod.spec.iter().flat_map(|it| it.volumes.iter().flatten());
    let parts =
        volumes.flat_map(|it| it.projected.iter().flat_map(|it| it.sources.iter().flatten()));
    let mut own = parts.filter_map(|it| it.service_account_token.as_ref());
    let is_named = own.any(|it| it.audience.as_deref().unwrap_or_default() == asked);
    self::own(is_named, || format!("audience {asked:?} not found in pod spec volume"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_not_draw_work_with_labels() {
        for label in ["a", "example.com/a", "kubernetes.io/arch", "node.kubernetes.io/x"] {
            assert!(!is_forbidden(label), "{label}");
        }
        for label in [
            "node-role.kubernetes.io/control-plane",
            "node-restriction.kubernetes.io/x",
            "x.node-restriction.kubernetes.io/x",
            "k8s.io/x",
        ] {
            assert!(is_forbidden(label), "{label}");
        }
    }
}
