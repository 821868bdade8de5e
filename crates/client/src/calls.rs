//! Volume calls and what comes of them as JSON, on the way to a node and back.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use world::{CallFailure, ObjectKey, Outcome, VolumeCall};

/// Where a node's server takes them.
pub const PATH: &str = "/stanchion/volumes";

pub fn call(call: &VolumeCall) -> Value {
    match call {
        VolumeCall::Create {
            plugin,
            claim,
            name,
            bytes,
            access_modes,
            block,
            parameters,
            topology,
        } => json!({"create": {
            "plugin": plugin, "claim": claim.to_string(), "name": name, "bytes": bytes,
            "accessModes": access_modes, "block": block, "parameters": parameters,
            "topology": topology,
        }}),
        VolumeCall::Delete { plugin, volume, handle } => json!({"delete": {
            "plugin": plugin, "volume": volume.to_string(), "handle": handle,
        }}),
        VolumeCall::Expand { plugin, volume, handle, bytes } => json!({"expand": {
            "plugin": plugin, "volume": volume.to_string(), "handle": handle, "bytes": bytes,
        }}),
        VolumeCall::Scrub { volume, path } => json!({"scrub": {
            "volume": volume.to_string(), "path": path,
        }}),
    }
}

/// # Errors
/// What is wrong with the bytes.
pub fn read_call(bytes: &[u8]) -> Result<VolumeCall, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let (verb, body) = value
        .as_object()
        .and_then(|it| it.iter().next())
        .ok_or_else(|| "no call is named".to_owned())?;
    let text = |name: &str| match body[name].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("{verb} lacks {name}")),
    };
    let bytes = || body["bytes"].as_u64().ok_or_else(|| format!("{verb} lacks bytes"));
    let volume = || text("volume").map(|it| ObjectKey::parse(&it));
    match verb.as_str() {
        "create" => Ok(VolumeCall::Create {
            plugin: text("plugin")?,
            claim: ObjectKey::parse(&text("claim")?),
            name: text("name")?,
            bytes: bytes()?,
            access_modes: body["accessModes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|it| it.as_str().map(str::to_owned))
                .collect(),
            block: body["block"].as_bool().unwrap_or(false),
            parameters: words(&body["parameters"]),
            topology: words(&body["topology"]),
        }),
        "delete" => Ok(VolumeCall::Delete {
            plugin: text("plugin")?,
            volume: volume()?,
            handle: text("handle")?,
        }),
        "expand" => Ok(VolumeCall::Expand {
            plugin: text("plugin")?,
            volume: volume()?,
            handle: text("handle")?,
            bytes: bytes()?,
        }),
        "scrub" => Ok(VolumeCall::Scrub { volume: volume()?, path: text("path")? }),
        other => Err(format!("there is no call {other:?}")),
    }
}

pub fn result(result: &Result<Outcome, CallFailure>) -> Value {
    match result {
        Ok(it) => json!({"outcome": {
            "handle": it.handle, "bytes": it.bytes, "context": it.context, "topology": it.topology,
        }}),
        Err(it) => json!({"failure": {
            "retry": it.retry, "unknown": it.unknown, "message": it.message,
        }}),
    }
}

/// # Errors
/// Why the call failed; an answer that cannot be read, or that lacks what was made, says nothing of what was done.
pub fn read_result(bytes: &[u8]) -> Result<Outcome, CallFailure> {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let outcome = &value["outcome"];
    if let (Some(handle), Some(bytes)) = (outcome["handle"].as_str(), outcome["bytes"].as_u64()) {
        return Ok(Outcome {
            handle: handle.to_owned(),
            bytes,
            context: words(&outcome["context"]),
            topology: words(&outcome["topology"]),
        });
    }
    match value.get("failure").filter(|it| it.is_object()) {
        Some(it) => Err(CallFailure {
            retry: it["retry"].as_bool().unwrap_or(true),
            unknown: it["unknown"].as_bool().unwrap_or(false),
            message: text(&it["message"]),
        }),
        None => {
            let message = "the node's answer cannot be read".to_owned();
            Err(CallFailure { retry: true, unknown: true, message })
        }
    }
}

fn words(value: &Value) -> BTreeMap<String, String> {
    let nothing = Map::new();
    let members = value.as_object().unwrap_or(&nothing).iter();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_results_arrive_as_they_were_sent() {
        let words = BTreeMap::from([("fsType".to_owned(), "xfs".to_owned())]);
        let (plugin, handle) = ("p".to_owned(), "h".to_owned());
        let volume = ObjectKey::cluster("pvc-1");
        let calls = [
            VolumeCall::Create {
                plugin: plugin.clone(),
                claim: ObjectKey::new("a", "data"),
                name: "pvc-1".to_owned(),
                bytes: 1 << 40,
                access_modes: vec!["ReadWriteOnce".to_owned()],
                block: true,
                parameters: words.clone(),
                topology: words.clone(),
            },
            VolumeCall::Delete {
                plugin: plugin.clone(),
                volume: volume.clone(),
                handle: handle.clone(),
            },
            VolumeCall::Expand { plugin, volume: volume.clone(), handle: handle.clone(), bytes: 7 },
            VolumeCall::Scrub { volume, path: "/srv".to_owned() },
        ];
        for it in calls {
            assert_eq!(read_call(call(&it).to_string().as_bytes()), Ok(it));
        }
        let results = [
            Ok(Outcome { handle, bytes: 9, context: words.clone(), topology: words }),
            Err(CallFailure { retry: false, unknown: false, message: "no".to_owned() }),
            Err(CallFailure { retry: true, unknown: true, message: "hm".to_owned() }),
        ];
        for it in results {
            assert_eq!(read_result(result(&it).to_string().as_bytes()), it);
        }
        assert!(read_call(b"{}").is_err() && read_call(br#"{"create":{}}"#).is_err());
        for it in [
            "oops",
            "{}",
            r#"{"outcome":{}}"#,
            r#"{"outcome":{"handle":"h"}}"#,
            r#"{"outcome":{"bytes":9}}"#,
            r#"{"outcome":{"handle":"h","bytes":"9"}}"#,
        ] {
            let failure = read_result(it.as_bytes()).unwrap_err();
            assert!(failure.retry && failure.unknown, "{it}: {failure:?}");
        }
    }
}
