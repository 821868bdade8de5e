//! The environment of a container: services, envFrom, env.
//!
//! Upstream: `pkg/kubelet/envvars/envvars.go`, `kubelet_pods.go` (makeEnvironmentVariables). Deviation: the order is by
//! name, where upstream's is by chance.

use super::{Facts, downward, env_files::Files, expansion::expand};
use api::{
    Object,
    core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service},
};
use std::collections::BTreeMap;
use world::{ObjectKey, World};

pub type Variables = BTreeMap<String, String>;

/// Everything that the container's process finds in its environment, besides what its image sets. `files`: what
/// variables read from files.
pub fn of(
    world: &World,
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    address: &str,
    files: &Files,
) -> Result<Variables, String> {
    let links = pod.spec.as_ref().and_then(|it| it.enable_service_links).unwrap_or(true);
    let services = services(world, pod.namespace(), links);
    let mut own = Variables::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(from) = &source.config_map_ref {
            let data = config_map(world, pod.namespace(), &from.name, from.optional)?;
            own.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
        } else if let Some(from) = &source.secret_ref {
            let data = secret(world, pod.namespace(), &from.name, from.optional)?;
            own.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
        }
    }
    for variable in container.env.iter().flatten() {
        let literal = variable.value.as_deref().unwrap_or_default();
        let value = match (&variable.value_from, literal) {
            (Some(source), "") if source.file_key_ref.is_some() => {
                match files.get(&variable.name).cloned().flatten() {
                    Some(value) => value,
                    None => continue,
                }
            }
            (Some(source), "") => match sourced(world, pod, container, source, facts, address)? {
                Some(value) => value,
                None => continue,
            },
            (Some(_) | None, literal) => {
                let mut known = services.clone();
                known.extend(own.clone());
                expand(literal, &known)
            }
        };
        own.insert(variable.name.clone(), value);
    }
    let mut all = services;
    all.extend(own);
    Ok(all)
}

/// `None`: it is optional, and not there.
fn sourced(
    world: &World,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    facts: &Facts,
    address: &str,
) -> Result<Option<String>, String> {
    let namespace = pod.namespace();
    if let Some(from) = &source.field_ref {
        return downward::field(pod, &from.field_path, facts, address).map(Some);
    }
    if let Some(from) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), from, facts).map(Some);
    }
    let (kind, data, from_name, key, optional) = if let Some(from) = &source.config_map_key_ref {
        let data = config_map(world, namespace, &from.name, from.optional)?;
        ("ConfigMap", data, &from.name, &from.key, from.optional)
    } else if let Some(from) = &source.secret_key_ref {
        let data = secret(world, namespace, &from.name, from.optional)?;
        ("Secret", data, &from.name, &from.key, from.optional)
    } else {
        return Ok(Some(String::new()));
    };
    match data.get(key) {
        Some(value) => Ok(Some(value.clone())),
        None if optional == Some(true) => Ok(None),
        None => Err(format!("couldn't find key {key} in {kind} {namespace}/{from_name}")),
    }
}

fn config_map(
    world: &World,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Variables, String> {
    match world.get::<ConfigMap>(&ObjectKey::new(namespace, name)) {
        Some(map) => Ok(map.data.clone().unwrap_or_default()),
        None if optional == Some(true) => Ok(Variables::new()),
        None => Err(format!("configmap \"{name}\" not found")),
    }
}

fn secret(
    world: &World,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Variables, String> {
    match world.get::<Secret>(&ObjectKey::new(namespace, name)) {
        Some(secret) => {
            let data = secret.data.iter().flatten();
            let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
            Ok(data.map(|(key, value)| (key.clone(), text(&value.0))).collect())
        }
        None if optional == Some(true) => Ok(Variables::new()),
        None => Err(format!("secret \"{name}\" not found")),
    }
}

/// Where the services of the namespace are; the API's own is always among them.
fn services(world: &World, namespace: &str, links: bool) -> Variables {
    let master = world.get::<Service>(&ObjectKey::new("default", "kubernetes"));
    let own = links.then(|| world.list::<Service>(namespace)).into_iter().flatten();
    let mut variables = Variables::new();
    for service in own.chain(master) {
        service_variables(&service, &mut variables);
    }
    variables
}

fn service_variables(service: &Service, into: &mut Variables) {
    let Some(spec) = &service.spec else { return };
    let Some(address) = spec.cluster_ip.as_deref().filter(|it| !matches!(*it, "" | "None")) else {
        return;
    };
    let name = variable_name(service.name());
    into.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    let joined = |port: i32| match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    };
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let number = port.port.to_string();
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_owned();
        let url = format!("{}://{}", protocol.to_lowercase(), joined(port.port));
        if index == 0 {
            into.insert(format!("{name}_SERVICE_PORT"), number.clone());
            into.insert(format!("{name}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|it| !it.is_empty()) {
            into.insert(
                format!("{name}_SERVICE_PORT_{}", variable_name(port_name)),
                number.clone(),
            );
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        into.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        into.insert(format!("{prefix}_PORT"), number);
        into.insert(format!("{prefix}_ADDR"), address.to_owned());
        into.insert(prefix, url);
    }
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}
