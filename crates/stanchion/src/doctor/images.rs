//! Images: configurations and manifests have the digests that they are called by, and their layers are there.

use super::Finding;
use crate::config::Settings;
use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{fs, path::Path};

pub(super) fn check(settings: &Settings) -> Result<Vec<Finding>> {
    let dir = settings.data_dir.join("images");
    let path = dir.join("images.json");
    if !path.exists() {
        return Ok(vec![Finding::Note("there are none yet".to_owned())]);
    }
    let attempt = || format!("read {}", path.display());
    let index: Value =
        serde_json::from_slice(&fs::read(&path).with_context(attempt)?).with_context(attempt)?;
    let images = index["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut findings = Vec::new();
    for image in images {
        let id = image["id"].as_str().unwrap_or_default();
        let names: Vec<&str> = image["references"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let name = names.first().copied().unwrap_or(id);
        let remedy = format!(
            "stanchion image rm {name} --data-dir {}, then import or pull it again",
            settings.data_dir.display()
        );
        let manifest = image["manifest"].as_str();
        for digest in [Some(id), manifest].into_iter().flatten() {
            if let Err(why) = blob(&dir, digest) {
                findings.push(Finding::wrong(format!("{name}: {why}"), remedy.clone()));
            }
        }
        let config = fs::read(dir.join("blobs/sha256").join(hex(id))).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let layers = config["rootfs"]["diff_ids"].as_array();
        for layer in layers.into_iter().flatten().filter_map(Value::as_str) {
            let path = dir.join("layers").join(hex(layer));
            if !path.is_dir() {
                let what = format!("{name}: layer {} is not there", path.display());
                findings.push(Finding::wrong(what, remedy.clone()));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::Fine(format!("{} with all their layers", images.len())));
    }
    Ok(findings)
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn blob(dir: &Path, digest: &str) -> Result<(), String> {
    let path = dir.join("blobs/sha256").join(hex(digest));
    let bytes = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == hex(digest) { Ok(()) } else { Err(format!("{} has other bytes", path.display())) }
}
