//! Answers: whole, or in pieces as they come.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::convert::Infallible;
use tokio::sync::mpsc;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Answer = Response<Body>;

pub(crate) fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    whole(status, "text/plain; charset=utf-8", text.into())
}

pub(crate) fn json(value: &serde_json::Value) -> Answer {
    whole(StatusCode::OK, "application/json", value.to_string())
}

/// What is sent into the channel, until its sender is gone.
pub(crate) fn stream(pieces: mpsc::Receiver<Bytes>) -> Answer {
    let frames = stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (Ok(Frame::data(piece)), pieces))
    });
    let mut answer = Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
    let kind = HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
