//! Volumes of the provisioner `nfs.stanchion.dev`: a directory each, on the share that the class names.
//!
//! Descends from nfs-subdir-external-provisioner, whose parameters these are. Deviations: a parameter that it does not
//! know is refused, and `..` in a path is an error instead of being resolved.

use api::{
    Object,
    core::{
        persistent_volume_claim as claims,
        v1::{NFSVolumeSource, PersistentVolume, PersistentVolumeClaim},
    },
    storage::v1::StorageClass,
};
use std::collections::BTreeMap;
use world::Outcome;

/// The provisioner's name, in classes and in `pv.kubernetes.io/provisioned-by`.
pub const NFS: &str = "nfs.stanchion.dev";
/// On a volume: what its plugin needs to delete it, also when its class is gone.
pub(crate) const HANDLE: &str = "nfs.stanchion.dev/handle";

const PARAMETERS: [&str; 8] =
    ["archiveOnDelete", "gid", "mode", "onDelete", "pathPattern", "server", "share", "uid"];

/// Bytes of one name in a directory, on every filesystem that servers export.
const NAME_BYTES_MAX: usize = 255;

/// What the plugin is asked for, by its names; or what in the class or the claim cannot be.
pub(super) fn parameters(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    volume: &str,
) -> Result<BTreeMap<String, String>, String> {
    let given = class.parameters.clone().unwrap_or_default();
    if let Some(unknown) = given.keys().find(|it| !PARAMETERS.contains(&it.as_str())) {
        return Err(format!("unknown parameter {unknown:?}; known: {}", PARAMETERS.join(", ")));
    }
    if claims::volume_mode(claim) == "Block" {
        return Err(format!("{NFS} does not support block volume provisioning"));
    }
    let spec = claim.spec.as_ref();
    if spec.is_some_and(|it| it.selector.is_some()) {
        return Err("claim Selector is not supported".to_owned());
    }
    if spec.is_some_and(|it| it.data_source.is_some() || it.data_source_ref.is_some()) {
        return Err("claim DataSource is not supported".to_owned());
    }
    let field = |name: &str| given.get(name).map(String::as_str).filter(|it| !it.is_empty());
    let needed = |name: &str| field(name).ok_or_else(|| format!("parameter {name:?} is missing"));
    let share = needed("share")?;
    if !share.starts_with('/') || share.split('/').any(|it| it == "..") {
        return Err(format!(
            "parameter \"share\" {share:?}: must be an absolute path without '..'"
        ));
    }
    let mut wanted = BTreeMap::from([
        ("server", needed("server")?.to_owned()),
        ("share", share.to_owned()),
        ("onDelete", on_delete(field("onDelete"), field("archiveOnDelete"))?.to_owned()),
        ("directory", directory(claim, field("pathPattern"), volume)?),
    ]);
    for (name, radix) in [("uid", 10), ("gid", 10), ("mode", 8)] {
        let Some(text) = field(name) else { continue };
        let largest = if name == "mode" { 0o7777 } else { u32::MAX - 1 };
        if !u32::from_str_radix(text, radix).is_ok_and(|it| it <= largest) {
            let what = if radix == 8 { "a mode such as 0770" } else { "a number" };
            return Err(format!("parameter {name:?} {text:?}: must be {what}"));
        }
        wanted.insert(name, text.to_owned());
    }
    if let Some(options) = class.mount_options.as_ref().filter(|it| !it.is_empty()) {
        wanted.insert("mountOptions", options.join(","));
    }
    Ok(wanted.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Archived unless the class says otherwise, as upstream.
fn on_delete(on_delete: Option<&str>, archive: Option<&str>) -> Result<&'static str, String> {
    match on_delete {
        Some("delete") => return Ok("delete"),
        Some("retain") => return Ok("retain"),
        Some("archive") => return Ok("archive"),
        Some(other) => {
            return Err(format!(
                "parameter \"onDelete\" {other:?}: must be delete, retain or archive"
            ));
        }
        None => {}
    }
    match archive {
        None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok("archive"),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok("delete"),
        Some(other) => {
            Err(format!("parameter \"archiveOnDelete\" {other:?}: must be true or false"))
        }
    }
}

/// Relative to the share: by the pattern, else `<namespace>-<claim>-<volume>`.
fn directory(
    claim: &PersistentVolumeClaim,
    pattern: Option<&str>,
    volume: &str,
) -> Result<String, String> {
    let told = pattern.map(|it| expand(it, claim)).unwrap_or_default();
    let names: Vec<&str> = told.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
    if names.is_empty() {
        // Names of claims may be longer than those of directories; the volume's name is unique.
        let mut name = claim.name();
        let room = NAME_BYTES_MAX.saturating_sub(claim.namespace().len() + volume.len() + 2);
        name = &name[..name.len().min(room)];
        return Ok(format!("{}-{name}-{volume}", claim.namespace()));
    }
    let unfit = |it: &&&str| {
        **it == ".." || it.len() > NAME_BYTES_MAX || it.chars().any(|it| it.is_control())
    };
    if let Some(name) = names.iter().find(unfit) {
        return Err(format!("pathPattern gives {told:?}: {name:?} cannot be part of a path"));
    }
    if names[0] == ".stanchion" {
        return Err(format!("pathPattern gives {told:?}: .stanchion is the provisioner's own"));
    }
    Ok(names.join("/"))
}

/// Replaces `${.PVC.name}`, `${.PVC.namespace}`, `${.PVC.labels.KEY}` and `${.PVC.annotations.KEY}`; what the claim does
/// not have is empty.
fn expand(pattern: &str, claim: &PersistentVolumeClaim) -> String {
    const BEGIN: &str = "${.PVC.";
    let (mut text, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find(BEGIN) {
        let inside = &rest[at + BEGIN.len()..];
        let Some(end) = inside.find('}') else { break };
        text.push_str(&rest[..at]);
        let field = &inside[..end];
        let value = match field.split_once('.') {
            Some(("labels", key)) => claim.metadata.labels.as_ref().and_then(|it| it.get(key)),
            Some(("annotations", key)) => {
                claim.metadata.annotations.as_ref().and_then(|it| it.get(key))
            }
            _ => None,
        };
        match field {
            "name" => text.push_str(claim.name()),
            "namespace" => text.push_str(claim.namespace()),
            _ => text.push_str(value.map_or("", String::as_str)),
        }
        rest = &inside[end + 1..];
    }
    text + rest
}

/// Where the volume that was made is.
pub(super) fn source(outcome: &Outcome) -> NFSVolumeSource {
    let field = |name: &str| outcome.context.get(name).cloned().unwrap_or_default();
    NFSVolumeSource { server: field("server"), path: field("path"), read_only: None }
}

/// Whether this is one of ours, and what to call it towards the plugin.
pub(crate) fn handle(volume: &PersistentVolume) -> Option<Option<String>> {
    let spec = volume.spec.as_ref()?;
    let ours = volume.annotation(crate::volume_provisioner::PROVISIONED_BY) == Some(NFS);
    (ours && spec.nfs.is_some()).then(|| volume.annotation(HANDLE).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some(name.to_owned());
        claim.metadata.namespace = Some("team".to_owned());
        let labels = [("tier".to_owned(), "gold".to_owned())];
        claim.metadata.labels = Some(labels.into());
        let annotations = [("where".to_owned(), "../../etc".to_owned())];
        claim.metadata.annotations = Some(annotations.into());
        claim
    }

    fn class(parameters: &[(&str, &str)]) -> StorageClass {
        let all = [("server", "10.0.0.1"), ("share", "/nfs")];
        let all = all.iter().chain(parameters);
        let all = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        StorageClass { parameters: Some(all.collect()), ..StorageClass::default() }
    }

    fn told(given: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        parameters(&claim("data"), &class(given), "pvc-u")
    }

    fn place(pattern: &str) -> String {
        told(&[("pathPattern", pattern)]).map_or_else(|it| it, |it| it["directory"].clone())
    }

    #[test]
    fn a_directory_is_named_after_namespace_claim_and_volume() {
        assert_eq!(told(&[]).unwrap()["directory"], "team-data-pvc-u");
        let long = parameters(&claim(&"c".repeat(253)), &class(&[]), "pvc-u").unwrap();
        assert_eq!(long["directory"].len(), NAME_BYTES_MAX);
        assert!(long["directory"].ends_with("c-pvc-u"));
    }

    #[test]
    fn a_pattern_says_where_and_never_outside() {
        assert_eq!(place("${.PVC.namespace}/${.PVC.name}"), "team/data");
        assert_eq!(place("/${.PVC.labels.tier}//./x-${.PVC.name}"), "gold/x-data");
        assert_eq!(place("${.PVC.labels.none}"), "team-data-pvc-u");
        assert_eq!(place("a${.PVC.name"), "a${.PVC.name");
        for pattern in ["..", "a/../b", "${.PVC.annotations.where}", ".stanchion/x"] {
            assert!(place(pattern).starts_with("pathPattern gives"), "{pattern}");
        }
    }

    #[test]
    fn what_becomes_of_the_data_is_said_by_either_parameter() {
        let policy = |given: &[(&str, &str)]| told(given).map(|it| it["onDelete"].clone());
        assert_eq!(policy(&[]).as_deref(), Ok("archive"));
        assert_eq!(policy(&[("archiveOnDelete", "false")]).as_deref(), Ok("delete"));
        let both = [("archiveOnDelete", "false"), ("onDelete", "retain")];
        assert_eq!(policy(&both).as_deref(), Ok("retain"));
        assert!(policy(&[("onDelete", "shred")]).is_err());
        assert!(policy(&[("archiveOnDelete", "maybe")]).is_err());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let error = told(&[("pathPatern", "x")]).unwrap_err();
        assert!(error.starts_with("unknown parameter \"pathPatern\"; known: archiveOnDelete"));
        for (name, value) in [("uid", "-1"), ("gid", "x"), ("mode", "888"), ("share", "nfs")] {
            assert!(told(&[(name, value)]).unwrap_err().contains(name), "{name}");
        }
        assert_eq!(told(&[("mode", "0770")]).unwrap()["mode"], "0770");
        let mut block = claim("data");
        block.spec.get_or_insert_default().volume_mode = Some("Block".to_owned());
        assert!(parameters(&block, &class(&[]), "pvc-u").unwrap_err().contains("block"));
    }
}
