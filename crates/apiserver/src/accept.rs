//! Which form of an object the client takes.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`.

use api::Failure;
use http::{HeaderMap, header};

/// How an object goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) yaml: bool,
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

/// The first form of the `Accept` header that is spoken here.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let mut accept =
        headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).peekable();
    if accept.peek().is_none() {
        return Ok(Form { yaml: false, shape: Shape::Object });
    }
    let mut clauses: Vec<(&str, f32)> = Vec::new();
    for clause in accept.flat_map(|it| it.split(',')) {
        let quality = |it: &str| it.trim().strip_prefix("q=").and_then(|it| it.parse().ok());
        clauses.push((clause, clause.split(';').find_map(quality).unwrap_or(1.0)));
    }
    // Stable: among equals the first one counts.
    clauses.sort_by(|a, b| b.1.total_cmp(&a.1));
    clauses.iter().find_map(|(clause, _)| read(clause)).ok_or_else(|| {
        Failure::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        )
    })
}

fn read(clause: &str) -> Option<Form> {
    let mut parts = clause.split(';').map(str::trim);
    let yaml = match parts.next()? {
        "application/json" | "application/*" | "*/*" | "" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let mut shape = Shape::Object;
    for part in parts {
        match part.split_once('=')? {
            ("as", "Table") => shape = Shape::Table,
            ("as", "PartialObjectMetadata") => shape = Shape::Partial,
            ("as", "PartialObjectMetadataList") => shape = Shape::PartialList,
            ("as", _) => return None,
            ("g", "meta.k8s.io") | ("v", "v1" | "v1beta1") => {}
            ("g" | "v", _) => return None,
            _ => {}
        }
    }
    Some(Form { yaml, shape })
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
        let json = |shape| Some(Form { yaml: false, shape });
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), json(Shape::Table));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), json(Shape::Object));
        assert_eq!(of("text/html, */*;q=0.8"), json(Shape::Object));
        assert_eq!(of("application/yaml"), Some(Form { yaml: true, shape: Shape::Object }));
        assert_eq!(of("application/vnd.kubernetes.protobuf"), None);
    }
}
