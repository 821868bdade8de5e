//! What a connection is to become, and in which of its forms: the two handshakes.
//!
//! Upstream: `k8s.io/streaming/pkg/httpstream/{httpstream.go,spdy/upgrade.go}`.

use crate::answer::{self, Answer, Body};
use api::Failure;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What Go writes in the header that asks for SPDY.
pub(super) const SPDY: &str = "SPDY/3.1";

const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The client's first choice that we know too; empty when it names none. `Err` is the answer to one that knows
/// none of ours.
pub(super) fn spdy_protocol(
    headers: &HeaderMap,
    ours: &[&'static str],
) -> Result<&'static str, Box<Answer>> {
    let named = headers.get_all(&VERSION).iter().filter_map(|it| it.to_str().ok());
    let named: Vec<&str> = named.flat_map(|it| it.split(',')).map(str::trim).collect();
    if named.is_empty() {
        return Ok("");
    }
    let known = named.iter().find_map(|it| ours.iter().find(|known| *known == it));
    if let Some(known) = known {
        return Ok(known);
    }
    let (theirs, known) = (named.join(" "), ours.join(" "));
    let why = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{theirs}], server accepts [{known}]"
    );
    let mut answer = answer::text(StatusCode::FORBIDDEN, why);
    for known in ours {
        answer.headers_mut().append(ACCEPTED, HeaderValue::from_static(known));
    }
    Err(Box::new(answer))
}

pub(super) fn switch_to_spdy(protocol: &'static str) -> Answer {
    let mut answer = switching(HeaderValue::from_static(SPDY));
    if !protocol.is_empty() {
        answer.headers_mut().insert(VERSION, HeaderValue::from_static(protocol));
    }
    answer
}

/// The subprotocols that the client can speak, its first choice first.
pub(super) fn web_socket_protocols(headers: &HeaderMap) -> Vec<&str> {
    let named = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let named = named.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    named.map(str::trim).collect()
}

pub(super) fn switch_to_web_socket(
    headers: &HeaderMap,
    protocol: &'static str,
) -> Result<Answer, Failure> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let (Some(key), Some(b"13")) = (headers.get(header::SEC_WEBSOCKET_KEY), version) else {
        let why = "unable to upgrade: this is not a WebSocket (version 13) request";
        return Err(Failure::bad_request(why));
    };
    let mut answer = switching(HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let agreed = answer.headers_mut();
    agreed.insert(header::SEC_WEBSOCKET_ACCEPT, accept.map_err(Failure::internal)?);
    if !protocol.is_empty() {
        agreed.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(answer)
}

fn switching(to: HeaderValue) -> Answer {
    let mut answer = Response::new(Body::Whole(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, to);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_known_version_wins() {
        let ours = ["v4", "v3"];
        let mut headers = HeaderMap::new();
        assert_eq!(spdy_protocol(&headers, &ours).ok(), Some(""));
        headers.append(VERSION, HeaderValue::from_static("v9"));
        let refused = spdy_protocol(&headers, &ours).err().unwrap();
        assert_eq!(refused.status(), 403);
        assert_eq!(refused.headers().get_all(ACCEPTED).iter().count(), 2);
        headers.append(VERSION, HeaderValue::from_static("v3"));
        headers.append(VERSION, HeaderValue::from_static("v4"));
        assert_eq!(spdy_protocol(&headers, &ours).ok(), Some("v3"));
    }
}
