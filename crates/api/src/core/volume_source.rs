//! What the sources of volumes must say, for volumes of pods and for PersistentVolumes alike.
//!
//! Upstream: `pkg/apis/core/validation/validation.go` (validateVolumeSource, ValidatePersistentVolumeSpec).
//! Some paths are upstream's slips, kept because clients see them (`persistentDisk`, `cephFS`).

use crate::{
    field::{Errors, quoted},
    k8s::api::core::v1::{
        AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, FCVolumeSource,
        FlockerVolumeSource, GCEPersistentDiskVolumeSource, HostPathVolumeSource, NFSVolumeSource,
        QuobyteVolumeSource, SecretReference,
    },
    meta::{
        absent::{list, text},
        names,
    },
};
use std::{collections::BTreeMap, fmt::Display};

/// Counts the sources of one volume: one is needed, a second is refused unseen.
pub(crate) struct Sources<'a> {
    path: &'a str,
    found: bool,
}

impl<'a> Sources<'a> {
    pub(crate) fn of(path: &'a str) -> Sources<'a> {
        Sources { path, found: false }
    }

    /// Looks at one source, if it is there and the first.
    pub(crate) fn one<T>(
        &mut self,
        field: &str,
        source: Option<&T>,
        errors: &mut Errors,
        check: impl FnOnce(&T, &str, &mut Errors),
    ) {
        let Some(source) = source else { return };
        if self.found {
            let path = format!("{}.{}", self.path, second(field));
            errors.forbidden(path, "may not specify more than 1 volume type");
            return;
        }
        self.found = true;
        check(source, &format!("{}.{}", self.path, first(field)), errors);
    }

    pub(crate) fn finish(self, errors: &mut Errors) {
        if !self.found {
            errors.required(self.path, "must specify a volume type");
        }
    }
}

/// The path of a source that is looked at.
fn first(field: &str) -> &str {
    if field == "gcePersistentDisk" { "persistentDisk" } else { field }
}

/// The path of a source that is one too many.
fn second(field: &str) -> &str {
    match field {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        field => field,
    }
}

/// Refuses an empty text.
pub(crate) fn need(path: &str, field: &str, value: &str, errors: &mut Errors) {
    if value.is_empty() {
        errors.required(format!("{path}.{field}"), "");
    }
}

pub(crate) fn host_path(source: &HostPathVolumeSource, path: &str, errors: &mut Errors) {
    if source.path.is_empty() {
        errors.required(format!("{path}.path"), "");
        return;
    }
    no_backsteps(format!("{path}.path"), &source.path, errors);
    let types = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    if let Some(kind) = source.type_.as_deref().filter(|it| !types.contains(it)) {
        errors.not_supported(format!("{path}.type"), kind, &types);
    }
}

pub(crate) fn no_backsteps(path: impl Display, target: &str, errors: &mut Errors) {
    if target.split('/').any(|it| it == "..") {
        errors.invalid(path, quoted(target), "must not contain '..'");
    }
}

/// A relative path that stays below where it starts.
pub(crate) fn descending(path: impl Display, target: &str, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.invalid(&path, quoted(target), "must be a relative path");
    }
    no_backsteps(path, target, errors);
}

/// As [`descending`], and not among the names that volumes keep for themselves (`..data`).
pub(crate) fn descending_unreserved(path: impl Display, target: &str, errors: &mut Errors) {
    descending(&path, target, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.invalid(path, quoted(target), "must not start with '..'");
    }
}

pub(crate) fn gce(source: &GCEPersistentDiskVolumeSource, path: &str, errors: &mut Errors) {
    need(path, "pdName", &source.pd_name, errors);
    partition(source.partition, path, errors);
}

pub(crate) fn aws(source: &AWSElasticBlockStoreVolumeSource, path: &str, errors: &mut Errors) {
    need(path, "volumeID", &source.volume_id, errors);
    partition(source.partition, path, errors);
}

fn partition(partition: Option<i32>, path: &str, errors: &mut Errors) {
    if let Some(number) = partition.filter(|it| !(0..=255).contains(it)) {
        errors.invalid(format!("{path}.partition"), number, "must be between 1 and 255, inclusive");
    }
}

pub(crate) fn nfs(source: &NFSVolumeSource, path: &str, errors: &mut Errors) {
    need(path, "server", &source.server, errors);
    need(path, "path", &source.path, errors);
    if !source.path.starts_with('/') {
        let detail = "must be an absolute path";
        errors.invalid(format!("{path}.path"), quoted(&source.path), detail);
    }
}

pub(crate) fn quobyte(source: &QuobyteVolumeSource, path: &str, errors: &mut Errors) {
    let detail = "must be a host:port pair or multiple pairs separated by commas";
    let is_pair = |it: &str| it.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':'));
    if source.registry.is_empty() {
        errors.required(format!("{path}.registry"), detail);
    } else if text(&source.tenant).len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(format!("{path}.tenant"), detail);
    } else {
        for _ in source.registry.split(',').filter(|it| !is_pair(it)) {
            errors.invalid(format!("{path}.registry"), quoted(&source.registry), detail);
        }
    }
    need(path, "volume", &source.volume, errors);
}

pub(crate) fn glusterfs(endpoints: &str, target: &str, path: &str, errors: &mut Errors) {
    need(path, "endpoints", endpoints, errors);
    need(path, "path", target, errors);
}

pub(crate) fn flocker(source: &FlockerVolumeSource, path: &str, errors: &mut Errors) {
    let (name, uuid) = (text(&source.dataset_name), text(&source.dataset_uuid));
    if name.is_empty() && uuid.is_empty() {
        errors.required(path, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.invalid(path, "\"resource\"", detail);
    }
    if name.contains('/') {
        errors.invalid(format!("{path}.datasetName"), quoted(name), "must not contain '/'");
    }
}

pub(crate) fn fc(source: &FCVolumeSource, path: &str, errors: &mut Errors) {
    let (targets, wide) = (list(&source.target_wwns), list(&source.wwids));
    let at = format!("{path}.targetWWNs");
    if targets.is_empty() && wide.is_empty() {
        errors.required(&at, "must specify either targetWWNs or wwids, but not both");
    }
    if !targets.is_empty() && !wide.is_empty() {
        let shown: Vec<String> = targets.iter().map(|it| quoted(it)).collect();
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(&at, format!("[{}]", shown.join(",")), detail);
    }
    match source.lun {
        _ if targets.is_empty() => {}
        None => {
            errors.required(format!("{path}.lun"), "lun is required if targetWWNs is specified")
        }
        Some(lun) => names::in_range(format!("{path}.lun"), i64::from(lun), 0, 255, errors),
    }
}

pub(crate) fn rbd(monitors: &[String], image: &str, path: &str, errors: &mut Errors) {
    ceph_fs(monitors, path, errors);
    need(path, "image", image, errors);
}

pub(crate) fn ceph_fs(monitors: &[String], path: &str, errors: &mut Errors) {
    if monitors.is_empty() {
        errors.required(format!("{path}.monitors"), "");
    }
}

/// What both kinds of iSCSI source say, the secret aside.
pub(crate) struct Iscsi<'a> {
    pub(crate) portal: &'a str,
    pub(crate) iqn: &'a str,
    pub(crate) lun: i32,
    pub(crate) initiator: Option<&'a str>,
    pub(crate) needs_secret: bool,
    pub(crate) has_secret: bool,
    /// Sources of pods name the beginnings that are allowed, those of volumes do not.
    pub(crate) in_pod: bool,
    /// The volume whose name goes into the initiator's interface.
    pub(crate) volume: &'a str,
}

/// Longest name of an initiator's interface: the volume's, a colon, and the portal's.
pub(crate) const ISCSI_NAME_MOST: usize = 64;
pub(crate) const ISCSI_NAME_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

pub(crate) fn iscsi(source: &Iscsi<'_>, path: &str, errors: &mut Errors) {
    need(path, "targetPortal", source.portal, errors);
    let whole = source.volume.len() + 1 + source.portal.len();
    if !source.in_pod && source.initiator.is_some() && whole > ISCSI_NAME_MOST {
        errors.invalid(format!("{path}.targetportal"), quoted(source.portal), ISCSI_NAME_LONG);
    }
    if source.iqn.is_empty() {
        errors.required(format!("{path}.iqn"), "");
    } else {
        iscsi_name(format!("{path}.iqn"), source.iqn, source.in_pod, errors);
    }
    names::in_range(format!("{path}.lun"), i64::from(source.lun), 0, 255, errors);
    if source.needs_secret && !source.has_secret {
        errors.required(format!("{path}.secretRef"), "");
    }
    if let Some(name) = source.initiator {
        iscsi_name(format!("{path}.initiatorname"), name, source.in_pod, errors);
    }
}

fn iscsi_name(path: String, name: &str, in_pod: bool, errors: &mut Errors) {
    let after = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        // One character of any kind, as upstream's patterns have it, then letters and digits.
        let mut rest = rest.chars();
        rest.next()?;
        Some(rest.as_str())
    };
    let plain =
        |it: &str, length| it.len() == length && it.bytes().all(|b| b.is_ascii_alphanumeric());
    let valid = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => after("eui").is_some_and(|it| plain(it, 16)),
        Some("naa") => after("naa").is_some_and(|it| plain(it, 32)),
        _ => {
            let long = "must be valid format starting with iqn, eui, or naa";
            let detail = if in_pod { long } else { "must be valid format" };
            errors.invalid(path, quoted(name), detail);
            return;
        }
    };
    if !valid {
        errors.invalid(path, quoted(name), "must be valid format");
    }
}

/// `iqn.2015-02.example.com:storage`
fn is_iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let Some((date, rest)) = rest.split_once('.') else { return false };
    let bytes = date.as_bytes();
    let digit = |at: usize| bytes[at].is_ascii_digit();
    let dated = bytes.len() == 7 && bytes[4] == b'-' && [0, 1, 2, 3, 5, 6].into_iter().all(digit);
    let Some((authority, target)) = rest.split_once(':') else { return false };
    let known = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'.';
    dated
        && !authority.is_empty()
        && authority.bytes().all(known)
        && !target.is_empty()
        && !target.chars().any(|it| ",;*&$|".contains(it) || it.is_whitespace())
}

pub(crate) fn flex(
    driver: &str,
    options: Option<&BTreeMap<String, String>>,
    path: &str,
    errors: &mut Errors,
) {
    need(path, "driver", driver, errors);
    for key in options.into_iter().flat_map(BTreeMap::keys) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let dotted = format!(".{}", namespace.to_lowercase());
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(format!("{path}.options[{key}]"), quoted(key), detail);
        }
    }
}

pub(crate) fn azure_file(secret: &str, share: &str, path: &str, errors: &mut Errors) {
    need(path, "secretName", secret, errors);
    need(path, "shareName", share, errors);
}

pub(crate) fn azure_disk(source: &AzureDiskVolumeSource, path: &str, errors: &mut Errors) {
    need(path, "diskName", &source.disk_name, errors);
    need(path, "diskURI", &source.disk_uri, errors);
    let modes = ["None", "ReadOnly", "ReadWrite"];
    if let Some(mode) = source.caching_mode.as_deref().filter(|it| !modes.contains(it)) {
        errors.not_supported(format!("{path}.cachingMode"), mode, &modes);
    }
    let Some(kind) = source.kind.as_deref() else { return };
    let kinds = ["Dedicated", "Managed", "Shared"];
    if !kinds.contains(&kind) {
        errors.not_supported(format!("{path}.kind"), kind, &kinds);
    }
    let (start, form) = match kind {
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ),
    };
    if !source.disk_uri.starts_with(start) {
        errors.not_supported(format!("{path}.diskURI"), &source.disk_uri, &[form]);
    }
}

pub(crate) fn scale_io(
    gateway: &str,
    system: &str,
    volume: &Option<String>,
    path: &str,
    errors: &mut Errors,
) {
    need(path, "gateway", gateway, errors);
    need(path, "system", system, errors);
    need(path, "volumeName", text(volume), errors);
}

pub(crate) fn storage_os(
    volume: &Option<String>,
    namespace: &Option<String>,
    path: &str,
    errors: &mut Errors,
) {
    match text(volume) {
        "" => errors.required(format!("{path}.volumeName"), ""),
        name => names::dns_label(format!("{path}.volumeName"), name, errors),
    }
    if !text(namespace).is_empty() {
        names::dns_label(format!("{path}.volumeNamespace"), text(namespace), errors);
    }
}

/// A secret somewhere: by name and namespace, of which nothing but presence is asked.
pub(crate) fn secret_anywhere(
    name: &Option<String>,
    namespace: &Option<String>,
    path: &str,
    errors: &mut Errors,
) {
    need(path, "secretRef.name", text(name), errors);
    need(path, "secretRef.namespace", text(namespace), errors);
}

/// A secret for a CSI driver: by name and namespace, well formed.
pub(crate) fn csi_secret(
    field: &str,
    secret: Option<&SecretReference>,
    path: &str,
    errors: &mut Errors,
) {
    let Some(secret) = secret else { return };
    match text(&secret.name) {
        "" => errors.required(format!("{path}.{field}.name"), ""),
        name => names::dns_subdomain(format!("{path}.{field}.name"), name, errors),
    }
    match text(&secret.namespace) {
        "" => errors.required(format!("{path}.{field}.namespace"), ""),
        name => names::dns_label(format!("{path}.{field}.namespace"), name, errors),
    }
}

/// Permission bits of a file.
pub(crate) fn file_mode(path: &str, field: &str, mode: Option<i32>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|it| !(0..=0o777).contains(it)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(format!("{path}.{field}"), mode, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iscsi_names_have_one_of_three_forms() {
        let wrong = |name: &str| {
            let mut errors = Errors::default();
            iscsi_name("iqn".to_owned(), name, true, &mut errors);
            errors.message()
        };
        for name in ["iqn.2015-02.example.com:storage.1", "eui.0123456789abcdef"] {
            assert_eq!(wrong(name), "", "{name}");
        }
        for name in ["iqn.2015.example.com:x", "iqn.2015-02.example.com", "eui.0123"] {
            assert_eq!(wrong(name), format!("iqn: Invalid value: {name:?}: must be valid format"));
        }
        assert!(wrong("x").ends_with("must be valid format starting with iqn, eui, or naa"));
    }
}
