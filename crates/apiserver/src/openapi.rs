//! What the API looks like, for clients that ask: `/openapi/v3`, a document for each group and version,
//! and `/openapi/v2`, all in one, as JSON or protobuf.
//!
//! Documents are built at the first request and kept compressed: a few hundred KB instead of tens of MB.
//! Each is named by the hash of its content, so that clients keep it for as long as it holds.
//!
//! Upstream: `k8s.io/kube-openapi/pkg/{handler,handler3}`.

pub(crate) mod gnostic;
mod parameters;
mod paths;
mod reviews;
mod swagger;

use crate::{
    answer::{self, Answer},
    http::no_such_path,
    server::Server,
};
use api::{Failure, KindRef};
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use std::{
    io::{Read, Write},
    sync::Arc,
};
use tokio::sync::OnceCell;

const ROOT: &str = "/openapi/v3";

/// What clients ask for, and what they get: Go cannot parse the first one.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The documents that somebody asked for.
#[derive(Default)]
pub(crate) struct OpenApi {
    v3: OnceCell<Arc<Vec<(String, Document)>>>,
    v2: OnceCell<Document>,
    v2_protobuf: OnceCell<Document>,
}

/// One document as it is sent.
#[derive(Clone, Debug)]
struct Document {
    gzip: Bytes,
    /// SHA-512 of the content, in hex.
    hash: Arc<str>,
}

impl Document {
    fn new(content: &[u8]) -> Document {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let written = encoder.write_all(content).and_then(|()| encoder.finish());
        let gzip = written.expect("memory can be written to");
        let digest = ring::digest::digest(&ring::digest::SHA512, content);
        let hash: String = digest.as_ref().iter().map(|it| format!("{it:02X}")).collect();
        Document { gzip: gzip.into(), hash: hash.into() }
    }

    fn content(&self) -> Vec<u8> {
        let mut content = Vec::new();
        GzDecoder::new(&*self.gzip).read_to_end(&mut content).expect("what was compressed here");
        content
    }
}

impl Server {
    /// Answers paths below `/openapi`. `hash`: which content the client believes to be the current one.
    pub(crate) async fn openapi(
        &self,
        path: &str,
        hash: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, Failure> {
        let path = path.trim_end_matches('/');
        if path == "/openapi/v2" {
            return match form(headers, &[answer::JSON, PROTOBUF_ASKED, PROTOBUF])? {
                0 => Ok(self.sent(self.swagger().await?, headers, answer::JSON, false)),
                _ => Ok(self.sent(self.swagger_protobuf().await?, headers, PROTOBUF, false)),
            };
        }
        form(headers, &[answer::JSON])?;
        let documents = self.documents().await?;
        if path == ROOT {
            return Ok(self.sent(&index(&documents), headers, answer::JSON, false));
        }
        let name = path.strip_prefix(ROOT).and_then(|it| it.strip_prefix('/'));
        let document = name.and_then(|it| documents.iter().find(|known| known.0 == it));
        let (name, document) = document.ok_or_else(no_such_path)?;
        if !hash.is_empty() && *hash != *document.hash {
            let mut moved = answer::text(StatusCode::MOVED_PERMANENTLY, "");
            if let Ok(place) = HeaderValue::from_str(&location(name, document)) {
                moved.headers_mut().insert(header::LOCATION, place);
            }
            return Ok(moved);
        }
        Ok(self.sent(document, headers, answer::JSON, !hash.is_empty()))
    }

    async fn documents(&self) -> Result<Arc<Vec<(String, Document)>>, Failure> {
        let build = async || {
            let (kinds, version) = (self.kinds.clone(), self.config.version.clone());
            let built = tokio::task::spawn_blocking(move || {
                let served = group_versions(&kinds);
                let document = |(group, of): &(String, String)| {
                    let content = paths::document(&kinds, group, of, &served, &version);
                    (name(group, of), Document::new(content.to_string().as_bytes()))
                };
                Arc::new(served.iter().map(document).collect::<Vec<_>>())
            });
            built.await.map_err(|_panic| not_built())
        };
        self.openapi.v3.get_or_try_init(build).await.cloned()
    }

    async fn swagger(&self) -> Result<&Document, Failure> {
        let build = async || {
            let (kinds, version) = (self.kinds.clone(), self.config.version.clone());
            let build = move || Document::new(joined(&kinds, &version).to_string().as_bytes());
            tokio::task::spawn_blocking(build).await.map_err(|_panic| not_built())
        };
        self.openapi.v2.get_or_try_init(build).await
    }

    async fn swagger_protobuf(&self) -> Result<&Document, Failure> {
        let build = async || {
            let (kinds, version) = (self.kinds.clone(), self.config.version.clone());
            let build = move || Document::new(&gnostic::encode(&joined(&kinds, &version)));
            tokio::task::spawn_blocking(build).await.map_err(|_panic| not_built())
        };
        self.openapi.v2_protobuf.get_or_try_init(build).await
    }

    /// `immutable`: what was asked for by its hash never changes.
    fn sent(
        &self,
        document: &Document,
        headers: &HeaderMap,
        content_type: &'static str,
        immutable: bool,
    ) -> Answer {
        let tag = format!("\"{}\"", document.hash);
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
        let known = known.flat_map(|it| it.split(',')).any(|it| it.trim() == tag);
        let mut answer = if known {
            answer::whole(StatusCode::NOT_MODIFIED, content_type, Bytes::new())
        } else if takes_gzip(headers) {
            let mut answer = answer::whole(StatusCode::OK, content_type, document.gzip.clone());
            let gzip = HeaderValue::from_static("gzip");
            answer.headers_mut().insert(header::CONTENT_ENCODING, gzip);
            answer
        } else {
            answer::whole(StatusCode::OK, content_type, document.content())
        };
        let added = answer.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            added.insert(header::ETAG, tag);
        }
        added.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if immutable {
            let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
            added.insert(header::CACHE_CONTROL, forever);
        }
        answer
    }
}

fn not_built() -> Failure {
    Failure::internal("the description of the API could not be built")
}

/// All groups and versions that are served, in the order of the kinds, then of reviews.
fn group_versions(kinds: &[KindRef]) -> Vec<(String, String)> {
    let mut served: Vec<(String, String)> = Vec::new();
    for kind in kinds {
        for version in &kind.served {
            let this = (kind.group.clone(), version.clone());
            if !served.contains(&this) {
                served.push(this);
            }
        }
    }
    served.extend(reviews::group_versions());
    served
}

/// `apis/apps/v1`
fn name(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

fn location(name: &str, document: &Document) -> String {
    format!("{ROOT}/{name}?hash={}", document.hash)
}

fn index(documents: &[(String, Document)]) -> Document {
    let paths: Map<String, Value> = documents
        .iter()
        .map(|(name, it)| (name.clone(), json!({"serverRelativeURL": location(name, it)})))
        .collect();
    Document::new(json!({"paths": paths}).to_string().as_bytes())
}

fn joined(kinds: &[KindRef], version: &str) -> Value {
    let served = group_versions(kinds);
    let documents =
        served.iter().map(|(group, of)| paths::document(kinds, group, of, &served, version));
    swagger::document(version, documents)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
    values.flat_map(|it| it.split(',')).any(|it| {
        let mut parts = it.split(';').map(str::trim);
        matches!(parts.next(), Some("gzip" | "*")) && !parts.any(|it| it == "q=0")
    })
}

/// Which of `offered` the client takes, by its first clause that names one.
fn form(headers: &HeaderMap, offered: &[&str]) -> Result<usize, Failure> {
    let mut values =
        headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).peekable();
    if values.peek().is_none() {
        return Ok(0);
    }
    values
        .flat_map(|it| it.split(','))
        .find_map(|clause| match clause.split(';').next().unwrap_or_default().trim() {
            "*/*" | "application/*" | "" => Some(0),
            asked => offered.iter().position(|it| *it == asked),
        })
        .ok_or_else(|| {
            let types = offered.join(", ");
            let why = format!("only the following media types are accepted: {types}");
            Failure::new(406, "NotAcceptable", why)
        })
}

#[cfg(test)]
mod tests;
