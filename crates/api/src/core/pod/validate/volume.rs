//! The volumes of a pod: one name and one source each, and what the source must say.

use crate::{
    core::{
        persistent_volume_claim as claims,
        volume_source::{self as source, Sources},
    },
    field::{Errors, quoted},
    k8s::api::core::v1::{
        ClusterTrustBundleProjection, DownwardAPIVolumeFile, EphemeralVolumeSource, KeyToPath,
        ProjectedVolumeSource, Volume,
    },
    meta::{
        Exact, ObjectMeta,
        absent::{list, text},
        names,
        validate::{label_selector, validate_template},
    },
};
use std::collections::BTreeMap;

/// Fields of a pod that its files may show.
pub(super) const FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Says what is wrong, and returns the volumes that are right, by name.
pub(super) fn validate<'a>(
    path: &str,
    volumes: &'a [Volume],
    pod: Option<&str>,
    errors: &mut Errors,
) -> BTreeMap<&'a str, &'a Volume> {
    let mut right = BTreeMap::new();
    for (n, volume) in volumes.iter().enumerate() {
        let path = format!("{path}[{n}]");
        let mut wrong = Errors::default();
        validate_source(&path, volume, pod, &mut wrong);
        match volume.name.as_str() {
            "" => wrong.required(format!("{path}.name"), ""),
            name => names::dns_label(format!("{path}.name"), name, &mut wrong),
        }
        if right.contains_key(volume.name.as_str()) {
            wrong.duplicate(format!("{path}.name"), quoted(&volume.name));
        }
        if wrong.is_empty() {
            right.insert(volume.name.as_str(), volume);
        }
        errors.0.append(&mut wrong.0);
        let made = |claim: &str| {
            let pod = pod.filter(|it| !it.is_empty())?;
            volumes
                .iter()
                .find(|it| it.ephemeral.is_some() && claim == format!("{pod}-{}", it.name))
        };
        let claim = volume.persistent_volume_claim.as_ref().map(|it| it.claim_name.as_str());
        if let Some(claim) = claim.filter(|it| made(it).is_some()) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(
                format!("{path}.persistentVolumeClaim.claimName"),
                quoted(claim),
                detail,
            );
        }
    }
    right
}

fn validate_source(path: &str, volume: &Volume, pod: Option<&str>, errors: &mut Errors) {
    let (mut one, at) = (Sources::of(path), path);
    one.one("emptyDir", volume.empty_dir.as_ref(), errors, |it, path, errors| {
        if it
            .size_limit
            .as_ref()
            .is_some_and(|it| Exact::parse(&it.0).is_none_or(|it| it < Exact::ZERO))
        {
            let detail = "SizeLimit field must be a valid resource quantity";
            errors.forbidden(format!("{path}.sizeLimit"), detail);
        }
    });
    one.one("hostPath", volume.host_path.as_ref(), errors, source::host_path);
    one.one("gitRepo", volume.git_repo.as_ref(), errors, |it, path, errors| {
        source::need(path, "repository", &it.repository, errors);
        source::descending(format!("{path}.directory"), text(&it.directory), errors);
    });
    one.one("gcePersistentDisk", volume.gce_persistent_disk.as_ref(), errors, source::gce);
    one.one("awsElasticBlockStore", volume.aws_elastic_block_store.as_ref(), errors, source::aws);
    one.one("secret", volume.secret.as_ref(), errors, |it, path, errors| {
        source::need(path, "secretName", text(&it.secret_name), errors);
        source::file_mode(path, "defaultMode", it.default_mode, errors);
        items(path, list(&it.items), errors);
    });
    one.one("nfs", volume.nfs.as_ref(), errors, source::nfs);
    one.one("iscsi", volume.iscsi.as_ref(), errors, |it, path, errors| {
        let truth = |it: Option<bool>| it.unwrap_or(false);
        let view = source::Iscsi {
            portal: &it.target_portal,
            iqn: &it.iqn,
            lun: it.lun,
            initiator: it.initiator_name.as_deref(),
            needs_secret: truth(it.chap_auth_discovery) || truth(it.chap_auth_session),
            has_secret: it.secret_ref.is_some(),
            in_pod: true,
            volume: &volume.name,
        };
        source::iscsi(&view, path, errors);
        let whole = volume.name.len() + 1 + it.target_portal.len();
        if it.initiator_name.is_some() && whole > source::ISCSI_NAME_MOST {
            errors.invalid(format!("{at}.name"), quoted(&volume.name), source::ISCSI_NAME_LONG);
        }
    });
    one.one("glusterfs", volume.glusterfs.as_ref(), errors, |it, path, errors| {
        source::glusterfs(&it.endpoints, &it.path, path, errors);
    });
    one.one("flocker", volume.flocker.as_ref(), errors, source::flocker);
    let claim = volume.persistent_volume_claim.as_ref();
    one.one("persistentVolumeClaim", claim, errors, |it, path, errors| {
        source::need(path, "claimName", &it.claim_name, errors);
    });
    one.one("rbd", volume.rbd.as_ref(), errors, |it, path, errors| {
        source::rbd(&it.monitors, &it.image, path, errors);
    });
    one.one("cinder", volume.cinder.as_ref(), errors, |it, path, errors| {
        source::need(path, "volumeID", &it.volume_id, errors);
        if let Some(secret) = &it.secret_ref {
            source::need(path, "secretRef.name", &secret.name, errors);
        }
    });
    one.one("cephfs", volume.cephfs.as_ref(), errors, |it, path, errors| {
        source::ceph_fs(&it.monitors, path, errors);
    });
    one.one("quobyte", volume.quobyte.as_ref(), errors, source::quobyte);
    one.one("downwardAPI", volume.downward_api.as_ref(), errors, |it, path, errors| {
        source::file_mode(path, "defaultMode", it.default_mode, errors);
        list(&it.items).iter().for_each(|it| file(path, it, errors));
    });
    one.one("fc", volume.fc.as_ref(), errors, source::fc);
    one.one("flexVolume", volume.flex_volume.as_ref(), errors, |it, path, errors| {
        source::flex(&it.driver, it.options.as_ref(), path, errors);
    });
    one.one("configMap", volume.config_map.as_ref(), errors, |it, path, errors| {
        source::need(path, "name", &it.name, errors);
        source::file_mode(path, "defaultMode", it.default_mode, errors);
        items(path, list(&it.items), errors);
    });
    one.one("azureFile", volume.azure_file.as_ref(), errors, |it, path, errors| {
        source::azure_file(&it.secret_name, &it.share_name, path, errors);
    });
    one.one("vsphereVolume", volume.vsphere_volume.as_ref(), errors, |it, path, errors| {
        source::need(path, "volumePath", &it.volume_path, errors);
    });
    let photon = volume.photon_persistent_disk.as_ref();
    one.one("photonPersistentDisk", photon, errors, |it, path, errors| {
        source::need(path, "pdID", &it.pd_id, errors);
    });
    one.one("portworxVolume", volume.portworx_volume.as_ref(), errors, |it, path, errors| {
        source::need(path, "volumeID", &it.volume_id, errors);
    });
    one.one("azureDisk", volume.azure_disk.as_ref(), errors, source::azure_disk);
    one.one("storageos", volume.storageos.as_ref(), errors, |it, path, errors| {
        source::storage_os(&it.volume_name, &it.volume_namespace, path, errors);
        if let Some(secret) = &it.secret_ref {
            source::need(path, "secretRef.name", &secret.name, errors);
        }
    });
    one.one("projected", volume.projected.as_ref(), errors, projected);
    one.one("scaleIO", volume.scale_io.as_ref(), errors, |it, path, errors| {
        source::scale_io(&it.gateway, &it.system, &it.volume_name, path, errors);
    });
    one.one("csi", volume.csi.as_ref(), errors, |it, path, errors| {
        names::driver(format!("{path}.driver"), &it.driver, errors);
        match it.node_publish_secret_ref.as_ref().map(|it| it.name.as_str()) {
            None => {}
            Some("") => errors.required(format!("{path}.nodePublishSecretRef.name"), ""),
            Some(name) => names::dns_subdomain(format!("{path}.name"), name, errors),
        }
    });
    one.one("ephemeral", volume.ephemeral.as_ref(), errors, |it, at, errors| {
        ephemeral(at, it, errors);
        let Some(pod) = pod.filter(|it| !it.is_empty() && !volume.name.is_empty()) else { return };
        let claim = format!("{pod}-{}", volume.name);
        let mut wrong = Errors::default();
        names::dns_subdomain("", &claim, &mut wrong);
        for it in wrong.0 {
            let detail = format!("PVC name {claim:?}: {}", it.detail);
            errors.invalid(format!("{path}.name"), quoted(&volume.name), detail);
        }
    });
    one.one("image", volume.image.as_ref(), errors, |it, path, errors| {
        if pod.is_some() {
            source::need(path, "reference", text(&it.reference), errors);
        }
        let policies = ["Always", "IfNotPresent", "Never"];
        super::one_of(format!("{path}.pullPolicy"), text(&it.pull_policy), &policies, errors);
    });
    one.finish(errors);
}

fn ephemeral(path: &str, source: &EphemeralVolumeSource, errors: &mut Errors) {
    let path = format!("{path}.volumeClaimTemplate");
    let Some(template) = &source.volume_claim_template else {
        errors.required(path, "");
        return;
    };
    let meta = format!("{path}.metadata");
    validate_template(&meta, template.metadata.as_ref(), errors);
    for field in template.metadata.iter().flat_map(no_part_of_a_template) {
        errors.forbidden(format!("{meta}.{field}"), "cannot be set");
    }
    claims::validate_spec(&format!("{path}.spec"), &template.spec, errors);
}

/// Metadata that a template cannot hand on.
fn no_part_of_a_template(meta: &ObjectMeta) -> Vec<&'static str> {
    let set = |it: &Option<String>| !text(it).is_empty();
    let fields = [
        ("name", set(&meta.name)),
        ("generateName", set(&meta.generate_name)),
        ("namespace", set(&meta.namespace)),
        ("selfLink", set(&meta.self_link)),
        ("uID", set(&meta.uid)),
        ("resourceVersion", set(&meta.resource_version)),
        ("generation", meta.generation.unwrap_or(0) != 0),
        ("creationTimestamp", meta.creation_timestamp.is_some()),
        ("deletionTimestamp", meta.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", meta.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", meta.owner_references.is_some()),
        ("finalizers", meta.finalizers.is_some()),
        ("managedFields", meta.managed_fields.is_some()),
    ];
    fields.into_iter().filter(|it| it.1).map(|it| it.0).collect()
}

/// Without an account there is nobody a token could be of.
pub(super) fn forbid_tokens(path: &str, volumes: &[Volume], errors: &mut Errors) {
    for (n, volume) in volumes.iter().enumerate() {
        let parts = volume.projected.iter().flat_map(|it| list(&it.sources)).enumerate();
        for (m, _) in parts.filter(|it| it.1.service_account_token.is_some()) {
            let path = format!("{path}[{n}].projected.sources[{m}].serviceAccountToken");
            errors.forbidden(path, "must not be specified when serviceAccountName is not set");
        }
    }
}

fn items(path: &str, items: &[KeyToPath], errors: &mut Errors) {
    for (n, it) in items.iter().enumerate() {
        let path = format!("{path}.items[{n}]");
        source::need(&path, "key", &it.key, errors);
        source::need(&path, "path", &it.path, errors);
        source::descending_unreserved(format!("{path}.path"), &it.path, errors);
        source::file_mode(&path, "mode", it.mode, errors);
    }
}

fn file(path: &str, file: &DownwardAPIVolumeFile, errors: &mut Errors) {
    source::need(path, "path", &file.path, errors);
    source::descending_unreserved(format!("{path}.path"), &file.path, errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            super::environment::field_ref(&format!("{path}.fieldRef"), field, &FIELDS, errors);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "\"resource\"", detail);
            }
        }
        (None, Some(field)) => {
            let path = format!("{path}.resourceFieldRef");
            super::environment::resource_ref(&path, field, true, errors);
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    source::file_mode(path, "mode", file.mode, errors);
}

fn trust_bundle(path: &str, it: &ClusterTrustBundleProjection, errors: &mut Errors) {
    match (&it.name, &it.signer_name) {
        (Some(_), Some(_)) => {
            let shown = serde_json::to_string(it).expect("API objects are plain data");
            errors.invalid(path, shown, "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(format!("{path}.name"), "must be a valid object name");
            }
            if let Some(selector) = &it.label_selector {
                let shown = serde_json::to_string(selector).expect("API objects are plain data");
                let detail = "labelSelector must be unset if name is specified";
                errors.invalid(format!("{path}.labelSelector"), shown, detail);
            }
        }
        (None, Some(name)) => {
            if name.is_empty() {
                errors.required(format!("{path}.signerName"), "must be a valid signer name");
            }
            if let Some(selector) = &it.label_selector {
                label_selector(&format!("{path}.labelSelector"), selector, errors);
            }
        }
        (None, None) => errors.required(path, "either name or signerName must be specified"),
    }
    source::need(path, "path", &it.path, errors);
    source::descending_unreserved(format!("{path}.path"), &it.path, errors);
}

fn projected(volume: &ProjectedVolumeSource, path: &str, errors: &mut Errors) {
    source::file_mode(path, "defaultMode", volume.default_mode, errors);
    let mut paths: Vec<String> = Vec::new();
    let mut add = |target: &str, shown: &str, errors: &mut Errors| {
        if paths.iter().any(|it| it == target) {
            errors.invalid(path, quoted(shown), "conflicting duplicate paths");
        } else if !target.is_empty() {
            paths.push(target.to_owned());
        }
    };
    for (n, part) in list(&volume.sources).iter().enumerate() {
        let at = format!("{path}.sources[{n}]");
        let mut count = 0;
        let keyed = [
            ("secret", part.secret.as_ref().map(|it| (&it.name, &it.items))),
            ("configMap", part.config_map.as_ref().map(|it| (&it.name, &it.items))),
        ];
        for (field, source) in keyed {
            let Some((name, keys)) = source else { continue };
            count += 1;
            let at = format!("{at}.{field}");
            source::need(&at, "name", name, errors);
            items(&at, list(keys), errors);
            list(keys).iter().for_each(|it| add(&it.path, name, errors));
        }
        if let Some(it) = &part.downward_api {
            count += 1;
            for it in list(&it.items) {
                file(&format!("{at}.downwardAPI"), it, errors);
                add(&it.path, &it.path, errors);
            }
        }
        if let Some(it) = &part.service_account_token {
            count += 1;
            let seconds = it.expiration_seconds.unwrap_or(3600);
            let at = format!("{at}.serviceAccountToken.expirationSeconds");
            if seconds < 600 {
                errors.invalid(at, seconds, "may not specify a duration less than 10 minutes");
            } else if seconds > 1 << 32 {
                errors.invalid(at, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            match it.path.as_str() {
                "" => errors.required(format!("{path}.path"), ""),
                target => source::descending_unreserved(format!("{path}.path"), target, errors),
            }
        }
        if let Some(it) = &part.cluster_trust_bundle {
            count += 1;
            trust_bundle(&format!("{at}.clusterTrustBundle"), it, errors);
            add(&it.path, &it.path, errors);
        }
        count += usize::from(part.pod_certificate.is_some());
        if count > 1 {
            errors.forbidden(at, "may not specify more than 1 volume type per source");
        }
    }
}
