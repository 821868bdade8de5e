//! The last step of an answer: into protobuf, and smaller, where the client asked for it.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/responsewriters/writers.go`.

use crate::{
    accept::{ACCEPTED, Form},
    answer::{self, Answer, Body},
    protobuf,
};
use api::Failure;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, header};
use std::io::Write;

/// Upstream's `defaultGzipThresholdBytes`: below it, packing costs more than it saves.
const GZIP_FROM: usize = 128 * 1024;

/// Turns an answer that is made as JSON into protobuf. `strictly`: it is about objects, which go in no
/// form that was not asked for.
pub(crate) fn packed(answer: Answer, form: Form, strictly: bool) -> Answer {
    if !form.protobuf || !is_json(&answer) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Body::Whole(Some(json)) = body else { return Answer::from_parts(parts, body) };
    match protobuf::from_json(&json) {
        Ok(packed) => {
            let kind = HeaderValue::from_static(answer::PROTOBUF);
            parts.headers.insert(header::CONTENT_TYPE, kind);
            Answer::from_parts(parts, Body::Whole(Some(packed.into())))
        }
        // What has no messages is spoken of in JSON.
        Err(protobuf::ProtobufError::UnknownKind { .. }) if !strictly => {
            Answer::from_parts(parts, Body::Whole(Some(json)))
        }
        Err(protobuf::ProtobufError::UnknownKind { .. }) => {
            answer::failure(&Failure::new(406, "NotAcceptable", ACCEPTED))
        }
        Err(error) => answer::failure(&Failure::internal(error)),
    }
}

/// Makes a large answer smaller for a client that takes it so.
pub(crate) fn smaller(answer: Answer, asked: &HeaderMap) -> Answer {
    let takes = |it: &HeaderValue| {
        it.to_str()
            .is_ok_and(|it| it.split(',').any(|it| it.trim().split(';').next() == Some("gzip")))
    };
    let is_small = answer.headers().contains_key(header::CONTENT_ENCODING);
    if is_small || !asked.get_all(header::ACCEPT_ENCODING).iter().any(takes) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let body = match body {
        Body::Whole(Some(bytes)) if bytes.len() > GZIP_FROM => match gzip(&bytes) {
            Ok(small) => {
                parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
                Body::Whole(Some(small))
            }
            Err(_) => Body::Whole(Some(bytes)),
        },
        body => body,
    };
    Answer::from_parts(parts, body)
}

fn is_json(answer: &Answer) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|it| it.as_bytes() == answer::JSON.as_bytes())
}

/// Upstream's level: fast rather than small.
fn gzip(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}
