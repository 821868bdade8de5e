//! Requests that are for a pod, a Service's pod or a node, and come through the door.
//!
//! Upstream: `pkg/registry/core/{pod/strategy.go,service/storage/storage.go,node/strategy.go}`, ResourceLocation, and
//! `apimachinery/pkg/util/proxy/{upgradeaware,transport}.go`.

mod backend;
mod links;

use crate::{
    answer::{self, Answer, Body},
    http::upgrade,
    server::Server,
    target::Target,
};
use api::Failure;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use links::Links;
use std::sync::Arc;

/// A page whose links are made to lead through the door is read whole.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What concerns one connection and not the next.
const ONE_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

pub(super) async fn pass(
    server: &Arc<Server>,
    target: &Target,
    mut request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let backend = backend::find(server, target).await?;
    let path = request.uri().path();
    let front = path.strip_suffix(target.rest.as_str()).unwrap_or(path).to_owned();
    let query = request.uri().query().map(|it| format!("?{it}")).unwrap_or_default();
    let wanted = upgrade(&request).map(str::to_owned);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if target.rest.is_empty() && wanted.is_none() && reads {
        return redirect(&format!("{front}/{query}"));
    }
    let rest = if target.rest.is_empty() { "/" } else { &target.rest };
    let uri: Uri = format!("{rest}{query}").parse().map_err(|error| {
        Failure::bad_request(format!("the path {rest:?} cannot be asked for: {error}"))
    })?;
    let host = request.headers().get(header::HOST).cloned();
    let client = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = uri;
    *onward.headers_mut() = headers(parts.headers, wanted.as_deref());
    let extra = onward.headers_mut();
    if let Ok(value) = HeaderValue::try_from(format!("{front}{rest}")) {
        extra.insert(HeaderName::from_static("x-forwarded-uri"), value);
    }
    if !extra.contains_key(header::HOST) {
        extra.insert(header::HOST, HeaderValue::from_static("localhost"));
    }
    let mut answer = backend.send(server, onward).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(Failure::internal("the backend switched protocols and was not asked to"));
        };
        super::streams::splice(client, hyper::upgrade::on(&mut answer));
        let mut switching = Response::new(Body::Whole(None));
        *switching.status_mut() = answer.status();
        *switching.headers_mut() = std::mem::take(answer.headers_mut());
        return Ok(switching);
    }
    let own = [backend.host(), host.as_ref().and_then(|it| it.to_str().ok()).unwrap_or_default()];
    back(answer, &Links { front: &front, own }).await
}

fn redirect(to: &str) -> Result<Answer, Failure> {
    let mut answer = answer::text(StatusCode::MOVED_PERMANENTLY, "");
    let to = HeaderValue::try_from(to).map_err(Failure::internal)?;
    answer.headers_mut().insert(header::LOCATION, to);
    Ok(answer)
}

/// What goes on of a request's headers. Who asked is the door's business.
fn headers(mut headers: HeaderMap, upgrade: Option<&str>) -> HeaderMap {
    drop_one_hop(&mut headers);
    headers.remove(header::AUTHORIZATION);
    // Links are found in plain text.
    headers.remove(header::ACCEPT_ENCODING);
    if let Some(protocol) = upgrade.and_then(|it| HeaderValue::from_str(it).ok()) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers
}

fn drop_one_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .map(|it| it.trim().to_lowercase())
        .collect();
    for name in named.iter().map(String::as_str).chain(ONE_HOP) {
        headers.remove(name);
    }
}

/// The backend's answer; redirections and links of pages lead through the door again.
async fn back(answer: Response<Incoming>, links: &Links<'_>) -> Result<Answer, Failure> {
    let (mut parts, body) = answer.into_parts();
    drop_one_hop(&mut parts.headers);
    let moved = parts.headers.get(header::LOCATION).and_then(|it| it.to_str().ok());
    if let Some(moved) = moved.and_then(|it| HeaderValue::try_from(links.rewrite(it)).ok()) {
        parts.headers.insert(header::LOCATION, moved);
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let is_page = kind.is_some_and(|it| it.starts_with("text/html"))
        && !parts.headers.contains_key(header::CONTENT_ENCODING);
    if !is_page {
        return Ok(Response::from_parts(parts, Body::Passed(body)));
    }
    let page = Limited::new(body, PAGE_BYTES_MAX).collect().await.map_err(|error| {
        Failure::new(502, "", format!("reading a page of the backend: {error}"))
    })?;
    let page = page.to_bytes();
    if page.is_empty() {
        // The answer to HEAD has the length of what it would have been.
        return Ok(Response::from_parts(parts, Body::Whole(None)));
    }
    let page = links.page(&String::from_utf8_lossy(&page));
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    Ok(Response::from_parts(parts, Body::Whole(Some(page.into()))))
}
