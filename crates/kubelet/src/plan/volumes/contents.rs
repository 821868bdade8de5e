//! The files of configMap, secret, downwardAPI and projected volumes.

use crate::spec::{Facts, downward};
use api::Object;
use api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource,
    Secret, SecretVolumeSource,
};
use std::collections::BTreeMap;
use volumes::{Files, ProjectedFile};
use world::{ObjectKey, World};

/// Upstream defaults `defaultMode` to it.
const MODE: i32 = 0o644;

pub(super) fn config_map(
    world: &World,
    namespace: &str,
    source: &ConfigMapVolumeSource,
) -> Result<Files, String> {
    let optional = source.optional == Some(true);
    let data = config_map_data(world, namespace, &source.name, optional)?;
    let items = source.items.as_deref().unwrap_or_default();
    let missing = "configmap references non-existent config key";
    chosen(&data, items, source.default_mode, optional, missing)
}

pub(super) fn secret(
    world: &World,
    namespace: &str,
    source: &SecretVolumeSource,
) -> Result<Files, String> {
    let optional = source.optional == Some(true);
    let name = source.secret_name.as_deref().unwrap_or_default();
    let data = secret_data(world, namespace, name, optional)?;
    let items = source.items.as_deref().unwrap_or_default();
    let missing = "references non-existent secret key";
    chosen(&data, items, source.default_mode, optional, missing)
}

pub(super) fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    facts: &Facts,
    address: &str,
) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            downward::field(pod, &field.field_path, facts, address)?
        } else if let Some(resource) = &item.resource_field_ref {
            downward::resource(pod, None, resource, facts)?
        } else {
            continue;
        };
        let mode = item.mode.or(default_mode);
        files.insert(item.path.clone(), file(text.into_bytes(), mode));
    }
    Ok(files)
}

pub(super) fn projected(
    world: &World,
    pod: &Pod,
    source: &ProjectedVolumeSource,
    facts: &Facts,
    address: &str,
) -> Result<Files, String> {
    let namespace = pod.namespace();
    let mode = source.default_mode;
    let mut files = Files::new();
    for part in source.sources.iter().flatten() {
        if let Some(part) = &part.secret {
            let optional = part.optional == Some(true);
            let data = secret_data(world, namespace, &part.name, optional)?;
            let items = part.items.as_deref().unwrap_or_default();
            let missing = "references non-existent secret key";
            files.extend(chosen(&data, items, mode, optional, missing)?);
        } else if let Some(part) = &part.config_map {
            let optional = part.optional == Some(true);
            let data = config_map_data(world, namespace, &part.name, optional)?;
            let items = part.items.as_deref().unwrap_or_default();
            let missing = "configmap references non-existent config key";
            files.extend(chosen(&data, items, mode, optional, missing)?);
        } else if let Some(part) = &part.downward_api {
            let items = part.items.as_deref().unwrap_or_default();
            files.extend(downward(pod, items, mode, facts, address)?);
        } else if part.service_account_token.is_some() {
            // Not of the world: see `tokens`.
        } else {
            return Err("this source of a projected volume is not supported".to_owned());
        }
    }
    Ok(files)
}

type Data = BTreeMap<String, Vec<u8>>;

fn config_map_data(
    world: &World,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<Data, String> {
    let Some(map) = world.get::<ConfigMap>(&ObjectKey::new(namespace, name)) else {
        return absent(optional, || format!("configmap \"{name}\" not found"));
    };
    let text = map.data.iter().flatten();
    let binary = map.binary_data.iter().flatten();
    let text = text.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    Ok(text.chain(binary.map(|(key, value)| (key.clone(), value.0.clone()))).collect())
}

fn secret_data(world: &World, namespace: &str, name: &str, optional: bool) -> Result<Data, String> {
    let Some(secret) = world.get::<Secret>(&ObjectKey::new(namespace, name)) else {
        return absent(optional, || format!("secret \"{name}\" not found"));
    };
    let data = secret.data.iter().flatten();
    Ok(data.map(|(key, value)| (key.clone(), value.0.clone())).collect())
}

fn absent(optional: bool, message: impl FnOnce() -> String) -> Result<Data, String> {
    if optional { Ok(Data::new()) } else { Err(message()) }
}

/// All keys, or those that are named, under the paths that they are given.
fn chosen(
    data: &Data,
    items: &[KeyToPath],
    default_mode: Option<i32>,
    optional: bool,
    missing: &str,
) -> Result<Files, String> {
    if items.is_empty() {
        let all = data.iter();
        return Ok(all
            .map(|(key, data)| (key.clone(), file(data.clone(), default_mode)))
            .collect());
    }
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let mode = item.mode.or(default_mode);
                files.insert(item.path.clone(), file(data.clone(), mode));
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(files)
}

fn file(data: Vec<u8>, mode: Option<i32>) -> ProjectedFile {
    let mode = u32::try_from(mode.unwrap_or(MODE)).unwrap_or(0o644);
    ProjectedFile { data, mode, owner: None }
}
