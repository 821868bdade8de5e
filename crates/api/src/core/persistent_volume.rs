//! `v1` PersistentVolume: a piece of storage, and which claims it would satisfy.
//!
//! Upstream: `pkg/controller/volume/persistentvolume/pv_controller.go` (checkVolumeSatisfyClaim),
//! `component-helpers/storage/volume`.

mod validate;

use crate::{
    core::{node, persistent_volume_claim as claims, pod},
    field::Errors,
    k8s::api::core::v1::{
        AzureDiskVolumeSource, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim,
        PersistentVolumeStatus,
    },
    kind::{Column, Kind, Names, Object, Scope, Subresource},
    meta::{
        Exact, Selector,
        absent::{fill, omit_zero, text},
        columns::{self, UNSET, age, name, wide},
        quantity,
    },
};
use std::{collections::BTreeMap, fmt};

/// Mount options by annotation, which old clients write.
pub const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

pub const PENDING: &str = "Pending";
pub const AVAILABLE: &str = "Available";
pub const BOUND: &str = "Bound";
pub const RELEASED: &str = "Released";
pub const FAILED: &str = "Failed";

impl Kind for PersistentVolume {
    const NAMES: Names = Names {
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short: &["pv"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/persistentvolumes";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<PersistentVolume>] = COLUMNS;

    fn default(&mut self) {
        fill(&mut self.status.get_or_insert_default().phase, PENDING);
        let spec = self.spec.get_or_insert_default();
        fill(&mut spec.persistent_volume_reclaim_policy, "Retain");
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        quantity::canonicalize(&mut spec.capacity);
        if let Some(source) = &mut spec.host_path {
            source.type_.get_or_insert_default();
        }
        if let Some(source) = &mut spec.nfs {
            omit_zero(&mut source.read_only);
        }
        if let Some(source) = &mut spec.csi {
            omit_zero(&mut source.read_only);
        }
        if let Some(source) = &mut spec.rbd {
            default_rbd(&mut source.pool, &mut source.user, &mut source.keyring);
        }
        if let Some(source) = &mut spec.iscsi {
            fill(&mut source.iscsi_interface, "default");
        }
        spec.azure_disk.iter_mut().for_each(default_azure_disk);
        if let Some(source) = &mut spec.scale_io {
            fill(&mut source.storage_mode, "ThinProvisioned");
            fill(&mut source.fs_type, "xfs");
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeStatus {
            phase: Some(PENDING.to_owned()),
            last_phase_transition_time: self.metadata.creation_timestamp.clone(),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(&mut self, old: &PersistentVolume) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &PersistentVolume) {
        self.spec.clone_from(&old.spec);
        // Who changes the phase says when: there is no clock here.
        let (Some(status), Some(before)) = (&mut self.status, &old.status) else { return };
        if status.phase == before.phase && status.last_phase_transition_time.is_none() {
            status.last_phase_transition_time.clone_from(&before.last_phase_transition_time);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_update(&self, old: &PersistentVolume, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn warnings(&self, _old: Option<&PersistentVolume>) -> Vec<String> {
        let annotation = |key: &str, since: &str, field: &str| {
            let text = format!(
                "metadata.annotations[{key}]: deprecated since {since}; use {field:?} attribute instead"
            );
            self.annotation(key).map(|_| text)
        };
        let recycle = "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        let all = [
            annotation(claims::CLASS_ANNOTATION, "v1.8", "storageClassName"),
            annotation(MOUNT_OPTIONS, "v1.31", "mountOptions"),
            (reclaim_policy(self) == "Recycle").then(|| recycle.to_owned()),
        ];
        let mut warnings: Vec<String> = all.into_iter().flatten().collect();
        let affinity = self.spec.as_ref().and_then(|it| it.node_affinity.as_ref());
        let terms = affinity.and_then(|it| it.required.as_ref()).into_iter();
        for (n, term) in terms.flat_map(|it| &it.node_selector_terms).enumerate() {
            let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{n}]");
            warnings.extend(pod::of_term(&path, term));
        }
        let Some(spec) = &self.spec else { return warnings };
        let gone = [
            (spec.cephfs.is_some(), "cephfs", "v1.28", "v1.31"),
            (spec.photon_persistent_disk.is_some(), "photonPersistentDisk", "v1.11", "v1.16"),
            (spec.scale_io.is_some(), "scaleIO", "v1.16", "v1.22"),
            (spec.storageos.is_some(), "storageOS", "v1.22", "v1.25"),
            (spec.glusterfs.is_some(), "glusterfs", "v1.25", "v1.26"),
            (spec.rbd.is_some(), "rbd", "v1.28", "v1.31"),
        ];
        let told = gone.into_iter().filter(|it| it.0).map(|(_, field, since, until)| {
            format!("spec.{field}: deprecated in {since}, non-functional in {until}+")
        });
        warnings.extend(told);
        warnings
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name().to_owned())]
    }

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        let mut keys = vec![("class", class(self).to_owned())];
        if let Some(claim) = claim_ref(self) {
            let part = |it: &Option<String>| it.clone().unwrap_or_default();
            keys.push(("claim", format!("{}/{}", part(&claim.namespace), part(&claim.name))));
        } else if !self.is_deleting() {
            let (modes, bytes) = (access_modes(self).len(), capacity(self).units());
            let created = self.metadata.creation_timestamp.as_ref();
            let created = created.map_or(0, |it| crate::meta::timestamp_of(it).0);
            keys.push(("unbound", unbound_key(class(self), modes, bytes, created)));
        }
        keys
    }
}

const COLUMNS: &[Column<PersistentVolume>] = &[
    name(),
    columns::text("Capacity", "The size of the volume.", |volume, _| {
        let capacity = || volume.spec.as_ref()?.capacity.as_ref()?.get("storage");
        capacity().and_then(|it| Exact::canonical(&it.0)).unwrap_or_else(|| "0".to_owned()).into()
    }),
    columns::text("Access Modes", "How the volume can be mounted.", |volume, _| {
        claims::short_modes(access_modes(volume)).into()
    }),
    columns::text("Reclaim Policy", "What becomes of it once its claim is gone.", |volume, _| {
        let policy = volume.spec.as_ref().map(|it| text(&it.persistent_volume_reclaim_policy));
        policy.unwrap_or_default().into()
    }),
    columns::text(
        "Status",
        "Pending, Available, Bound, Released, Failed, Terminating.",
        |volume, _| {
            if volume.is_deleting() { "Terminating".into() } else { phase(volume).into() }
        },
    ),
    columns::text("Claim", "The claim that holds it, or for which it is kept.", |volume, _| {
        let path = |it: &ObjectReference| format!("{}/{}", text(&it.namespace), text(&it.name));
        claim_ref(volume).map(path).unwrap_or_default().into()
    }),
    columns::text("StorageClass", "The class of the volume.", |volume, _| class(volume).into()),
    columns::text("VolumeAttributesClass", "The attributes class of the volume.", |volume, _| {
        let class = || volume.spec.as_ref()?.volume_attributes_class_name.as_deref();
        class().unwrap_or(UNSET).into()
    }),
    columns::text("Reason", "Why it failed, in one word.", |volume, _| {
        volume.status.as_ref().map_or("", |it| text(&it.reason)).into()
    }),
    age(),
    wide("VolumeMode", "Filesystem or Block.", |volume, _| {
        let mode = || volume.spec.as_ref()?.volume_mode.as_deref();
        mode().unwrap_or(UNSET).into()
    }),
];

pub(crate) fn default_rbd(
    pool: &mut Option<String>,
    user: &mut Option<String>,
    keyring: &mut Option<String>,
) {
    fill(pool, "rbd");
    fill(user, "admin");
    fill(keyring, "/etc/ceph/keyring");
}

pub(crate) fn default_azure_disk(source: &mut AzureDiskVolumeSource) {
    let missing = |field: &mut Option<String>, value: &str| {
        field.get_or_insert_with(|| value.to_owned());
    };
    missing(&mut source.caching_mode, "ReadWrite");
    missing(&mut source.fs_type, "ext4");
    missing(&mut source.kind, "Shared");
    source.read_only.get_or_insert(false);
}

/// The index `unbound` files volumes in the order in which the binder tries them: by class, then the
/// fewest access modes, then the smallest, then the oldest (microseconds).
pub fn unbound_key(class: &str, modes: usize, bytes: i64, created: i64) -> String {
    format!("{class}/{modes:02}/{:020}/{:020}", bytes.max(0), created.max(0))
}

/// Why a volume does not satisfy a claim. In upstream's order, the selector last: a claim that names
/// its volume is bound whatever its selector says, so the caller may forgive that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    Deleting,
    Size,
    Class,
    AttributesClass,
    VolumeMode,
    AccessModes,
    Selector,
}

/// Upstream's words, as they stand in the claim's `VolumeMismatch` event.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mismatch::Deleting => "the volume is marked for deletion",
            Mismatch::Size => "requested PV is too small",
            Mismatch::Class => "storageClassName does not match",
            Mismatch::AttributesClass => "volumeAttributesClassName does not match",
            Mismatch::VolumeMode => "incompatible volumeMode",
            Mismatch::AccessModes => "incompatible accessMode",
            Mismatch::Selector => "selector does not match",
        })
    }
}

/// Whether the volume has everything that the claim asks for. Does not look at who holds the volume
/// now ([`claim_ref`]) nor from where it can be reached ([`is_reachable_from`]).
pub fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Mismatch> {
    let attributes_class = |it: &Option<String>| it.clone().unwrap_or_default();
    let of_volume =
        volume.spec.as_ref().map(|it| attributes_class(&it.volume_attributes_class_name));
    let of_claim = claim.spec.as_ref().map(|it| attributes_class(&it.volume_attributes_class_name));
    let offered = access_modes(volume);
    let selector = claim.spec.as_ref().and_then(|it| it.selector.as_ref());
    let none = BTreeMap::new();
    let labels = volume.metadata.labels.as_ref().unwrap_or(&none);
    if volume.is_deleting() {
        Err(Mismatch::Deleting)
    } else if capacity(volume).units() < claims::requested(claim).units() {
        Err(Mismatch::Size)
    } else if class(volume) != claims::class(claim).unwrap_or_default() {
        Err(Mismatch::Class)
    } else if of_volume.unwrap_or_default() != of_claim.unwrap_or_default() {
        Err(Mismatch::AttributesClass)
    } else if volume_mode(volume) != claims::volume_mode(claim) {
        Err(Mismatch::VolumeMode)
    } else if !claims::access_modes(claim).iter().all(|it| offered.contains(it)) {
        Err(Mismatch::AccessModes)
    } else if selector.is_some_and(|it| !Selector::of(Some(it)).matches(labels)) {
        Err(Mismatch::Selector)
    } else {
        Ok(())
    }
}

/// Whether the node affinity of the volume lets pods on this node use it.
pub fn is_reachable_from(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|it| it.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|it| it.required.as_ref()) else { return true };
    node::matches_selector_terms(node, &required.node_selector_terms)
}

/// Whether the volume points at this claim: by name, and by uid once it has one.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|it| {
        it.name.as_deref() == Some(claim.name())
            && it.namespace.as_deref() == Some(claim.namespace())
            && it.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid())
    })
}

/// Who holds the volume, or for whom it is reserved (no uid yet).
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The class; empty for none.
pub fn class(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref()?.storage_class_name.as_deref();
    volume.annotation(claims::CLASS_ANNOTATION).or_else(field).unwrap_or_default()
}

/// Bytes offered.
pub fn capacity(volume: &PersistentVolume) -> Exact {
    let storage = || volume.spec.as_ref()?.capacity.as_ref()?.get("storage");
    storage().map(Exact::of).unwrap_or_default()
}

/// Access modes offered.
pub fn access_modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|it| it.access_modes.as_deref()).unwrap_or_default()
}

/// `Filesystem` unless the volume says otherwise.
pub fn volume_mode(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|it| it.volume_mode.as_deref()).unwrap_or("Filesystem")
}

/// `Retain` unless the volume says otherwise.
pub fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let policy = || volume.spec.as_ref()?.persistent_volume_reclaim_policy.as_deref();
    policy().unwrap_or("Retain")
}

/// The phase; empty on an object that was never stored.
pub fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_value;
    use serde_json::{Value, json};

    fn volume(spec: Value) -> PersistentVolume {
        from_value(&json!({"metadata": {"name": "v", "labels": {"tier": "fast"}}, "spec": spec}))
            .unwrap()
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let metadata = json!({"name": "c", "namespace": "ns", "uid": "u1"});
        from_value(&json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn says_why_a_volume_does_not_satisfy_a_claim() {
        let volume = volume(json!({"capacity": {"storage": "5Gi"}, "storageClassName": "s",
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}));
        let asks = |size: &str, class: &str, mode: &str, extra: Value| {
            let mut spec = json!({"resources": {"requests": {"storage": size}},
                "storageClassName": class, "accessModes": [mode]});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            satisfies(&volume, &claim(spec))
        };
        let one = "ReadWriteOnce";
        assert_eq!(asks("5Gi", "s", one, json!({})), Ok(()));
        assert_eq!(asks("6Gi", "t", one, json!({})), Err(Mismatch::Size));
        assert_eq!(asks("1Gi", "t", one, json!({})), Err(Mismatch::Class));
        assert_eq!(asks("1Gi", "s", "ReadWriteMany", json!({})), Err(Mismatch::AccessModes));
        assert_eq!(
            asks("1Gi", "s", one, json!({"volumeMode": "Block"})),
            Err(Mismatch::VolumeMode)
        );
        let slow = json!({"selector": {"matchLabels": {"tier": "slow"}}});
        assert_eq!(asks("1Gi", "s", one, slow), Err(Mismatch::Selector));
    }

    #[test]
    fn a_volume_is_bound_by_name_until_it_knows_the_uid() {
        let claim = claim(json!({}));
        let bound = |claim_ref: Value| is_bound_to(&volume(json!({"claimRef": claim_ref})), &claim);
        assert!(bound(json!({"namespace": "ns", "name": "c"})));
        assert!(bound(json!({"namespace": "ns", "name": "c", "uid": "u1"})));
        assert!(!bound(json!({"namespace": "ns", "name": "c", "uid": "u0"})));
        assert!(!bound(json!({"namespace": "other", "name": "c"})));
    }
}
