//! JSON into protobuf: the envelope, lists, and the frames of a watch.
//!
//! Upstream: `apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`,
//! `apimachinery/pkg/util/framer/framer.go`.

use super::{DEPTH_MAX, Field, Kind, MAGIC, MESSAGES, ProtobufError, Shape, message_of};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value};
use stdx::Timestamp;

/// An object, a list or a status with its envelope.
pub(crate) fn from_json(json: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let value: Value = serde_json::from_slice(json).map_err(|_| ProtobufError::Malformed)?;
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let message = message_of(version, kind).ok_or_else(|| ProtobufError::UnknownKind {
        kind: kind.to_owned(),
        version: version.to_owned(),
    })?;
    let fields = value.as_object().ok_or(ProtobufError::Malformed)?;
    let mut out = Vec::with_capacity(json.len());
    out.extend_from_slice(MAGIC);
    nested(&mut out, 1, |out| {
        bytes(out, 1, version.as_bytes());
        bytes(out, 2, kind.as_bytes());
        Ok(())
    })?;
    nested(&mut out, 2, |out| write(message, fields, out, 0))?;
    Ok(out)
}

/// One event of a watch: its length, then what happened and to what.
pub(crate) fn frame(kind: &str, json: &[u8]) -> Result<Bytes, ProtobufError> {
    let object = from_json(json)?;
    let mut event = Vec::with_capacity(object.len() + 32);
    bytes(&mut event, 1, kind.as_bytes());
    nested(&mut event, 2, |out| {
        bytes(out, 1, &object);
        Ok(())
    })?;
    let length = u32::try_from(event.len()).map_err(|_| ProtobufError::Malformed)?;
    Ok([&length.to_be_bytes()[..], &event].concat().into())
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message within a message: its length goes before it, once it is known.
fn nested(
    out: &mut Vec<u8>,
    field: u64,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), ProtobufError>,
) -> Result<(), ProtobufError> {
    varint(out, field << 3 | 2);
    let start = out.len();
    content(out)?;
    let mut length = Vec::with_capacity(5);
    varint(&mut length, (out.len() - start) as u64);
    out.splice(start..start, length);
    Ok(())
}

fn write(
    message: &str,
    fields: &Map<String, Value>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let known = MESSAGES.get(message).filter(|_| depth <= DEPTH_MAX);
    for (at, field) in &known.ok_or(ProtobufError::Malformed)?.ordered {
        let mismatch = || ProtobufError::Mismatch(field.name);
        if let (true, Kind::Message(inner)) = (field.inline, field.kind) {
            let mut content = Vec::new();
            write(inner, fields, &mut content, depth + 1)?;
            if !content.is_empty() {
                bytes(out, *at, &content);
            }
            continue;
        }
        let value = match fields.get(field.name) {
            None | Some(Value::Null) => continue,
            Some(value) => value,
        };
        match field.shape {
            Shape::One => one(*at, field, value, out, depth)?,
            Shape::List => {
                for item in value.as_array().ok_or_else(mismatch)? {
                    one(*at, field, item, out, depth)?;
                }
            }
            Shape::Map => {
                for (key, value) in value.as_object().ok_or_else(mismatch)? {
                    nested(out, *at, |out| {
                        bytes(out, 1, key.as_bytes());
                        one(2, field, value, out, depth)
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn one(
    at: u64,
    field: &Field,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let mismatch = || ProtobufError::Mismatch(field.name);
    let text = || value.as_str().ok_or_else(mismatch);
    match field.kind {
        Kind::Text => bytes(out, at, text()?.as_bytes()),
        Kind::Truth => number(out, at, value.as_bool().ok_or_else(mismatch)?.into()),
        Kind::Whole => number(out, at, whole(value).ok_or_else(mismatch)?),
        Kind::Floating => {
            varint(out, at << 3 | 1);
            let value = value.as_f64().ok_or_else(mismatch)?;
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Kind::Bytes => bytes(out, at, &STANDARD.decode(text()?).map_err(|_| mismatch())?),
        Kind::Time | Kind::MicroTime => {
            const MICROS: i64 = 1_000_000;
            let time = Timestamp::parse(text()?).ok_or_else(mismatch)?;
            nested(out, at, |out| {
                number(out, 1, time.0.div_euclid(MICROS) as u64);
                number(out, 2, (time.0.rem_euclid(MICROS) * 1000) as u64);
                Ok(())
            })?;
        }
        Kind::Quantity => {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(mismatch()),
            };
            nested(out, at, |out| {
                bytes(out, 1, text.as_bytes());
                Ok(())
            })?;
        }
        Kind::IntOrString => nested(out, at, |out| {
            match value {
                Value::String(text) => {
                    number(out, 1, 1);
                    bytes(out, 3, text.as_bytes());
                }
                value => number(out, 2, whole(value).ok_or_else(mismatch)?),
            }
            Ok(())
        })?,
        Kind::Json => nested(out, at, |out| {
            bytes(out, 1, value.to_string().as_bytes());
            Ok(())
        })?,
        Kind::Texts => nested(out, at, |out| {
            for text in value.as_array().ok_or_else(mismatch)? {
                bytes(out, 1, text.as_str().ok_or_else(mismatch)?.as_bytes());
            }
            Ok(())
        })?,
        Kind::Message(inner) => {
            let fields = value.as_object().ok_or_else(mismatch)?;
            nested(out, at, |out| write(inner, fields, out, depth + 1))?;
        }
    }
    Ok(())
}

/// Two's complement, as protobuf writes negative numbers.
fn whole(value: &Value) -> Option<u64> {
    value.as_i64().map(|it| it as u64).or_else(|| value.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::to_json;
    use proptest::{prelude::*, sample::Index};
    use serde_json::json;

    #[test]
    fn every_kind_and_its_list_has_its_messages() {
        for kind in api::kinds() {
            for version in &kind.served {
                let version = kind.api_version_as(version);
                for name in [kind.kind.clone(), format!("{}List", kind.kind)] {
                    assert!(message_of(&version, &name).is_some(), "{version} {name}");
                }
            }
        }
        for message in MESSAGES.values() {
            for (_, field) in &message.ordered {
                if let Kind::Message(inner) = field.kind {
                    assert!(MESSAGES.contains_key(inner), "{inner}");
                }
            }
        }
    }

    /// Types of the API and the table must tell of the same fields.
    #[test]
    fn the_table_has_every_field_of_every_kind() {
        use api::schema::shape::{Place, Shapes, TypeId};
        let mut missing = Vec::new();
        for kind in api::kinds() {
            let shapes = Shapes::of(kind);
            let Place::Object { of: root, .. } = shapes.root() else { unreachable!() };
            let message = message_of(&kind.api_version(), &kind.kind).unwrap();
            let mut todo: Vec<(TypeId, &str)> = vec![(root, message)];
            let mut seen = std::collections::HashSet::new();
            while let Some((id, message)) = todo.pop() {
                if !seen.insert((id, message)) {
                    continue;
                }
                let known = names(message);
                for field in shapes.type_of(id).fields() {
                    let Some(own) = known.iter().find(|it| it.name == field.name) else {
                        if !(message == kind_name(kind)
                            && ["apiVersion", "kind"].contains(&field.name.as_str()))
                        {
                            missing.push(format!("{message} {}", field.name));
                        }
                        continue;
                    };
                    let mut place = &field.place;
                    while let Place::List { items: inside, .. }
                    | Place::Map { values: inside, .. } = place
                    {
                        place = inside;
                    }
                    if let (Place::Object { of, .. }, Kind::Message(inner)) = (place, own.kind) {
                        todo.push((*of, inner));
                    }
                }
            }
        }
        // Kinds within kinds name themselves in JSON only.
        missing.retain(|it| !it.ends_with(" apiVersion") && !it.ends_with(" kind"));
        assert!(missing.is_empty(), "{missing:?}");
    }

    fn kind_name(kind: &api::AnyKind) -> &'static str {
        message_of(&kind.api_version(), &kind.kind).unwrap()
    }

    /// Fields as JSON has them: inlined ones belong to the outer message.
    fn names(message: &str) -> Vec<Field> {
        let mut out = Vec::new();
        for (_, field) in &MESSAGES[message].ordered {
            match (field.inline, field.kind) {
                (true, Kind::Message(inner)) => out.extend(names(inner)),
                (_, _) => out.push(*field),
            }
        }
        out
    }

    /// A document of a message, made from a supply of choices.
    fn document(message: &str, choices: &mut impl Iterator<Item = Index>, depth: usize) -> Value {
        let mut fields = Map::new();
        for field in names(message) {
            let mut choose = |of: usize| choices.next().map_or(0, |it| it.index(of));
            if depth > 6 || choose(3) == 0 {
                continue;
            }
            let count = match field.shape {
                Shape::One => 1,
                Shape::List | Shape::Map => 1 + choose(2),
            };
            let in_many = field.shape != Shape::One;
            let mut values: Vec<Value> = Vec::new();
            for _ in 0..count {
                values.push(one_of(&field, in_many, choices, depth));
            }
            let value = match field.shape {
                Shape::One => values.remove(0),
                Shape::List => values.into(),
                Shape::Map => {
                    let entry = |(n, it): (usize, Value)| (format!("key-{n}"), it);
                    Value::Object(values.into_iter().enumerate().map(entry).collect())
                }
            };
            fields.insert(field.name.to_owned(), value);
        }
        Value::Object(fields)
    }

    fn one_of(
        field: &Field,
        in_many: bool,
        choices: &mut impl Iterator<Item = Index>,
        depth: usize,
    ) -> Value {
        let zero = field.zero_counts || in_many;
        let mut choose = |of: usize| choices.next().map_or(1, |it| it.index(of));
        match field.kind {
            Kind::Text if zero && choose(3) == 0 => "".into(),
            Kind::Text => ["x", "a b", "ü\n\"", "10.0.0.1"][choose(4)].into(),
            Kind::Truth => (!zero || choose(2) == 0).into(),
            Kind::Whole if zero && choose(3) == 0 => 0.into(),
            Kind::Whole => [1i64, -1, 127, 128, i64::from(i32::MAX), i64::MIN][choose(6)].into(),
            Kind::Bytes => ["", "AP8=", "aGVsbG8="][choose(3)].into(),
            Kind::Floating => 1.5.into(),
            Kind::Time => "2026-01-02T03:04:05Z".into(),
            Kind::MicroTime => "1969-12-31T23:59:59.250000Z".into(),
            Kind::Quantity => ["0", "100m", "5Gi"][choose(3)].into(),
            Kind::IntOrString => [json!(0), json!(-8), json!("25%")][choose(3)].clone(),
            Kind::Json => json!({"f:spec": {"k:{\"a\":1}": {}}, "n": null}),
            Kind::Texts => json!(["a", ""]),
            Kind::Message(inner) => document(inner, choices, depth + 1),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn json_there_and_back_is_the_same(
            which: Index,
            choices in proptest::collection::vec(any::<Index>(), 0..600),
        ) {
            let kind = &api::kinds()[which.index(api::kinds().len())];
            let mut object = document(kind_name(kind), &mut choices.into_iter(), 0);
            object["apiVersion"] = kind.api_version().into();
            object["kind"] = kind.kind.clone().into();
            let packed = from_json(object.to_string().as_bytes()).unwrap();
            prop_assert_eq!(to_json(&packed).unwrap(), object);
        }
    }

    #[test]
    fn a_list_a_status_and_metadata_alone_go_over_the_wire() {
        for value in [
            json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7", "remainingItemCount": 3},
                "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}),
            json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict",
                "metadata": {}, "message": "m", "details": {"name": "n", "causes": [{"reason": "r", "field": "f"}]}}),
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "x"}}),
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                "metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "x"}}]}),
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"},
                "spec": {"replicas": 3}, "status": {"replicas": 0, "selector": "a=b"}}),
        ] {
            assert_eq!(to_json(&from_json(value.to_string().as_bytes()).unwrap()).unwrap(), value);
        }
        let table = br#"{"apiVersion":"meta.k8s.io/v1","kind":"Table"}"#;
        assert!(matches!(from_json(table), Err(ProtobufError::UnknownKind { .. })));
        let odd = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":1}}"#;
        assert_eq!(from_json(odd), Err(ProtobufError::Mismatch("name")));
    }

    /// A client took the end of the first verb for the end of the document.
    #[test]
    fn the_verbs_of_a_resource_are_a_message_of_their_own() {
        let list = json!({"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "v1",
            "resources": [{"name": "pods", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"], "singularName": "pod"}]});
        let packed = from_json(list.to_string().as_bytes()).unwrap();
        let verbs = b"\x22\x0b\x0a\x03get\x0a\x04list";
        assert!(packed.windows(verbs.len()).any(|it| it == verbs), "{packed:?}");
    }

    #[test]
    fn an_event_of_a_watch_is_framed_by_its_length() {
        let json = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"}}"#;
        let frame = frame("ADDED", json).unwrap();
        let (length, event) = frame.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
        assert_eq!(&event[..7], b"\x0a\x05ADDED");
        let at = event.windows(4).position(|it| it == MAGIC).unwrap();
        assert_eq!(to_json(&event[at..]).unwrap()["metadata"]["name"], "m");
    }
}
