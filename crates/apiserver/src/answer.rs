//! What goes back: a body, its status and its headers.

use api::Failure;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::Value;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

pub(crate) type Answer = Response<Body>;

/// A body that is there, or one that comes piece by piece.
pub(crate) enum Body {
    Whole(Option<Bytes>),
    Pieces(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// Another server's, passed on as it is.
    Passed(hyper::body::Incoming),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Body::Pieces(pieces) => {
                pieces.as_mut().poll_next(context).map(|it| it.map(|it| Ok(Frame::data(it))))
            }
            Body::Passed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Pieces(_) => false,
            Body::Passed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Body::Pieces(_) => SizeHint::default(),
            Body::Passed(body) => body.size_hint(),
        }
    }
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(crate) const YAML: &str = "application/yaml";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let body = body.into();
    let body = Body::Whole((!body.is_empty()).then_some(body));
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    let mut answer = whole(status, TEXT, text.into());
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

pub(crate) fn json(status: StatusCode, value: &Value) -> Answer {
    whole(status, JSON, value.to_string())
}

/// A refusal as its `Status`.
pub(crate) fn failure(failure: &Failure) -> Answer {
    tracing::debug!(code = failure.code, reason = failure.reason, "{}", failure.message);
    let status = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(status, &failure.to_json());
    let seconds = failure.details.as_ref().map_or(0, |it| it.retry_after_seconds);
    if seconds > 0 {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Characters of all sentences together, as upstream has it: a client takes only so much before the answer.
const WARNINGS_MAX: usize = 4096;

/// Adds sentences for the person at the other end: `299 - "…"`.
///
/// Upstream: `apimachinery/pkg/util/net/http.go`, NewWarningHeader.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    let mut left = WARNINGS_MAX;
    for warning in warnings {
        let length = warning.chars().count();
        if length > left {
            return;
        }
        left -= length;
        let quoted: String = warning
            .chars()
            .filter(|it| !it.is_control())
            .flat_map(|it| match it {
                '"' | '\\' => vec!['\\', it],
                it => vec![it],
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
}
