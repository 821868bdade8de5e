//! Which form of an object the client takes.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`.

use api::Failure;
use http::{HeaderMap, header};

/// How an object goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) yaml: bool,
    /// What is made as JSON is turned into protobuf at the very end.
    pub(crate) protobuf: bool,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    /// PartialObjectMetadata: everything but metadata left out.
    Partial,
    PartialList,
}

const JSON: Form = Form { yaml: false, protobuf: false, shape: Shape::Object };

pub(crate) const ACCEPTED: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The first form of the `Accept` header that is spoken here.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    first(headers, |_| true)
}

/// The same of what is shown in no table.
pub(crate) fn form_without_table(headers: &HeaderMap) -> Result<Form, Failure> {
    first(headers, |it| it.shape != Shape::Table)
}

fn first(headers: &HeaderMap, fits: impl Fn(&Form) -> bool) -> Result<Form, Failure> {
    let mut accept =
        headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).peekable();
    if accept.peek().is_none() {
        return Ok(JSON);
    }
    let mut clauses: Vec<(&str, f32)> = Vec::new();
    for clause in accept.flat_map(|it| it.split(',')) {
        let quality = |it: &str| it.trim().strip_prefix("q=").and_then(|it| it.parse().ok());
        clauses.push((clause, clause.split(';').find_map(quality).unwrap_or(1.0)));
    }
    // Stable: among equals the first one counts.
    clauses.sort_by(|a, b| b.1.total_cmp(&a.1));
    clauses
        .iter()
        .find_map(|(clause, _)| read(clause).filter(&fits))
        .ok_or_else(|| Failure::new(406, "NotAcceptable", ACCEPTED))
}

fn read(clause: &str) -> Option<Form> {
    let mut parts = clause.split(';').map(str::trim);
    let (yaml, protobuf) = match parts.next()? {
        "application/json" | "application/*" | "*/*" | "" => (false, false),
        "application/yaml" => (true, false),
        "application/vnd.kubernetes.protobuf" => (false, true),
        _ => return None,
    };
    let mut shape = Shape::Object;
    for part in parts {
        match part.split_once('=')? {
            // Tables hold what has no type.
            ("as", "Table") if protobuf => return None,
            ("as", "Table") => shape = Shape::Table,
            ("as", "PartialObjectMetadata") => shape = Shape::Partial,
            ("as", "PartialObjectMetadataList") => shape = Shape::PartialList,
            ("as", _) => return None,
            ("g", "meta.k8s.io") | ("v", "v1" | "v1beta1") => {}
            ("g" | "v", _) => return None,
            _ => {}
        }
    }
    Some(Form { yaml, protobuf, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &'static str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, http::HeaderValue::from_static(accept));
        form(&headers).ok()
    }

    #[test]
    fn takes_the_first_form_that_is_spoken_here() {
        let json = |shape| Some(Form { shape, ..JSON });
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), json(Shape::Table));
        let protobuf = |shape| Some(Form { protobuf: true, shape, ..JSON });
        let packed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(of(packed), protobuf(Shape::Object));
        assert_eq!(of("application/vnd.kubernetes.protobuf;stream=watch"), protobuf(Shape::Object));
        let metadata =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(of(metadata), protobuf(Shape::Partial));
        let table =
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), json(Shape::Object));
        assert_eq!(of("application/cbor"), None);
        let plain = |accept: &'static str| {
            let value = http::HeaderValue::from_static(accept);
            form_without_table(&[(header::ACCEPT, value)].into_iter().collect()).ok()
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(plain(table), json(Shape::Object));
        assert_eq!(plain("application/json;as=Table;v=v1;g=meta.k8s.io"), None);
        assert_eq!(of("text/html, */*;q=0.8"), json(Shape::Object));
        assert_eq!(of("application/yaml"), Some(Form { yaml: true, ..JSON }));
    }
}
