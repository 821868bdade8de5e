//! From the bytes of a request to a typed object, as strictly as was asked.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/{create,rest}.go`.

use crate::{protobuf, scan, target::Query, yaml};
use api::{
    AnyKind, AnyObject, Failure, KindRef,
    failure::{Cause, Details},
};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::time::Duration;

/// Upstream's `MaxRequestBodyBytes`: 3 MiB.
pub(crate) const BYTES_MAX: usize = 3 * 1024 * 1024;

/// The whole body, unless it is too large or does not come in `time`.
pub(crate) async fn read(body: hyper::body::Incoming, time: Duration) -> Result<Bytes, Failure> {
    let Some(read) = stdx::timeout(time, Limited::new(body, BYTES_MAX).collect()).await else {
        let why = "Timeout: request did not complete within requested timeout";
        return Err(Failure::new(504, "Timeout", why));
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let why = format!("Request entity too large: limit is {BYTES_MAX}");
            Err(Failure::new(413, "RequestEntityTooLarge", why))
        }
        Err(error) => {
            Err(Failure::bad_request(format!("unable to read the request body: {error}")))
        }
    }
}

/// What happens to fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    Ignore,
    Warn,
    Strict,
}

impl Strictness {
    pub(crate) fn of(query: &Query, options: &str) -> Result<Strictness, Failure> {
        match query.one("fieldValidation") {
            "" | "Warn" => Ok(Strictness::Warn),
            "Ignore" => Ok(Strictness::Ignore),
            "Strict" => Ok(Strictness::Strict),
            other => Err(invalid_options(
                options,
                &format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                ),
            )),
        }
    }
}

/// Whether nothing is to be written.
pub(crate) fn dry_run(query: &Query, options: &str) -> Result<bool, Failure> {
    match query.all("dryRun").find(|it| *it != "All") {
        None => Ok(query.has("dryRun")),
        Some(other) => Err(invalid_options(
            options,
            &format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""),
        )),
    }
}

/// `why`: the field, the reason and what is wrong, as [`api::Errors`] would say it.
pub(crate) fn invalid_options(options: &str, why: &str) -> Failure {
    let message = format!("{options}.meta.k8s.io \"\" is invalid: {why}");
    let mut failure = Failure::new(422, "Invalid", message);
    let (field, said) = why.split_once(": ").unwrap_or(("", why));
    let reason = match said.split(':').next().unwrap_or_default() {
        "Forbidden" => "FieldValueForbidden",
        "Required value" => "FieldValueRequired",
        "Unsupported value" => "FieldValueNotSupported",
        _ => "FieldValueInvalid",
    };
    let cause =
        Cause { reason: reason.to_owned(), message: said.to_owned(), field: field.to_owned() };
    failure.details = Some(Box::new(Details {
        group: "meta.k8s.io".to_owned(),
        kind: options.to_owned(),
        causes: vec![cause],
        ..Details::default()
    }));
    failure
}

/// The body as JSON: `application/json` as it is, YAML and protobuf translated.
pub(crate) fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Failure> {
    match media_type(headers) {
        "application/json" | "" | "*/*" => Ok(body),
        "application/yaml" => {
            let yaml = yaml::read(&body).map_err(Failure::bad_request)?;
            Ok(Bytes::from(yaml.value.to_string()))
        }
        "application/vnd.kubernetes.protobuf" => protobuf::to_json(&body)
            .map(|it| Bytes::from(it.to_string()))
            .map_err(|error| Failure::bad_request(error.to_string())),
        _ => Err(Failure::new(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// The same, and what the strict reader says of keys that a YAML text has twice.
pub(crate) fn to_json_strictly(
    headers: &HeaderMap,
    body: Bytes,
    strictness: Strictness,
) -> Result<(Bytes, Option<String>), Failure> {
    if !is_yaml(headers) {
        return Ok((to_json(headers, body)?, None));
    }
    let yaml = yaml::read(&body).map_err(Failure::bad_request)?;
    let twice = yaml.twice.filter(|_| strictness != Strictness::Ignore);
    Ok((Bytes::from(yaml.value.to_string()), twice))
}

fn media_type(headers: &HeaderMap) -> &str {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let content_type = content_type.unwrap_or("application/json");
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is_yaml(headers: &HeaderMap) -> bool {
    media_type(headers) == "application/yaml"
}

/// Decodes an object of a kind, and says what was odd about it but let through.
pub(crate) fn decode(
    kind: &KindRef,
    version: &str,
    json: Bytes,
    strictness: Strictness,
) -> Result<(AnyObject, Vec<String>), Failure> {
    decode_knowing(kind, version, json, strictness, None)
}

/// Decodes an object of a kind. `twice`: what was odd about its YAML.
pub(crate) fn decode_knowing(
    kind: &KindRef,
    version: &str,
    json: Bytes,
    strictness: Strictness,
    twice: Option<String>,
) -> Result<(AnyObject, Vec<String>), Failure> {
    let scan = scan::scan(&json).unwrap_or_default();
    expect_kind(kind, version, &scan, &json)?;
    let json = as_stored(kind, version, json, &scan);
    let (object, unknown) = kind
        .rules
        .decode(&json)
        .map_err(|error| cannot_be(kind, version, &scan, &error.to_string()))?;
    if strictness == Strictness::Ignore {
        return Ok((object, Vec::new()));
    }
    let mut odd: Vec<String> = twice.into_iter().collect();
    odd.extend(match scan.duplicates.is_empty() || unknown.is_empty() {
        true => strict_errors(&scan.duplicates, &unknown),
        false => scan::oddities(&json, &unknown),
    });
    if strictness == Strictness::Strict && !odd.is_empty() {
        let why = format!("strict decoding error: {}", odd.join(", "));
        return Err(cannot_be(kind, version, &scan, &why));
    }
    Ok((object, odd))
}

/// Everything odd in upstream's words.
pub(crate) fn strict_errors(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let duplicates = duplicates.iter().map(|it| format!("duplicate field {it:?}"));
    duplicates.chain(unknown.iter().map(|it| format!("unknown field {it:?}"))).collect()
}

fn expect_kind(
    kind: &AnyKind,
    version: &str,
    scan: &scan::Scan,
    json: &[u8],
) -> Result<(), Failure> {
    let given_version = scan.api_version.as_ref().map_or("", |it| &it.0);
    let given_kind = scan.kind.as_deref().unwrap_or_default();
    let expected = kind.api_version_as(version);
    if !given_kind.is_empty() && given_kind != kind.kind {
        let why = format!(
            "no kind {given_kind:?} is registered for version {given_version:?}, expected {:?} in version {expected:?}",
            kind.kind
        );
        return Err(cannot_be(kind, version, scan, &why));
    }
    if !given_version.is_empty() && given_version != expected {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({expected})"
        )));
    }
    if json.is_empty() {
        return Err(Failure::bad_request("the body of the request was empty"));
    }
    Ok(())
}

fn cannot_be(kind: &AnyKind, version: &str, scan: &scan::Scan, why: &str) -> Failure {
    let given_kind = scan.kind.as_deref().filter(|it| !it.is_empty()).unwrap_or(&kind.kind);
    let given = scan.api_version.as_ref().map_or("", |it| &it.0);
    let given_version = match given.rsplit('/').next().unwrap_or_default() {
        "" => version,
        given => given,
    };
    Failure::bad_request(format!(
        "{given_kind} in version {given_version:?} cannot be handled as a {}: {why}",
        kind.kind
    ))
}

/// A version that differs in nothing but its name is read as the stored one.
fn as_stored(kind: &AnyKind, version: &str, json: Bytes, scan: &scan::Scan) -> Bytes {
    if version == kind.version {
        return json;
    }
    let stored = kind.api_version();
    if version.contains('/') {
        let here: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
        return match here {
            // The decoder says what is wrong with it.
            serde_json::Value::Null => json,
            here => api::events::event::to_core(here).to_string().into(),
        };
    }
    let Some((_, at)) = &scan.api_version else { return json };
    [&json[..at.start], stored.as_bytes(), &json[at.end..]].concat().into()
}
