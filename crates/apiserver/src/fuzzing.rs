//! What strangers may send, as plain functions of bytes: each must come back, whatever it is given, and panics when
//! what it computed contradicts itself. For the fuzz targets and their corpus only.

use crate::{
    body::{self, Strictness},
    fields::{
        apply::{Applied, apply as applied},
        reset::Filter,
        shapes::ShapesOfKinds,
        update::{Author, Stored},
    },
    merge::Patch,
    openapi, protobuf,
    selection::Selection,
    spdy,
    table::{self, Include, Seen},
    target::{Query, Target, decode, encode},
};
use api::{Failure, KindRef, core::v1::Pod, field::Errors, kind::Printing};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use stdx::Timestamp;
use world::Row;

/// Some moment: nothing here may depend on which.
const NOW: Timestamp = Timestamp::from_seconds(1_795_255_970);

static SHAPES: LazyLock<ShapesOfKinds> = LazyLock::new(ShapesOfKinds::default);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A first line with a plural chooses that kind; where there is none, the first byte chooses one.
fn kind(bytes: &[u8]) -> Option<(&'static KindRef, &[u8])> {
    let kinds = api::kinds();
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (line, rest) = (lines.next()?, lines.next().unwrap_or_default());
    if let Some(kind) = kinds.iter().find(|it| it.plural.as_bytes() == line) {
        return Some((kind, rest));
    }
    let (first, rest) = bytes.split_first()?;
    Some((&kinds[usize::from(*first) % kinds.len()], rest))
}

/// Paths and queries.
pub fn path(bytes: &[u8]) {
    let text = text(bytes);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    assert_eq!(decode(&encode(path)), path, "what is encoded is decoded again");
    let query = Query::parse(query);
    for (key, value) in query.pairs() {
        assert!(query.has(key));
        assert!(query.all(key).any(|it| it == value));
    }
    if let Some(target) = Target::parse(api::kinds(), path) {
        assert!(!target.kind.plural.is_empty());
        assert!(target.subresource.is_empty() || !target.name.is_empty());
        assert!(target.kind.is_namespaced() || target.namespace.is_empty());
    }
}

/// Label and field selectors.
pub fn selectors(bytes: &[u8]) {
    let Some((kind, rest)) = kind(bytes) else { return };
    let text = text(rest);
    let (labels, fields) = text.split_once('\n').unwrap_or((&text, ""));
    let query = format!("labelSelector={}&fieldSelector={}", encode(labels), encode(fields));
    let selection =
        Selection::of_kind(kind, "default", &Query::parse(&query), |it| Some(it.to_owned()));
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": {"name": "a", "namespace": "default", "labels": {"app": "web", "x": ""}},
    });
    let row = Row::new(kind, Bytes::from(object.to_string()), 1);
    if let (Ok(selection), Ok(row)) = (selection, row) {
        let first = selection.wants(&row);
        assert_eq!(first, selection.wants(&row), "the same question has the same answer");
        assert!(first || !selection.is_everything(), "everything is wanted");
    }
}

/// Patches of the three kinds, and documents that they change: `KIND PATCH \0 DOCUMENT`.
pub fn patches(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let types = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];
    let content_type = types[usize::from(*first) % types.len()];
    let Some((kind, rest)) = kind(rest) else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let patch = parts.next().unwrap_or_default();
    let Ok(document) = serde_json::from_slice::<Value>(parts.next().unwrap_or(b"{}")) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let Ok(patch) = Patch::read(&headers, patch) else { return };
    let shapes = SHAPES.of(kind);
    let mut once = document.clone();
    if patch.apply(&shapes, &mut once).is_err() {
        return;
    }
    let mut again = document;
    patch.apply(&shapes, &mut again).expect("what worked once works on the same document");
    assert_eq!(once, again, "a patch does the same to the same document");
    if let Patch::Merge(patch) = &patch {
        json_patch::merge(&mut again, patch);
        assert_eq!(once, again, "a merge patch does nothing the second time");
    }
}

/// Server-side apply: `KIND CONFIGURATION \0 OBJECT \0 MANAGED FIELDS`.
pub fn apply(bytes: &[u8]) {
    let Some((kind, rest)) = kind(bytes) else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0).map(std::str::from_utf8);
    let Some(Ok(config)) = parts.next() else { return };
    let (live, managed) = (parts.next(), parts.next());
    let live = match (live, managed) {
        (None, _) => None,
        (Some(Ok(json)), managed) => Some(Stored { json, managed: managed.and_then(Result::ok) }),
        (Some(Err(_)), _) => return,
    };
    let author = |manager: &str| Author {
        manager: manager.to_owned(),
        api_version: kind.api_version(),
        subresource: String::new(),
        filter: Filter::of(kind, ""),
        now: NOW.rfc3339(),
    };
    let shapes = SHAPES.of(kind);
    let _judged = applied(kind, &shapes, live, config, &author("other"), false);
    let Ok(Applied { json, managed }) = applied(kind, &shapes, live, config, &author("one"), true)
    else {
        return;
    };
    let stored = Stored { json: &json, managed: managed.as_deref() };
    let again = applied(kind, &shapes, Some(stored), config, &author("one"), false);
    let again =
        again.unwrap_or_else(|it| panic!("what one owns, one may apply again: {}", it.message));
    let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON that we wrote");
    assert_eq!(value(&again.json), value(&json), "applying again changes nothing");
}

/// Frames of SPDY, and the headers in them.
pub fn spdy(bytes: &[u8]) {
    // Everything is there: nobody is waited for.
    let read = futures_util::FutureExt::now_or_never(spdy::read_all(bytes));
    assert!(read.is_some(), "bytes that are there are waited for");
}

/// Bodies as JSON and as YAML, strict and lenient: decoded, defaulted, judged, and printed as a table.
pub fn objects(bytes: &[u8]) {
    let Some((kind, rest)) = kind(bytes) else { return };
    let json = match rest.first() {
        Some(b'{') => Bytes::copy_from_slice(rest),
        _ => match crate::yaml::read(rest) {
            Ok(yaml) => Bytes::from(yaml.value.to_string()),
            Err(_) => return,
        },
    };
    for strictness in [Strictness::Strict, Strictness::Warn, Strictness::Ignore] {
        let decoded = body::decode(kind, &kind.version, json.clone(), strictness);
        let Ok((mut object, _)) = decoded else { continue };
        kind.rules.default(&mut object);
        let mut errors = Errors::default();
        kind.rules.validate(&*object, &mut errors);
        let stored = object.encode();
        let (again, unknown) = kind.rules.decode(&stored).expect("what we wrote is read");
        assert_eq!(unknown, Vec::<String>::new(), "we write nothing that we do not know");
        assert!(again.equals(&*object), "what we wrote says the same");
    }
}

/// Rows of a table: any object that could be stored.
pub fn tables(bytes: &[u8]) {
    let Some((kind, rest)) = kind(bytes) else { return };
    let Ok(row) = Row::new(kind, Bytes::copy_from_slice(rest), 7) else { return };
    let row = Arc::new(row);
    let Ok(object) = row.object() else { return };
    let cells = kind.rules.cells(&*object, &Printing { now: NOW });
    let columns = kind.rules.columns();
    assert_eq!(cells.len(), columns.len(), "a cell for each column of {}", kind.kind);
    for include in [Include::Nothing, Include::Metadata, Include::Object] {
        let seen = Seen { row: &row, json: row.json() };
        if let Ok(table) = table::table(kind, NOW, &[seen], json!({}), include, true) {
            let heads = table["columnDefinitions"].as_array().map(Vec::len);
            assert_eq!(table["rows"][0]["cells"].as_array().map(Vec::len), heads);
        }
    }
}

/// Bodies in protobuf: what can be read can be decoded or is refused, and never grows without bound.
pub fn protobuf(bytes: &[u8]) {
    if let Ok(value) = protobuf::to_json(bytes) {
        let text = value.to_string();
        let again: Value = serde_json::from_str(&text).expect("JSON that we wrote");
        assert_eq!(again, value);
    }
}

/// The OpenAPI document as protobuf, of any JSON that a custom kind's schema may bring into it.
pub fn openapi(bytes: &[u8]) {
    if let Ok(document) = serde_json::from_slice::<Value>(bytes) {
        let once = openapi::gnostic::encode(&document);
        assert_eq!(
            once,
            openapi::gnostic::encode(&document),
            "the same bytes for the same document"
        );
    }
}

/// Quantities: two ways to the same number.
pub fn quantities(bytes: &[u8]) {
    use api::meta::quantity::Exact;
    let text = text(bytes);
    let Some(parsed) = Exact::parse(&text) else { return };
    let Some(canonical) = Exact::canonical(&text) else { return };
    let again = Exact::parse(&canonical);
    assert_eq!(again, Some(parsed), "{text:?} is {canonical:?}");
    assert_eq!(Exact::canonical(&canonical).as_deref(), Some(&canonical[..]), "{text:?}");
}

/// Pods as a whole: the kind with the most fields, through every rule of it.
pub fn pods(bytes: &[u8]) {
    let kind = api::kind_of::<Pod>();
    let decode = |bytes: &[u8]| -> Result<_, Failure> {
        let json = Bytes::copy_from_slice(bytes);
        body::decode(kind, "v1", json, Strictness::Ignore).map(|it| it.0)
    };
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (old, new) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(mut old) = decode(old) else { return };
    kind.rules.default(&mut old);
    kind.rules.prepare_create(&mut old);
    let _told = kind.rules.warnings(&*old, None);
    let _indexed = kind.rules.index_keys(&*old);
    if let Ok(mut new) = decode(new) {
        kind.rules.default(&mut new);
        kind.rules.prepare_update(&mut new, &*old);
        let mut errors = Errors::default();
        kind.rules.validate_update(&*new, &*old, &mut errors);
    }
}
