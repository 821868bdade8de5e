//! What a PersistentVolume must be, and what may not change in it.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidatePersistentVolumeSpec and Update.

mod source;

use self::source::{validate_mount_annotation, validate_source};
use super::{MOUNT_OPTIONS, claims};
use crate::{
    core::node,
    field::{Errors, quoted},
    k8s::api::core::v1::{PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity},
    meta::{
        Exact,
        absent::{list, same, text},
        difference::difference,
        names, quantity,
    },
};

pub(super) fn validate(volume: &PersistentVolume, errors: &mut Errors) {
    let empty = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&empty);
    let modes = list(&spec.access_modes);
    if modes.is_empty() {
        errors.required("spec.accessModes", "");
    }
    claims::validate_modes("spec.accessModes", modes, errors);
    validate_capacity(spec, errors);
    let policies = ["Delete", "Recycle", "Retain"];
    match text(&spec.persistent_volume_reclaim_policy) {
        policy if policy.is_empty() || policies.contains(&policy) => {}
        policy => errors.not_supported("spec.persistentVolumeReclaimPolicy", policy, &policies),
    }
    if let Some(affinity) = &spec.node_affinity {
        let path = "spec.nodeAffinity.required";
        match &affinity.required {
            Some(selector) => node::validate_selector(path, selector, errors),
            None => errors.required(path, "must specify required node constraints"),
        }
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    validate_source(spec, name, errors);
    let root = |it: &str| clean(it) == "/";
    let of_root = spec.host_path.as_ref().is_some_and(|it| root(&it.path));
    if of_root && text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden("spec.persistentVolumeReclaimPolicy", detail);
    }
    if !text(&spec.storage_class_name).is_empty() {
        names::dns_subdomain("spec.storageClassName", text(&spec.storage_class_name), errors);
    }
    let modes = ["Block", "Filesystem"];
    if let Some(mode) = spec.volume_mode.as_deref().filter(|it| !modes.contains(it)) {
        errors.not_supported("spec.volumeMode", mode, &modes);
    }
    validate_mount_annotation(volume, spec, errors);
    if let Some(class) = &spec.volume_attributes_class_name {
        match class.as_str() {
            "" => {
                errors.required("spec.volumeAttributesClassName", "an empty string is disallowed")
            }
            class => names::dns_subdomain("spec.volumeAttributesClassName", class, errors),
        }
        if spec.csi.is_none() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.required("spec.csi", detail);
        }
    }
}

fn validate_capacity(spec: &PersistentVolumeSpec, errors: &mut Errors) {
    let empty = Default::default();
    let capacity = spec.capacity.as_ref().unwrap_or(&empty);
    if capacity.is_empty() {
        errors.required("spec.capacity", "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        let shown = serde_json::to_string(capacity).expect("API objects are plain data");
        let detail = "supported values: \"storage\"";
        let reason = crate::field::Reason::NotSupported;
        errors.push(reason, "spec.capacity", Some(shown), detail);
    }
    for (name, amount) in capacity {
        let path = format!("spec.capacity[{name}]");
        let Some(exact) = quantity::read(&path, amount, errors) else { continue };
        if exact < Exact::ZERO {
            errors.invalid(&path, exact.units(), "must be a valid resource quantity");
        }
        if exact <= Exact::ZERO {
            errors.invalid(&path, quoted(&amount.0), "must be greater than zero");
        }
    }
}

pub(super) fn validate_update(
    volume: &PersistentVolume,
    old: &PersistentVolume,
    errors: &mut Errors,
) {
    let (Some(spec), Some(before)) = (&volume.spec, &old.spec) else { return };
    let (mut now, then) = (source_of(spec), source_of(before));
    if let (Some(csi), Some(before)) = (&mut now.csi, &then.csi) {
        // The one part of a source that may be added later.
        if before.controller_expand_secret_ref.is_none() {
            csi.controller_expand_secret_ref = None;
        }
    }
    if !same(&now, &then) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        let detail = format!("{detail}\n{}", difference(&then, &now));
        errors.forbidden("spec.persistentvolumesource", detail);
    }
    if spec.volume_mode != before.volume_mode {
        let value = spec.volume_mode.as_deref().map_or_else(|| "null".to_owned(), quoted);
        errors.invalid("volumeMode", value, "field is immutable");
    }
    if let (Some(then), now) = (&before.node_affinity, &spec.node_affinity)
        && !now.as_ref().is_some_and(|now| reaches_the_same(now, then))
    {
        let shown = now.as_ref().map_or_else(
            || "null".to_owned(),
            |it| serde_json::to_string(it).expect("API objects are plain data"),
        );
        let detail = "field is immutable, except for updating from beta label to GA";
        errors.invalid("nodeAffinity", shown, detail);
    }
    let class = &spec.volume_attributes_class_name;
    if before.volume_attributes_class_name.is_some() && class.is_none() {
        let detail = "update from non-nil value to nil is forbidden";
        errors.forbidden("spec.volumeAttributesClassName", detail);
    }
}

/// Labels of nodes that had another name at first.
const RENAMED: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Whether both affinities say the same, labels that were renamed aside.
fn reaches_the_same(now: &VolumeNodeAffinity, then: &VolumeNodeAffinity) -> bool {
    let mut then = then.clone();
    let terms = |it: &VolumeNodeAffinity| {
        it.required.as_ref().map(|it| it.node_selector_terms.clone()).unwrap_or_default()
    };
    let new = terms(now);
    let old = then.required.iter_mut().flat_map(|it| &mut it.node_selector_terms);
    for (old, new) in old.zip(&new) {
        let olds = old.match_expressions.iter_mut().flatten();
        for (old, new) in olds.zip(list(&new.match_expressions)) {
            if RENAMED.contains(&(old.key.as_str(), new.key.as_str())) {
                old.key.clone_from(&new.key);
            }
        }
    }
    same(now, &then)
}

/// The spec without everything that is not its source.
fn source_of(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

/// A path without empty parts, dots and what `..` takes back, as Go's path.Clean has it.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value};
    use serde_json::{Value, json};

    fn volume(changes: Value) -> PersistentVolume {
        let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut volume = from_value(&json!({"metadata": {"name": "v"}, "spec": spec})).unwrap();
        <PersistentVolume as Kind>::default(&mut volume);
        volume
    }

    #[track_caller]
    fn check(changes: Value, expected: &str) {
        let mut errors = Errors::default();
        volume(changes).validate(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn a_volume_says_what_it_is_and_how_large() {
        check(json!({"hostPath": {"path": "/data"}}), "");
        check(
            json!({"hostPath": {"path": "/data"}, "accessModes": []}),
            "spec.accessModes: Required value",
        );
        check(json!({}), "spec: Required value: must specify a volume type");
        check(
            json!({"hostPath": {"path": "/data"}, "nfs": {"server": "s", "path": "/p"}}),
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
        );
        check(
            json!({"hostPath": {"path": "/data"}, "capacity": {"storage": "0"}}),
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
        );
        check(
            json!({"hostPath": {"path": "/data"}, "capacity": {"cpu": "1"}}),
            "spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\"",
        );
        check(
            json!({"hostPath": {"path": "/data"}, "accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]}),
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        );
        check(
            json!({"hostPath": {"path": "/data"}, "accessModes": ["Any"]}),
            "spec.accessModes: Unsupported value: \"Any\": supported values: \"ReadOnlyMany\", \
             \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
        );
        check(
            json!({"hostPath": {"path": "/."}, "persistentVolumeReclaimPolicy": "Recycle"}),
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
        );
        check(
            json!({"hostPath": {"path": "/a/../b"}}),
            "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        );
    }

    #[test]
    fn each_source_names_what_it_lacks() {
        for (source, expected) in [
            (json!({"hostPath": {}}), "spec.hostPath.path: Required value"),
            (
                json!({"nfs": {"path": "p"}}),
                "[spec.nfs.server: Required value, \
                 spec.nfs.path: Invalid value: \"p\": must be an absolute path]",
            ),
            (
                json!({"azureFile": {}}),
                "[spec.azureFile.secretName: Required value, spec.azureFile.shareName: Required value]",
            ),
            (
                json!({"rbd": {}}),
                "[spec.rbd.monitors: Required value, spec.rbd.image: Required value]",
            ),
            (json!({"cephfs": {}}), "spec.cephfs.monitors: Required value"),
            (json!({"gcePersistentDisk": {}}), "spec.persistentDisk.pdName: Required value"),
            (
                json!({"awsElasticBlockStore": {}}),
                "spec.awsElasticBlockStore.volumeID: Required value",
            ),
            (
                json!({"iscsi": {"lun": 300}}),
                "[spec.iscsi.targetPortal: Required value, spec.iscsi.iqn: Required value, \
                 spec.iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive]",
            ),
            (json!({"csi": {"driver": "d.example.com"}}), "spec.csi.volumeHandle: Required value"),
            (
                json!({"local": {"path": "/mnt"}}),
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ),
            (
                json!({"local": {"path": "/mnt"}, "nodeAffinity": {"required": {"nodeSelectorTerms": []}}}),
                "spec.nodeAffinity.required.nodeSelectorTerms: Required value: \
                 must have at least one node selector term",
            ),
        ] {
            check(source, expected);
        }
    }

    #[test]
    fn a_source_is_for_life() {
        let old = volume(json!({"hostPath": {"path": "/a"}}));
        let errors = |new: &PersistentVolume| {
            let mut errors = Errors::default();
            new.validate_update(&old, &mut errors);
            errors.message()
        };
        let same = volume(json!({"hostPath": {"path": "/a"}, "capacity": {"storage": "2Gi"}}));
        assert_eq!(errors(&same), "");
        let text = errors(&volume(json!({"hostPath": {"path": "/b"}})));
        let start = "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n@@ ";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("-  \"path\": \"/a\""), "{text}");
        let zoned = |key: &str| {
            let term =
                json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]});
            volume(json!({"hostPath": {"path": "/a"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}))
        };
        let old_zone = zoned("failure-domain.beta.kubernetes.io/zone");
        assert_eq!(errors(&old_zone), "", "an affinity may come");
        let moved = |new: &PersistentVolume| {
            let mut errors = Errors::default();
            new.validate_update(&old_zone, &mut errors);
            errors.message()
        };
        assert_eq!(
            moved(&zoned("topology.kubernetes.io/zone")),
            "",
            "the label has another name today"
        );
        assert!(
            moved(&zoned("kubernetes.io/hostname"))
                .ends_with(": field is immutable, except for updating from beta label to GA")
        );
        assert!(moved(&same).starts_with("nodeAffinity: Invalid value: null: "));
        let block = volume(json!({"hostPath": {"path": "/a"}, "volumeMode": "Block"}));
        assert_eq!(errors(&block), "volumeMode: Invalid value: \"Block\": field is immutable");
    }
}
