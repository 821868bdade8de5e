//! Bytes to objects and back: the only place where serde meets API types.
//!
//! Stored bytes carry no resourceVersion; [`head`] says where it goes, so that a reply is the stored
//! bytes with one splice. Decoding always notes unknown fields: one instantiation of serde per type
//! serves strict and lenient callers, which halves the time to build this crate.

use crate::{
    kind::Object,
    meta::{Meta, ObjectMeta},
};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, ops::Range};

/// The bytes are not such an object.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Decodes JSON and names the fields that the type does not have, as upstream writes paths.
pub fn decode<T: Object>(json: &[u8]) -> Result<(T, Vec<String>), DecodeError> {
    match read(json) {
        Err(error) => with_times(json, &error).map_or(Err(error), |json| read(&json)),
        read => read,
    }
}

/// Upstream's decoder names no more faults of one text.
const UNKNOWN_MAX: usize = 100;

fn read<T: Object>(json: &[u8]) -> Result<(T, Vec<String>), DecodeError> {
    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let object = serde_ignored::deserialize(&mut deserializer, |path| {
        if unknown.len() < UNKNOWN_MAX {
            unknown.push(render(&path));
        }
    })
    .map_err(|error| DecodeError(error.to_string()))?;
    deserializer.end().map_err(|error| DecodeError(error.to_string()))?;
    Ok((object, unknown))
}

/// Times that nobody needs to say, and what they stand in. Upstream's types then have its first of all
/// times; the types that we use must be told.
const TIMES: [(&str, &str); 2] =
    [("lastTransitionTime", "conditions"), ("lastObservedTime", "series")];

const FIRST_TIME: &str = "0001-01-01T00:00:00Z";

/// The document with such a time where it is missing, if that is what is wrong with it.
fn with_times(json: &[u8], error: &DecodeError) -> Option<Vec<u8>> {
    let lacks = |field: &str| error.0.starts_with(&format!("missing field `{field}`"));
    let is_null = error.0.starts_with("invalid type: null, expected a timestamp");
    if !is_null && !TIMES.iter().any(|(field, _)| lacks(field)) {
        return None;
    }
    let mut document: Value = serde_json::from_slice(json).ok()?;
    for (field, within) in TIMES {
        fill(&mut document, field, within);
    }
    serde_json::to_vec(&document).ok()
}

fn fill(value: &mut Value, field: &str, within: &str) {
    let give = |holder: &mut Value| {
        if let Value::Object(fields) = holder
            && fields.get(field).is_none_or(Value::is_null)
        {
            fields.insert(field.to_owned(), FIRST_TIME.into());
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Array(items) if name == within => items.iter_mut().for_each(give),
                    holder if name == within => give(holder),
                    other => fill(other, field, within),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|it| fill(it, field, within)),
        _ => {}
    }
}

/// JSON as it is stored.
pub fn encode<T: Object>(object: &T) -> Vec<u8> {
    if object.metadata().resource_version.is_none() && object.metadata().self_link.is_none() {
        return serde_json::to_vec(object).expect("API objects are plain data");
    }
    let mut object = object.clone();
    object.metadata_mut().resource_version = None;
    object.metadata_mut().self_link = None;
    serde_json::to_vec(&object).expect("API objects are plain data")
}

/// A typed object as a JSON document, resourceVersion included. For tests, patches and printing.
pub fn to_value<T: Object>(object: &T) -> Value {
    serde_json::to_value(object).expect("API objects are plain data")
}

/// Reads an object from a document that lacks nothing but may have too much.
pub fn from_value<T: Object>(value: &Value) -> Result<T, DecodeError> {
    decode(&serde_json::to_vec(value).expect("a document is plain data")).map(|(object, _)| object)
}

/// What a row remembers of its bytes.
#[derive(Clone, Debug)]
pub struct Head {
    pub meta: Meta,
    /// Where `"resourceVersion":"…",` goes: right after the opening brace of `metadata`.
    pub splice_at: usize,
    /// Where managedFields are; `None` when the object has none.
    pub managed: Option<Managed>,
}

/// Where stored bytes hold `metadata.managedFields`. Typed objects do without: they are large, and
/// nobody but the door asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// The list alone.
    pub list: Range<usize>,
    /// With its name and the comma that goes with it.
    pub member: Range<usize>,
}

const MANAGED: &str = "\"managedFields\":";

/// Reads the metadata of stored bytes and nothing else.
pub fn head(json: &[u8]) -> Result<Head, DecodeError> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let outer: Outer<'_> =
        serde_json::from_slice(json).map_err(|error| DecodeError(error.to_string()))?;
    let text = outer.metadata.get();
    let meta = serde_json::from_str(text).map_err(|error| DecodeError(error.to_string()))?;
    let splice_at = text.as_ptr() as usize - json.as_ptr() as usize + 1;
    let managed = managed(text).map(|it| Managed {
        list: it.list.start + splice_at - 1..it.list.end + splice_at - 1,
        member: it.member.start + splice_at - 1..it.member.end + splice_at - 1,
    });
    Ok(Head { meta, splice_at, managed })
}

/// Finds managedFields in the text of an object's metadata. Our own bytes have them right at its
/// beginning.
fn managed(metadata: &str) -> Option<Managed> {
    if metadata[1..].starts_with(MANAGED) && metadata[1 + MANAGED.len()..].starts_with('[') {
        let start = 1 + MANAGED.len();
        let end = start + list_length(&metadata.as_bytes()[start..])?;
        let comma = usize::from(metadata[end..].starts_with(','));
        return Some(Managed { list: start..end, member: 1..end + comma });
    }
    if !metadata.contains(MANAGED.trim_end_matches(':')) {
        return None;
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outer<'a> {
        #[serde(borrow)]
        managed_fields: Option<&'a RawValue>,
    }
    let list = serde_json::from_str::<Outer<'_>>(metadata).ok()?.managed_fields?.get();
    let start = list.as_ptr() as usize - metadata.as_ptr() as usize;
    let (mut end, name) = (start + list.len(), metadata[..start].rfind('"')?);
    let mut begin = name + 1 - MANAGED.trim_end_matches(':').len();
    let after = metadata[end..].trim_start();
    match after.starts_with(',') {
        true => end = metadata.len() - after.len() + 1,
        false => begin = metadata[..begin].trim_end().trim_end_matches(',').len(),
    }
    Some(Managed { list: start..start + list.len(), member: begin..end })
}

/// How long the list is with which some bytes begin.
fn list_length(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        match *bytes.get(at)? {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b'"' => {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Stored bytes without managedFields.
pub fn plain<'a>(stored: &'a [u8], managed: Option<&Managed>) -> Cow<'a, [u8]> {
    match managed {
        None => Cow::Borrowed(stored),
        Some(it) => Cow::Owned([&stored[..it.member.start], &stored[it.member.end..]].concat()),
    }
}

/// Encoded bytes with a list of managedFields, where [`head`] finds it at once.
pub fn with_managed(plain: Vec<u8>, list: Option<&str>) -> Vec<u8> {
    let Some(list) = list else { return plain };
    let at = opening(&plain).expect("every object is encoded with its metadata");
    let mut out = Vec::with_capacity(plain.len() + MANAGED.len() + list.len() + 1);
    out.extend_from_slice(&plain[..at]);
    out.extend_from_slice(MANAGED.as_bytes());
    out.extend_from_slice(list.as_bytes());
    // An object's metadata always holds a name after it.
    out.push(b',');
    out.extend_from_slice(&plain[at..]);
    out
}

/// Where an object's own metadata begins, behind the brace. Members of any form may come before it and hold metadata
/// of their own, as the template in a ControllerRevision does.
fn opening(json: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let outer: Outer<'_> = serde_json::from_slice(json).ok()?;
    Some(outer.metadata.get().as_ptr() as usize - json.as_ptr() as usize + 1)
}

/// Takes managedFields out of an object as JSON: what its author says of them.
pub fn take_managed(meta: &mut ObjectMeta) -> Option<String> {
    let list = meta.managed_fields.take()?;
    Some(serde_json::to_string(&list).expect("managedFields are plain data"))
}

/// Stored bytes as a client sees them: with their resourceVersion.
pub fn spliced(stored: &[u8], splice_at: usize, revision: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(stored.len() + 44);
    splice_into(&mut out, stored, splice_at, revision);
    out.freeze()
}

/// Appends stored bytes with their resourceVersion.
pub fn splice_into(out: &mut BytesMut, stored: &[u8], splice_at: usize, revision: u64) {
    out.put_slice(&stored[..splice_at]);
    out.put_slice(b"\"resourceVersion\":\"");
    let mut digits = [0u8; 20];
    out.put_slice(decimal(revision, &mut digits));
    // An object's metadata always holds a name after it.
    out.put_slice(b"\",");
    out.put_slice(&stored[splice_at..]);
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// `spec.volumes[0].host-path`
fn render(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", render(parent)),
        Path::Map { parent, key } => match render(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => render(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::v1::Pod;

    /// The template that a ControllerRevision keeps came back with managedFields in it, so that no set knew its own
    /// after a restart of the server, and every one of them replaced its pods.
    #[test]
    fn managed_fields_go_into_the_objects_own_metadata() {
        let revision = r#"{"apiVersion":"apps/v1","kind":"ControllerRevision","data":{"spec":{"template":{"metadata":{"labels":{}}}}},"metadata":{"name":"r"},"revision":1}"#;
        let stored = with_managed(revision.as_bytes().to_vec(), Some("[1]"));
        let expected =
            revision.replace(r#""metadata":{"name""#, r#""metadata":{"managedFields":[1],"name""#);
        assert_eq!(std::str::from_utf8(&stored), Ok(expected.as_str()));
    }

    #[test]
    fn names_unknown_fields_by_path() {
        let json = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","x":1},
            "spec":{"containers":[{"name":"c"}],"volumes":[{"name":"v","host-path":{"path":"/"}}]}}"#;
        let (_, unknown) = decode::<Pod>(json).unwrap();
        assert_eq!(unknown, ["metadata.x", "spec.volumes[0].host-path"]);
    }

    #[test]
    fn a_condition_needs_no_time() {
        let json = br#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},
            "status":{"conditions":[{"type":"A","status":"True","lastTransitionTime":null,"x":1}]}}"#;
        let (service, unknown) = decode::<crate::core::v1::Service>(json).unwrap();
        assert_eq!(unknown, ["status.conditions[0].x"]);
        let value = to_value(&service);
        assert_eq!(value["status"]["conditions"][0]["lastTransitionTime"], FIRST_TIME);
        assert!(decode::<crate::core::v1::Service>(br#"{"status":{"conditions":1}}"#).is_err());
    }

    #[test]
    fn splices_the_revision_into_stored_bytes() {
        let json = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","resourceVersion":"7"},"spec":{"containers":[]}}"#;
        let (pod, _) = decode::<Pod>(json).unwrap();
        let stored = encode(&pod);
        let head = head(&stored).unwrap();
        assert_eq!(head.meta.name, "p");
        let (again, _) = decode::<Pod>(&spliced(&stored, head.splice_at, 1024)).unwrap();
        assert_eq!(again.revision(), 1024);
    }

    #[test]
    fn finds_managed_fields_wherever_they_are() {
        let pod =
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[]}}"#;
        let list = r#"[{"manager":"a]\"","fieldsV1":{"f:x":{}}},{}]"#;
        let ours = with_managed(pod.to_vec(), Some(list));
        let theirs = [
            r#"{"metadata":{"annotations":{"a":"\"managedFields\":[]"},"managedFields": LIST ,"name":"p"}}"#,
            r#"{"metadata":{"name":"p","managedFields":LIST}}"#,
            r#"{"metadata":{"name":"p" , "managedFields" :LIST }}"#,
        ];
        let theirs = theirs.map(|it| it.replace("LIST", list).into_bytes());
        for bytes in std::iter::once(ours).chain(theirs) {
            let head = head(&bytes).unwrap();
            let managed = head.managed.unwrap();
            assert_eq!(std::str::from_utf8(&bytes[managed.list.clone()]).unwrap(), list);
            let plain = plain(&bytes, Some(&managed));
            let value: Value = serde_json::from_slice(&plain).unwrap();
            assert_eq!(value["metadata"]["name"], "p");
            assert_eq!(value["metadata"].get("managedFields"), None);
        }
        assert_eq!(head(pod).unwrap().managed, None);
        assert_eq!(with_managed(pod.to_vec(), None), pod);
    }

    #[test]
    fn refuses_what_follows_an_object() {
        assert!(decode::<Pod>(b"{\"metadata\":{}} x").is_err());
    }
}
