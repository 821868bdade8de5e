//! Volumes of a pod that no longer work, or whose files stand in each other's way.
//!
//! Upstream: `pkg/api/pod/warnings.go` (warningsForOverlappingVirtualPaths), 1.36.

use crate::{
    core::persistent_volume_claim::spec_warnings as claim_warnings,
    k8s::api::core::v1::{
        DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume, VolumeProjection,
    },
    meta::absent::{list, text},
};

/// Sentences about the sources of volumes.
pub(super) fn sources(path: &str, volumes: &[Volume], warnings: &mut Vec<String>) {
    for (n, volume) in volumes.iter().enumerate() {
        let path = format!("{path}[{n}]");
        let gone = [
            (volume.photon_persistent_disk.is_some(), "photonPersistentDisk", "v1.11", "v1.16"),
            (volume.scale_io.is_some(), "scaleIO", "v1.16", "v1.22"),
            (volume.flocker.is_some(), "flocker", "v1.22", "v1.25"),
            (volume.storageos.is_some(), "storageOS", "v1.22", "v1.25"),
            (volume.quobyte.is_some(), "quobyte", "v1.22", "v1.25"),
            (volume.glusterfs.is_some(), "glusterfs", "v1.25", "v1.26"),
            (volume.cephfs.is_some(), "cephfs", "v1.28", "v1.31"),
            (volume.rbd.is_some(), "rbd", "v1.28", "v1.31"),
        ];
        for (_, field, since, until) in gone.into_iter().filter(|it| it.0) {
            let what = format!("deprecated in {since}, non-functional in {until}+");
            warnings.push(format!("{path}.{field}: {what}"));
        }
        if volume.git_repo.is_some() {
            let what = "deprecated in v1.11, and disabled by default in v1.33+";
            warnings.push(format!("{path}.gitRepo: {what}"));
        }
        let template = volume.ephemeral.as_ref().and_then(|it| it.volume_claim_template.as_ref());
        if let Some(template) = template {
            let path = format!("{path}.ephemeral.volumeClaimTemplate.spec");
            warnings.extend(claim_warnings(&path, Some(&template.spec)));
        }
    }
}

/// Sentences about files of one volume that have the same path, or one below the other.
pub(super) fn overlaps(volumes: &[Volume], warnings: &mut Vec<String>) {
    for volume in volumes {
        let mut check = |what: String, files: Vec<File>| {
            let mut seen = Vec::new();
            for file in files {
                add(&volume.name, &what, file, &mut seen, warnings);
            }
        };
        if let Some(it) = &volume.config_map {
            check(format!("ConfigMap {:?}", it.name), of_keys(&it.items, ""));
        }
        if let Some(it) = &volume.secret {
            check(format!("Secret {:?}", text(&it.secret_name)), of_keys(&it.items, ""));
        }
        if let Some(it) = &volume.downward_api {
            check("DownwardAPI".to_owned(), of_fields(&it.items, ""));
        }
        if let Some(it) = &volume.projected {
            projected(&volume.name, it, warnings);
        }
    }
}

#[derive(Clone, PartialEq)]
struct File {
    path: String,
    /// Who brings it; empty where a volume has one source only.
    source: String,
}

impl File {
    fn new(path: &str, source: &str) -> File {
        File { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    fn shown(&self) -> String {
        match self.source.as_str() {
            "" => format!("{:?}", self.path),
            source => format!("{:?} ({source})", self.path),
        }
    }

    fn overlaps(&self, other: &File) -> bool {
        let below = |one: &str, other: &str| format!("{one}/").starts_with(&format!("{other}/"));
        !self.path.is_empty()
            && !other.path.is_empty()
            && (below(&self.path, &other.path) || below(&other.path, &self.path))
    }
}

fn projected(volume: &str, source: &ProjectedVolumeSource, warnings: &mut Vec<String>) {
    let mut seen = Vec::new();
    for part in list(&source.sources) {
        if *part == VolumeProjection::default() {
            warnings.push(format!("volume {volume:?} (Projected) has no sources provided"));
        }
        for file in of_part(part) {
            add(volume, "Projected", file, &mut seen, warnings);
        }
    }
}

fn of_part(part: &VolumeProjection) -> Vec<File> {
    if let Some(it) = part.config_map.as_ref().filter(|it| it.items.is_some()) {
        of_keys(&it.items, &format!("ConfigMap {:?}", it.name))
    } else if let Some(it) = part.secret.as_ref().filter(|it| it.items.is_some()) {
        of_keys(&it.items, &format!("Secret {:?}", it.name))
    } else if let Some(it) = part.downward_api.as_ref().filter(|it| it.items.is_some()) {
        of_fields(&it.items, "DownwardAPI")
    } else if let Some(it) = &part.service_account_token {
        vec![File::new(&it.path, "ServiceAccountToken")]
    } else if let Some(it) = &part.cluster_trust_bundle {
        let name = it.name.as_deref().or(it.signer_name.as_deref()).unwrap_or_default();
        vec![File::new(&it.path, &format!("ClusterTrustBundle {name:?}"))]
    } else if let Some(it) = &part.pod_certificate {
        let files = [
            (&it.certificate_chain_path, "PodCertificate chain"),
            (&it.key_path, "PodCertificate key"),
            (&it.credential_bundle_path, "PodCertificate credential bundle"),
        ];
        let set = files.into_iter().filter(|it| !text(it.0).is_empty());
        set.map(|(path, source)| File::new(text(path), source)).collect()
    } else {
        Vec::new()
    }
}

fn of_keys(items: &Option<Vec<KeyToPath>>, source: &str) -> Vec<File> {
    list(items).iter().map(|it| File::new(&it.path, source)).collect()
}

fn of_fields(items: &Option<Vec<DownwardAPIVolumeFile>>, source: &str) -> Vec<File> {
    list(items).iter().map(|it| File::new(&it.path, source)).collect()
}

fn add(volume: &str, what: &str, file: File, seen: &mut Vec<File>, warnings: &mut Vec<String>) {
    for other in seen.iter().filter(|it| it.overlaps(&file)) {
        let both = format!("{} with {}", file.shown(), other.shown());
        warnings.push(format!("volume {volume:?} ({what}): overlapping paths: {both}"));
    }
    seen.push(file);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(volume: Value, expected: &[&str]) {
        let volumes: Vec<Volume> = serde_json::from_value(json!([volume])).unwrap();
        let mut warnings = Vec::new();
        sources("spec.volumes", &volumes, &mut warnings);
        overlaps(&volumes, &mut warnings);
        assert_eq!(warnings, expected);
    }

    fn key(path: &str) -> Value {
        json!({"key": "k", "path": path})
    }

    #[test]
    fn files_of_one_volume_stand_in_each_others_way() {
        check(
            json!({"name": "v", "configMap": {"name": "m", "items": [key("a"), key("b"), key("a/c")]}}),
            &["volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a/c\" with \"a\""],
        );
        check(
            json!({"name": "v", "secret": {"secretName": "s", "items": [key("a/"), key("a"), key("ab")]}}),
            &["volume \"v\" (Secret \"s\"): overlapping paths: \"a\" with \"a\""],
        );
        check(
            json!({"name": "v", "projected": {"sources": [
                {"configMap": {"name": "m", "items": [key("t")]}},
                {"secret": {"name": "whole"}},
                {},
                {"serviceAccountToken": {"path": "t/x"}}]}}),
            &[
                "volume \"v\" (Projected) has no sources provided",
                "volume \"v\" (Projected): overlapping paths: \"t/x\" (ServiceAccountToken) with \"t\" (ConfigMap \"m\")",
            ],
        );
    }

    #[test]
    fn sources_that_are_no_more_are_told() {
        check(
            json!({"name": "v", "rbd": {"image": "i", "monitors": ["m"]}}),
            &["spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+"],
        );
        check(
            json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
                "resources": {"requests": {"storage": "100m"}}}}}}),
            &[
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value \"100m\" is invalid, must be an integer",
            ],
        );
    }
}
