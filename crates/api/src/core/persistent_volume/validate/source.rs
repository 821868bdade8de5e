//! The source of a PersistentVolume: exactly one, with all that it needs.

use super::MOUNT_OPTIONS;
use crate::{
    Object,
    core::volume_source::{self as source, Sources},
    field::Errors,
    k8s::api::core::v1::{CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeSpec},
    meta::{absent::text, names},
};

pub(super) fn validate_source(spec: &PersistentVolumeSpec, name: &str, errors: &mut Errors) {
    let mut one = Sources::of("spec");
    one.one("hostPath", spec.host_path.as_ref(), errors, source::host_path);
    one.one("gcePersistentDisk", spec.gce_persistent_disk.as_ref(), errors, source::gce);
    one.one("awsElasticBlockStore", spec.aws_elastic_block_store.as_ref(), errors, source::aws);
    one.one("glusterfs", spec.glusterfs.as_ref(), errors, |it, path, errors| {
        source::glusterfs(&it.endpoints, &it.path, path, errors);
        let path = format!("{path}.endpointsNamespace");
        match it.endpoints_namespace.as_deref() {
            None => {}
            Some("") => {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.invalid(path, "\"\"", detail);
            }
            Some(namespace) => names::dns_label(path, namespace, errors),
        }
    });
    one.one("flocker", spec.flocker.as_ref(), errors, source::flocker);
    one.one("nfs", spec.nfs.as_ref(), errors, source::nfs);
    one.one("rbd", spec.rbd.as_ref(), errors, |it, path, errors| {
        source::rbd(&it.monitors, &it.image, path, errors);
    });
    one.one("quobyte", spec.quobyte.as_ref(), errors, source::quobyte);
    one.one("cephfs", spec.cephfs.as_ref(), errors, |it, path, errors| {
        source::ceph_fs(&it.monitors, path, errors);
    });
    one.one("iscsi", spec.iscsi.as_ref(), errors, |it, path, errors| {
        let truth = |it: Option<bool>| it.unwrap_or(false);
        let view = source::Iscsi {
            portal: &it.target_portal,
            iqn: &it.iqn,
            lun: it.lun,
            initiator: it.initiator_name.as_deref(),
            needs_secret: truth(it.chap_auth_discovery) || truth(it.chap_auth_session),
            has_secret: it.secret_ref.is_some(),
            in_pod: false,
            volume: name,
        };
        source::iscsi(&view, path, errors);
        if let Some(secret) = &it.secret_ref {
            source::need(path, "secretRef.name", text(&secret.name), errors);
        }
    });
    one.one("cinder", spec.cinder.as_ref(), errors, |it, path, errors| {
        source::need(path, "volumeID", &it.volume_id, errors);
        if let Some(secret) = &it.secret_ref {
            source::secret_anywhere(&secret.name, &secret.namespace, path, errors);
        }
    });
    one.one("fc", spec.fc.as_ref(), errors, source::fc);
    one.one("flexVolume", spec.flex_volume.as_ref(), errors, |it, path, errors| {
        source::flex(&it.driver, it.options.as_ref(), path, errors);
    });
    one.one("azureFile", spec.azure_file.as_ref(), errors, |it, path, errors| {
        source::azure_file(&it.secret_name, &it.share_name, path, errors);
        if it.secret_namespace.as_deref() == Some("") {
            errors.required(format!("{path}.secretNamespace"), "");
        }
    });
    one.one("vsphereVolume", spec.vsphere_volume.as_ref(), errors, |it, path, errors| {
        source::need(path, "volumePath", &it.volume_path, errors);
    });
    one.one(
        "photonPersistentDisk",
        spec.photon_persistent_disk.as_ref(),
        errors,
        |it, path, errors| {
            source::need(path, "pdID", &it.pd_id, errors);
        },
    );
    one.one("portworxVolume", spec.portworx_volume.as_ref(), errors, |it, path, errors| {
        source::need(path, "volumeID", &it.volume_id, errors);
    });
    one.one("azureDisk", spec.azure_disk.as_ref(), errors, source::azure_disk);
    one.one("scaleIO", spec.scale_io.as_ref(), errors, |it, path, errors| {
        source::scale_io(&it.gateway, &it.system, &it.volume_name, path, errors);
    });
    one.one("local", spec.local.as_ref(), errors, |it, path, errors| {
        match it.path.as_str() {
            "" => errors.required(format!("{path}.path"), ""),
            target => source::no_backsteps(format!("{path}.path"), target, errors),
        }
        if spec.node_affinity.is_none() {
            errors.required("spec.nodeAffinity", "Local volume requires node affinity");
        }
    });
    one.one("storageos", spec.storageos.as_ref(), errors, |it, path, errors| {
        source::storage_os(&it.volume_name, &it.volume_namespace, path, errors);
        if let Some(secret) = &it.secret_ref {
            source::secret_anywhere(&secret.name, &secret.namespace, path, errors);
        }
    });
    one.one("csi", spec.csi.as_ref(), errors, validate_csi);
    one.finish(errors);
}

/// Mount options by annotation, which only the sources that are mounted by name understand.
pub(super) fn validate_mount_annotation(
    volume: &PersistentVolume,
    spec: &PersistentVolumeSpec,
    errors: &mut Errors,
) {
    let mounted = spec.gce_persistent_disk.is_some()
        || spec.aws_elastic_block_store.is_some()
        || spec.glusterfs.is_some()
        || spec.nfs.is_some()
        || spec.rbd.is_some()
        || spec.quobyte.is_some()
        || spec.iscsi.is_some()
        || spec.cinder.is_some()
        || spec.cephfs.is_some()
        || spec.azure_file.is_some()
        || spec.vsphere_volume.is_some()
        || spec.azure_disk.is_some()
        || spec.photon_persistent_disk.is_some();
    if !mounted && volume.annotation(MOUNT_OPTIONS).is_some() {
        let detail = "may not specify mount options for this volume type";
        errors.forbidden(format!("metadata.annotations.{MOUNT_OPTIONS}"), detail);
    }
}

fn validate_csi(it: &CSIPersistentVolumeSource, path: &str, errors: &mut Errors) {
    names::driver(format!("{path}.driver"), &it.driver, errors);
    source::need(path, "volumeHandle", &it.volume_handle, errors);
    let secrets = [
        ("controllerPublishSecretRef", &it.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &it.controller_expand_secret_ref),
        ("nodePublishSecretRef", &it.node_publish_secret_ref),
        ("nodeExpandSecretRef", &it.node_expand_secret_ref),
    ];
    for (field, secret) in secrets {
        source::csi_secret(field, secret.as_ref(), path, errors);
    }
}
