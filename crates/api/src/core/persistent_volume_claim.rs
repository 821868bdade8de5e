//! `v1` PersistentVolumeClaim: what someone asks of a volume.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, `pkg/registry/core/persistentvolumeclaim`.

mod validate;

pub(crate) use validate::{validate_modes, validate_spec};

use crate::{
    core::pod,
    field::Errors,
    k8s::api::core::v1::{
        PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
        TypedLocalObjectReference, TypedObjectReference,
    },
    kind::{Column, Kind, Names, Object, Scope, Subresource},
    meta::{
        Exact,
        absent::{fill, list, text},
        columns::{self, UNSET, age, name, wide},
        quantity,
    },
};

/// The class by annotation, which old clients write; it wins over the field.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub const PENDING: &str = "Pending";
pub const BOUND: &str = "Bound";
pub const LOST: &str = "Lost";

impl Kind for PersistentVolumeClaim {
    const NAMES: Names = Names {
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short: &["pvc"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/persistentvolumeclaims";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<PersistentVolumeClaim>] = COLUMNS;

    fn default(&mut self) {
        let status = self.status.get_or_insert_default();
        fill(&mut status.phase, PENDING);
        quantity::canonicalize(&mut status.capacity);
        quantity::canonicalize(&mut status.allocated_resources);
        default_spec(self.spec.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeClaimStatus {
            phase: Some(PENDING.to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
        let spec = self.spec.get_or_insert_default();
        drop_sources(spec, None);
        normalize_sources(spec);
    }

    fn prepare_update(&mut self, old: &PersistentVolumeClaim) {
        self.status.clone_from(&old.status);
        let spec = self.spec.get_or_insert_default();
        drop_sources(spec, old.spec.as_ref());
        normalize_sources(spec);
    }

    fn prepare_status(&mut self, old: &PersistentVolumeClaim) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = PersistentVolumeClaimSpec::default();
        validate_spec("spec", self.spec.as_ref().unwrap_or(&empty), errors);
    }

    fn validate_update(&self, old: &PersistentVolumeClaim, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_status(&self, _old: &PersistentVolumeClaim, errors: &mut Errors) {
        validate::validate_status(self, errors);
    }

    fn warnings(&self, _old: Option<&PersistentVolumeClaim>) -> Vec<String> {
        let text = format!(
            "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        );
        let mut warnings: Vec<String> =
            self.annotation(CLASS_ANNOTATION).map(|_| text).into_iter().collect();
        warnings.extend(spec_warnings("spec", self.spec.as_ref()));
        warnings
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name().to_owned())]
    }

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        let class = class(self).unwrap_or_default().to_owned();
        let mut keys = vec![("volume", volume_name(self).to_owned()), ("class", class.clone())];
        if phase(self) != "Bound" {
            keys.push(("unbound", class));
        }
        keys
    }
}

/// Sentences about what a claim asks for, wherever it stands.
pub(crate) fn spec_warnings(path: &str, spec: Option<&PersistentVolumeClaimSpec>) -> Vec<String> {
    let Some(resources) = spec.and_then(|it| it.resources.as_ref()) else { return Vec::new() };
    let both = [("requests", &resources.requests), ("limits", &resources.limits)];
    let amounts = both.into_iter().filter_map(|(field, amounts)| {
        let amount = amounts.as_ref()?.get("storage")?;
        pod::fraction(&format!("{path}.resources.{field}[storage]"), amount)
    });
    amounts.collect()
}

const COLUMNS: &[Column<PersistentVolumeClaim>] = &[
    name(),
    columns::text("Status", "Pending, Bound, Lost or Terminating.", |claim, _| {
        if claim.is_deleting() { "Terminating".into() } else { phase(claim).into() }
    }),
    columns::text("Volume", "The volume that the claim is bound to.", |claim, _| {
        volume_name(claim).into()
    }),
    columns::text("Capacity", "The size of that volume.", |claim, _| {
        let capacity = || claim.status.as_ref()?.capacity.as_ref()?.get("storage");
        match (volume_name(claim), capacity()) {
            ("", _) => "".into(),
            (_, None) => "0".into(),
            (_, Some(size)) => Exact::canonical(&size.0).unwrap_or_default().into(),
        }
    }),
    columns::text("Access Modes", "How that volume can be mounted.", |claim, _| {
        let modes = claim.status.as_ref().map(|it| list(&it.access_modes)).unwrap_or_default();
        if volume_name(claim).is_empty() { "".into() } else { short_modes(modes).into() }
    }),
    columns::text("StorageClass", "The class that was asked for.", |claim, _| {
        class(claim).unwrap_or_default().into()
    }),
    columns::text("VolumeAttributesClass", "The attributes class asked for.", |claim, _| {
        let class = || claim.spec.as_ref()?.volume_attributes_class_name.as_deref();
        class().unwrap_or(UNSET).into()
    }),
    age(),
    wide("VolumeMode", "Filesystem or Block.", |claim, _| {
        let mode = || claim.spec.as_ref()?.volume_mode.as_deref();
        mode().unwrap_or(UNSET).into()
    }),
];

/// `RWO,ROX`: access modes as they are printed, in a fixed order.
pub(crate) fn short_modes(modes: &[String]) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| modes.iter().any(|it| it == mode);
    let short: Vec<&str> = known.iter().filter(|it| has(it.0)).map(|it| it.1).collect();
    short.join(",")
}

/// Fills in a spec wherever it stands: in a claim or in a template.
pub(crate) fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    if let Some(resources) = &mut spec.resources {
        quantity::canonicalize(&mut resources.limits);
        quantity::canonicalize(&mut resources.requests);
    }
}

/// Sources that were never taken are left out: those of other namespaces, and by the old field all but
/// claims and snapshots.
fn drop_sources(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let elsewhere = spec.data_source_ref.as_ref().is_some_and(|it| !text(&it.namespace).is_empty());
    if elsewhere && old.is_none_or(|it| it.data_source_ref.is_none()) {
        spec.data_source_ref = None;
    }
    let had_one = old.is_some_and(|it| it.data_source.is_some() || it.data_source_ref.is_some());
    let known = spec.data_source.as_ref().is_some_and(|it| {
        let of = (text(&it.api_group), it.kind.as_str());
        [("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")].contains(&of)
    });
    if !had_one && spec.data_source_ref.is_none() && !known {
        spec.data_source = None;
    }
}

/// The old and the new way to name a source say the same: each is filled in from the other.
fn normalize_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(old), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: old.api_group.clone(),
                kind: old.kind.clone(),
                name: old.name.clone(),
                namespace: None,
            });
        }
        (None, Some(new)) if text(&new.namespace).is_empty() => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: new.api_group.clone(),
                kind: new.kind.clone(),
                name: new.name.clone(),
            });
        }
        (None, Some(_)) | (None, None) | (Some(_), Some(_)) => {}
    }
}

/// The class asked for. `None`: none was named, so the default class may be filled in. `Some("")`:
/// explicitly none.
pub fn class(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.annotation(CLASS_ANNOTATION).or(claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// Bytes asked for.
pub fn requested(claim: &PersistentVolumeClaim) -> Exact {
    let requests = || claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage");
    requests().map(Exact::of).unwrap_or_default()
}

/// Access modes asked for.
pub fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|it| it.access_modes.as_deref()).unwrap_or_default()
}

/// `Filesystem` unless the claim says otherwise.
pub fn volume_mode(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|it| it.volume_mode.as_deref()).unwrap_or("Filesystem")
}

/// The volume that the claim names; empty while it names none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|it| it.volume_name.as_deref()).unwrap_or_default()
}

/// The phase; empty on an object that was never stored.
pub fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
}
