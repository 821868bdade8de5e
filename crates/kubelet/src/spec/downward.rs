//! What a pod may read about itself, as text.
//!
//! Upstream: `pkg/fieldpath/fieldpath.go`, `kubelet_pods.go` (podFieldSelectorRuntimeValue), `pkg/api/v1/resource`.

use super::Facts;
use api::{
    Object,
    core::v1::{Container, Pod, ResourceFieldSelector},
    meta::Exact,
};
use std::collections::BTreeMap;

/// The value of a `fieldRef`. `address`: the pod's, empty while it has none.
pub fn field(pod: &Pod, path: &str, facts: &Facts, address: &str) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    if let Some((path, key)) = subscript(path) {
        let of = |map: &Option<BTreeMap<String, String>>| {
            map.as_ref().and_then(|it| it.get(key)).cloned().unwrap_or_default()
        };
        return match path {
            "metadata.annotations" => Ok(of(&pod.metadata.annotations)),
            "metadata.labels" => Ok(of(&pod.metadata.labels)),
            _ => Err(format!("fieldPath \"{path}['{key}']\" does not support subscript")),
        };
    }
    match path {
        "metadata.name" => Ok(pod.name().to_owned()),
        "metadata.namespace" => Ok(pod.namespace().to_owned()),
        "metadata.uid" => Ok(pod.uid().to_owned()),
        "metadata.annotations" => Ok(lines(pod.metadata.annotations.as_ref())),
        "metadata.labels" => Ok(lines(pod.metadata.labels.as_ref())),
        "spec.nodeName" => Ok(facts.node_name.clone()),
        "spec.serviceAccountName" => {
            Ok(spec.and_then(|it| it.service_account_name.clone()).unwrap_or_default())
        }
        "status.hostIP" | "status.hostIPs" => Ok(facts.node_address.clone()),
        "status.podIP" | "status.podIPs" => Ok(address.to_owned()),
        path => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// The value of a `resourceFieldRef`, in units of its divisor, rounded up. A limit that is not set is the node's.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let container = match selector.container_name.as_deref().filter(|it| !it.is_empty()) {
        Some(name) => {
            let all = spec
                .into_iter()
                .flat_map(|it| it.containers.iter().chain(it.init_containers.iter().flatten()));
            let found = all.into_iter().find(|it| it.name == name);
            found.ok_or_else(|| format!("container {name} not found"))?
        }
        None => own.ok_or_else(|| "no container is named".to_owned())?,
    };
    let resources = container.resources.as_ref();
    let limit = |name: &str| resources.and_then(|it| it.limits.as_ref()?.get(name)).map(Exact::of);
    let request =
        |name: &str| resources.and_then(|it| it.requests.as_ref()?.get(name)).map(Exact::of);
    let cpu = Exact(i128::from(facts.cpu_milli) * 1_000_000);
    let memory = Exact::from_units(facts.memory_bytes);
    let (list, name) = selector.resource.split_once('.').unwrap_or(("", &selector.resource));
    let amount = match (list, name) {
        ("limits", "cpu") => limit(name).filter(|it| *it > Exact::ZERO).unwrap_or(cpu),
        ("limits", "memory") => limit(name).filter(|it| *it > Exact::ZERO).unwrap_or(memory),
        ("limits", name) => limit(name).unwrap_or_default(),
        ("requests", name) => request(name).unwrap_or_default(),
        _ => return Err(format!("Unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(Exact::of).filter(|it| *it > Exact::ZERO);
    let divisor = divisor.unwrap_or(Exact::from_units(1));
    let (amount, divisor) = match name {
        "cpu" => (amount.milli(), divisor.milli()),
        _ => (amount.units(), divisor.units()),
    };
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

/// `metadata.labels['app']` → (`metadata.labels`, `app`)
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(path, _)| !path.is_empty())
}

/// `key="value"`, sorted, a line each; the value quoted as Go does.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = |value: &str| {
        let mut out = String::from("\"");
        for letter in value.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                control if control.is_control() => {
                    out.push_str(&format!("\\x{:02x}", u32::from(control)));
                }
                letter => out.push(letter),
            }
        }
        out + "\""
    };
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::codec::from_value;

    #[test]
    fn tells_a_pod_about_itself() {
        let pod: Pod = from_value(&serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x \"y\"\n"}},
            "spec": {"containers": [{"name": "c", "resources":
                {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}
        }))
        .unwrap();
        let facts = Facts { cpu_milli: 2000, memory_bytes: 1 << 30, ..Facts::default() };
        let field = |path| field(&pod, path, &facts, "10.0.0.1");
        assert_eq!(field("metadata.labels").unwrap(), "a=\"x \\\"y\\\"\\n\"\nb=\"2\"");
        assert_eq!(field("metadata.labels['b']").unwrap(), "2");
        assert_eq!(field("status.podIP").unwrap(), "10.0.0.1");
        assert_eq!(field("spec.x").unwrap_err(), "unsupported fieldPath: spec.x");
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let resource = |name: &str, divisor: &str| {
            let selector = ResourceFieldSelector {
                resource: name.to_owned(),
                divisor: Some(api::k8s::apimachinery::pkg::api::resource::Quantity(
                    divisor.to_owned(),
                )),
                ..ResourceFieldSelector::default()
            };
            super::resource(&pod, Some(container), &selector, &facts).unwrap()
        };
        assert_eq!(resource("limits.memory", "1Mi"), "64");
        assert_eq!(resource("limits.cpu", "0"), "2");
        assert_eq!(resource("requests.cpu", "1"), "1");
        assert_eq!(resource("requests.cpu", "1m"), "250");
        assert_eq!(resource("requests.memory", "1"), "0");
    }
}
