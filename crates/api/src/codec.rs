//! Bytes to objects and back: the only place where serde meets API types.
//!
//! Stored bytes carry no resourceVersion; [`head`] says where it goes, so that a reply is the stored
//! bytes with one splice. Decoding always notes unknown fields: one instantiation of serde per type
//! serves strict and lenient callers, which halves the time to build this crate.

use crate::{kind::Object, meta::Meta};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// The bytes are not such an object.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Decodes JSON and names the fields that the type does not have, as upstream writes paths.
pub fn decode<T: Object>(json: &[u8]) -> Result<(T, Vec<String>), DecodeError> {
    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let object = serde_ignored::deserialize(&mut deserializer, |path| {
        unknown.push(render(&path));
    })
    .map_err(|error| DecodeError(error.to_string()))?;
    deserializer.end().map_err(|error| DecodeError(error.to_string()))?;
    Ok((object, unknown))
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
}

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
    Ok(Head { meta, splice_at })
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

    #[test]
    fn names_unknown_fields_by_path() {
        let json = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","x":1},
            "spec":{"containers":[{"name":"c"}],"volumes":[{"name":"v","host-path":{"path":"/"}}]}}"#;
        let (_, unknown) = decode::<Pod>(json).unwrap();
        assert_eq!(unknown, ["metadata.x", "spec.volumes[0].host-path"]);
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
    fn refuses_what_follows_an_object() {
        assert!(decode::<Pod>(b"{\"metadata\":{}} x").is_err());
    }
}
