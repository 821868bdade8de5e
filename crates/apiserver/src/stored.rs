//! Bytes of the ledger as objects. Ours are JSON; an etcd may hold what upstream's kube-apiserver wrote in protobuf.
//!
//! Such an object is read as a whole or not at all: what is not known of it would be lost with the next write, and what
//! is missing from the world is taken for gone.

use crate::protobuf;
use api::AnyKind;
use bytes::Bytes;
use serde_json::Value;

/// The object as JSON, whoever wrote it.
pub(crate) fn json(kind: &AnyKind, plain: Bytes) -> Result<Bytes, String> {
    if !protobuf::is_protobuf(&plain) {
        return Ok(plain);
    }
    let mut object = protobuf::to_json_strictly(&plain).map_err(|error| error.to_string())?;
    let (version, name) = (kind.api_version(), &*kind.kind);
    if object["apiVersion"] != *version || object["kind"] != name {
        let found = format!("{} of {}", object["kind"], object["apiVersion"]);
        return Err(format!("it holds {found} instead of {name} of {version}"));
    }
    name_templates(&mut object);
    let json = serde_json::to_vec(&object).map_err(|error| error.to_string())?;
    let (_, unknown) = kind.rules.decode(&json).map_err(|error| error.to_string())?;
    match unknown.first() {
        None => Ok(json.into()),
        Some(field) => Err(format!("field {field} is not known")),
    }
}

/// Claims in a StatefulSet say what they are, which protobuf leaves out and upstream adds when it reads them.
fn name_templates(object: &mut Value) {
    if let Some(claims) = object.pointer_mut("/spec/volumeClaimTemplates") {
        for claim in claims.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            claim.entry("apiVersion").or_insert_with(|| "v1".into());
            claim.entry("kind").or_insert_with(|| "PersistentVolumeClaim".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Secret},
    };
    use serde_json::json;

    fn map() -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "m", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z",
                "managedFields": [{"manager": "kubectl", "operation": "Update", "apiVersion": "v1",
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}],
            },
            "data": {"k": "v", "empty": ""},
        })
    }

    fn packed(object: &Value) -> Vec<u8> {
        protobuf::from_json(object.to_string().as_bytes()).unwrap().to_vec()
    }

    #[test]
    fn what_upstream_wrote_is_the_same_object() {
        let kind = api::kind_of::<ConfigMap>();
        let read = json(kind, packed(&map()).into()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), map());
        let own = Bytes::from(map().to_string());
        assert_eq!(json(kind, own.clone()).unwrap(), own);
    }

    #[test]
    fn what_is_not_wholly_understood_is_refused() {
        let kind = api::kind_of::<ConfigMap>();
        let whole = packed(&map());
        for cut in [whole.len() - 1, whole.len() / 2, 5] {
            assert!(json(kind, whole[..cut].to_vec().into()).is_err(), "{cut} of {}", whole.len());
        }
        let other = json(api::kind_of::<Secret>(), whole.clone().into()).unwrap_err();
        assert_eq!(other, r#"it holds "ConfigMap" of "v1" instead of Secret of v1"#);
        // A field that a later version has, at the end of the object: the envelope's second part grows by it.
        let mut later = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
        let object = b"\x0a\x03\x0a\x01m\xfa\x01\x01x";
        later.push(object.len() as u8);
        later.extend_from_slice(object);
        assert!(protobuf::to_json(&later).is_ok(), "clients of a later version are understood");
        let refused = json(kind, later.into()).unwrap_err();
        assert_eq!(refused, "field 31 of core.ConfigMap is not known");
    }

    #[test]
    fn claims_in_a_set_say_what_they_are() {
        let claim = json!({"metadata": {"name": "data"}, "spec": {}, "status": {}});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s", "namespace": "default"},
            "spec": {"selector": {}, "template": {}, "serviceName": "s", "volumeClaimTemplates": [claim]},
        });
        let read = json(api::kind_of::<StatefulSet>(), packed(&set).into()).unwrap();
        let read: Value = serde_json::from_slice(&read).unwrap();
        let claim = &read["spec"]["volumeClaimTemplates"][0];
        assert_eq!(
            (&claim["apiVersion"], &claim["kind"]),
            (&json!("v1"), &json!("PersistentVolumeClaim"))
        );
    }
}
