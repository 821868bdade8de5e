//! Objects in protobuf, as clients with generated types speak: read into JSON and written from it, by
//! a table.
//!
//! `fields.txt` holds one message a line: `core.Pod metadata=1:meta.ObjectMeta spec=2:core.PodSpec`.
//! A field is `name=number:type`. Types: `s` text, `b` truth, `i` whole number, `y` bytes, `d` floating,
//! `T` Time, `M` MicroTime, `Q` Quantity, `I` IntOrString, `R` embedded JSON, `E` a list of texts that
//! is a message of its own, or a message. Before the type: `[]` list, `{}` map from text, `?` a zero is
//! a value and not an absence, `+` the message's fields lie in the outer object.
//!
//! Upstream: `apimachinery/pkg/runtime/serializer/protobuf`; numbers from the APIs' `generated.proto`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use std::{collections::HashMap, sync::LazyLock};
use stdx::Timestamp;

mod write;

pub(crate) use write::{frame, from_json};

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Deeper than any object of the API.
const DEPTH_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    #[error("the protobuf message ends too early")]
    Truncated,
    #[error("the protobuf message is malformed")]
    Malformed,
    #[error("{0} holds something else than its type says")]
    Mismatch(&'static str),
    #[error("field {number} of {message} is not known")]
    Unknown { message: &'static str, number: u64 },
    #[error("no kind {kind:?} is registered for version {version:?}")]
    UnknownKind { kind: String, version: String },
}

#[derive(Clone, Copy)]
struct Field {
    name: &'static str,
    shape: Shape,
    inline: bool,
    zero_counts: bool,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Truth,
    Whole,
    Bytes,
    Floating,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Json,
    Texts,
    Message(&'static str),
}

/// Its fields by number, and in the order of the numbers.
struct Message {
    numbered: HashMap<u64, Field>,
    ordered: Vec<(u64, Field)>,
}

type Messages = HashMap<&'static str, Message>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let lines = include_str!("protobuf/fields.txt").lines();
    lines
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let mut ordered: Vec<(u64, Field)> = words.filter_map(field).collect();
            ordered.sort_by_key(|it| it.0);
            Some((name, Message { numbered: ordered.iter().copied().collect(), ordered }))
        })
        .collect()
});

fn field(text: &'static str) -> Option<(u64, Field)> {
    let (name, rest) = text.split_once('=')?;
    let (number, mut kind) = rest.split_once(':')?;
    let mut take = |prefix: &str| match kind.strip_prefix(prefix) {
        Some(rest) => {
            kind = rest;
            true
        }
        None => false,
    };
    let shape = match (take("[]"), take("{}")) {
        (true, _) => Shape::List,
        (_, true) => Shape::Map,
        _ => Shape::One,
    };
    let (inline, zero_counts) = (take("+"), take("?"));
    let kind = match kind {
        "s" => Kind::Text,
        "b" => Kind::Truth,
        "i" => Kind::Whole,
        "y" => Kind::Bytes,
        "d" => Kind::Floating,
        "T" => Kind::Time,
        "M" => Kind::MicroTime,
        "Q" => Kind::Quantity,
        "I" => Kind::IntOrString,
        "R" => Kind::Json,
        "E" => Kind::Texts,
        message => Kind::Message(message),
    };
    Some((number.parse().ok()?, Field { name, shape, inline, zero_counts, kind }))
}

/// Whether bytes are an object in protobuf at all.
pub(crate) fn is_protobuf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Where the reader is, and whether it passes over what it does not know.
#[derive(Clone, Copy)]
struct At {
    depth: usize,
    strictly: bool,
}

impl At {
    fn below(self) -> At {
        At { depth: self.depth + 1, ..self }
    }
}

/// A whole body: the envelope and the object in it. Fields that came after the table are passed over, as clients expect.
pub(crate) fn to_json(body: &[u8]) -> Result<Value, ProtobufError> {
    whole(body, At { depth: 0, strictly: false })
}

/// The same for what is to be kept: a field that is not known is an error, since it would be lost.
pub(crate) fn to_json_strictly(body: &[u8]) -> Result<Value, ProtobufError> {
    whole(body, At { depth: 0, strictly: true })
}

fn whole(body: &[u8], at: At) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &envelope[..0]);
    let mut reader = Reader(envelope);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, wire)) = meta.next()? {
                    match number {
                        1 => version = wire.text()?,
                        2 => kind = wire.text()?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            // How the bytes are encoded once more: never said by anyone.
            (3, Wire::Bytes(coding)) if at.strictly && !coding.is_empty() => {
                return Err(ProtobufError::Unknown { message: "runtime.Unknown", number });
            }
            _ => {}
        }
    }
    let message = message_of(&version, &kind).ok_or_else(|| ProtobufError::UnknownKind {
        kind: kind.clone(),
        version: version.clone(),
    })?;
    let mut fields = Map::new();
    fields.insert("apiVersion".to_owned(), version.into());
    fields.insert("kind".to_owned(), kind.into());
    read(message, raw, &mut fields, at)?;
    Ok(Value::Object(fields))
}

/// `apps/v1` and `StatefulSet` → `apps.StatefulSet`.
fn message_of(version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = version.split_once('/').unwrap_or(("core", version));
    let group = group.split('.').next().unwrap_or_default();
    let names =
        [format!("{group}_{version}.{kind}"), format!("{group}.{kind}"), format!("meta.{kind}")];
    names.iter().find_map(|it| MESSAGES.get_key_value(it.as_str())).map(|(name, _)| *name)
}

fn read(
    message: &'static str,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    at: At,
) -> Result<(), ProtobufError> {
    if at.depth > DEPTH_MAX {
        return Err(ProtobufError::Malformed);
    }
    let fields = MESSAGES.get(message).ok_or(ProtobufError::Malformed)?;
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = fields.numbered.get(&number) else {
            match at.strictly {
                true => return Err(ProtobufError::Unknown { message, number }),
                false => continue,
            }
        };
        match (field.shape, field.kind) {
            (Shape::One, Kind::Message(inner)) if field.inline => {
                read(inner, wire.bytes()?, out, at.below())?;
            }
            (Shape::One, _) => {
                if let Some(value) = value(field, wire, at)? {
                    out.insert(field.name.to_owned(), value);
                }
            }
            (Shape::List, _) => {
                let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    let counted = Field { zero_counts: true, ..*field };
                    items.extend(value(&counted, wire, at)?);
                }
            }
            (Shape::Map, _) => {
                let (mut key, mut inner) = (String::new(), None);
                let counted = Field { zero_counts: true, ..*field };
                let mut entry = Reader(wire.bytes()?);
                while let Some((number, wire)) = entry.next()? {
                    match number {
                        1 => key = wire.text()?,
                        2 => inner = value(&counted, wire, at)?,
                        _ => {}
                    }
                }
                let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, inner.unwrap_or_else(|| "".into()));
                }
            }
        }
    }
    Ok(())
}

/// `None` for what JSON would leave out.
fn value(field: &Field, wire: Wire<'_>, at: At) -> Result<Option<Value>, ProtobufError> {
    let value = match field.kind {
        Kind::Text => match wire.text()? {
            text if text.is_empty() && !field.zero_counts => return Ok(None),
            text => text.into(),
        },
        Kind::Truth => match wire.number()? {
            0 if !field.zero_counts => return Ok(None),
            number => (number != 0).into(),
        },
        Kind::Whole => match wire.number()? {
            0 if !field.zero_counts => return Ok(None),
            // Two's complement, as protobuf writes negative numbers.
            number => (number as i64).into(),
        },
        Kind::Floating => f64::from_bits(wire.number()?).into(),
        Kind::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Kind::Time | Kind::MicroTime => {
            let (seconds, nanos) = parts(wire.bytes()?)?;
            let at = Timestamp(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000));
            match (field.kind, wire.bytes()?.is_empty()) {
                (_, true) => return Ok(None),
                (Kind::MicroTime, _) => at.rfc3339_micros().into(),
                _ => at.rfc3339().into(),
            }
        }
        Kind::Quantity => {
            let mut text = "0".to_owned();
            let mut reader = Reader(wire.bytes()?);
            while let Some((number, wire)) = reader.next()? {
                if number == 1 {
                    text = wire.text()?;
                }
            }
            text.into()
        }
        Kind::IntOrString => {
            let (mut is_text, mut whole, mut text) = (false, 0i64, String::new());
            let mut reader = Reader(wire.bytes()?);
            while let Some((number, wire)) = reader.next()? {
                match number {
                    1 => is_text = wire.number()? != 0,
                    2 => whole = wire.number()? as i64,
                    3 => text = wire.text()?,
                    _ => {}
                }
            }
            if is_text { text.into() } else { whole.into() }
        }
        Kind::Json => {
            let mut json = &b"null"[..];
            let mut reader = Reader(wire.bytes()?);
            while let Some((number, wire)) = reader.next()? {
                if number == 1 {
                    json = wire.bytes()?;
                }
            }
            serde_json::from_slice(json).map_err(|_| ProtobufError::Malformed)?
        }
        Kind::Texts => {
            let mut texts = Vec::new();
            let mut reader = Reader(wire.bytes()?);
            while let Some((number, wire)) = reader.next()? {
                if number == 1 {
                    texts.push(Value::from(wire.text()?));
                }
            }
            texts.into()
        }
        Kind::Message(message) => {
            let mut inner = Map::new();
            read(message, wire.bytes()?, &mut inner, at.below())?;
            inner.into()
        }
    };
    Ok(Some(value))
}

/// Seconds and nanoseconds.
fn parts(bytes: &[u8]) -> Result<(i64, i64), ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => seconds = wire.number()? as i64,
            2 => nanos = wire.number()? as i64,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn number(self) -> Result<u64, ProtobufError> {
        match self {
            Wire::Number(number) => Ok(number),
            Wire::Bytes(_) => Err(ProtobufError::Malformed),
        }
    }

    fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            Wire::Number(_) => Err(ProtobufError::Malformed),
        }
    }

    fn text(self) -> Result<String, ProtobufError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| ProtobufError::Malformed)
    }
}

/// Fields of a message, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes"))),
            2 => {
                let length = usize::try_from(self.varint()?);
                Wire::Bytes(self.take(length.map_err(|_| ProtobufError::Truncated)?)?)
            }
            5 => {
                let four: [u8; 4] = self.take(4)?.try_into().expect("four bytes");
                Wire::Number(u64::from(u32::from_le_bytes(four)))
            }
            _ => return Err(ProtobufError::Malformed),
        };
        Ok(Some((tag >> 3, wire)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
        out
    }

    fn part(number: u64, bytes: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
    }

    fn whole(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [part(1, version.as_bytes()), part(2, kind.as_bytes())].concat();
        [MAGIC, &part(1, &meta), &part(2, raw)].concat()
    }

    #[test]
    fn reads_what_a_typed_client_sends() {
        // A map entry, an inline message, a quantity, a zero that counts and one that does not.
        let labels = part(11, &[part(1, b"app"), part(2, b"web")].concat());
        let meta = [part(1, b"p"), part(2, b""), labels, part(8, b"")].concat();
        let claim = part(10, &part(1, b"c"));
        let volume = [part(1, b"v"), part(2, &claim)].concat();
        let request = part(2, &[part(1, b"cpu"), part(2, &part(1, b"100m"))].concat());
        let port = whole(3, 80);
        let container = [part(1, b"n"), part(8, &request), part(6, &port), whole(16, 0)].concat();
        let spec = [part(1, &volume), part(2, &container), whole(4, 0)].concat();
        let pod = [part(1, &meta), part(2, &spec), part(3, b"")].concat();
        assert_eq!(
            to_json(&body("v1", "Pod", &pod)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
                    "containers": [{"name": "n", "ports": [{"containerPort": 80}],
                        "resources": {"requests": {"cpu": "100m"}}}],
                },
                "status": {},
            })
        );
        let secret = part(2, &[part(1, b"k"), part(2, b"\x00\xff")].concat());
        assert_eq!(to_json(&body("v1", "Secret", &secret)).unwrap()["data"], json!({"k": "AP8="}));
        let options = whole(1, 0);
        let options = to_json(&body("policy/v1", "DeleteOptions", &options)).unwrap();
        assert_eq!(options["gracePeriodSeconds"], 0);
    }

    #[test]
    fn says_what_is_no_such_body() {
        assert_eq!(to_json(b"{}"), Err(ProtobufError::NoMagic));
        assert!(matches!(to_json(&body("v1", "X", b"")), Err(ProtobufError::UnknownKind { .. })));
        assert_eq!(to_json(&body("v1", "Pod", &[10, 5, 1])), Err(ProtobufError::Truncated));
    }

    #[test]
    fn every_message_that_a_field_names_is_there() {
        for (message, fields) in MESSAGES.iter() {
            for field in fields.numbered.values() {
                if let Kind::Message(inner) = field.kind {
                    assert!(MESSAGES.contains_key(inner), "{message}.{}: {inner}", field.name);
                }
            }
        }
        for kind in api::kinds() {
            assert!(message_of(&kind.api_version(), &kind.kind).is_some(), "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = to_json(&body("v1", "Pod", &raw[..raw.len().min(100)]));
            let _read = to_json(&[MAGIC, &raw].concat());
        }
    }
}
